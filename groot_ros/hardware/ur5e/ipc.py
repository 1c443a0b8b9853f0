# SPDX-License-Identifier: Apache-2.0
"""Messages between ur5e_driver and the processes that own ur_rtde: fixed-size numpy records, no pickle."""

import numpy as np

STATE = np.dtype(
    [
        ('robot_time_s', 'f8'),
        ('arrival_ns', 'i8'),
        ('joint_positions', 'f8', 6),
        ('joint_velocities', 'f8', 6),
        ('tcp_pose', 'f8', 6),
        ('target_pose', 'f8', 6),
        ('target_joints', 'f8', 6),
        ('speed_scaling', 'f8'),
        ('payload_kg', 'f8'),
        ('robot_mode', 'i4'),
        ('safety_mode', 'i4'),
        ('runtime_state', 'u4'),
        ('safety_bits', 'u4'),
        ('status_bits', 'u4'),
    ]
)
"""From state_process, once for each RTDE package of the robot; poses are UR's x y z rx ry rz in m and rad.

`payload_kg` is -1 where the controller is too old to report it.
"""

BEAT = np.dtype(
    [
        ('servoing', '?'),
        ('freedriving', '?'),
        ('setpoint', 'f8', 7),
        ('holds', 'u4'),
        ('rest', 'f8', 7),
        ('cycles', 'u8'),
        ('cycle_ms_p99', 'f8'),
        ('cycle_ms_max', 'f8'),
    ]
)
"""From servo_process, 25 times a second and after each HOLD; the cycle times are of the last second.

`holds` counts the HOLD orders since START_SERVO; `rest` is the pose at which the last of them ends.
"""

TAKE_CONTROL, START_SERVO, WAYPOINT, HOLD, BRAKE, HALT, FREEDRIVE, END_FREEDRIVE, RECOVER = range(1, 10)
LIMIT_SPEEDS = 10
ORDER = np.dtype([('kind', 'u1'), ('number', 'u4'), ('start_s', 'f8'), ('end_s', 'f8'), ('pose', 'f8', 7)])
"""To servo_process; times are in s of the monotonic clock, which all processes of one machine share.

LIMIT_SPEEDS has m/s and rad/s as the first two numbers of `pose`.
"""


def order(
    kind: int, number: int = 0, start_s: float = 0.0, end_s: float = 0.0, pose=(0, 0, 0, 0, 0, 0, 1)
) -> bytes:
    """The bytes of one ORDER record. A `number` other than 0 asks for an answer."""
    return np.array([(kind, number, start_s, end_s, pose)], ORDER).tobytes()
