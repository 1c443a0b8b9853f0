"""What the ur5e_driver and its child process tell each other: fixed-size numpy records over a pipe, no pickle."""

import numpy as np

STATE = np.dtype([
    ('robot_time_s', 'f8'), ('arrival_ns', 'i8'), ('joint_positions', 'f8', 6), ('joint_velocities', 'f8', 6),
    ('tcp_pose', 'f8', 6), ('target_pose', 'f8', 6), ('target_joints', 'f8', 6), ('speed_scaling', 'f8'), ('robot_mode', 'i4'),
    ('safety_mode', 'i4'), ('runtime_state', 'u4'), ('safety_bits', 'u4'), ('servoing', '?'), ('cycle_ms_max', 'f8'),
])  # fmt: skip

START, WAYPOINT, STOP, QUIT = 1, 2, 3, 4
COMMAND = np.dtype([('kind', 'u1'), ('start_s', 'f8'), ('end_s', 'f8'), ('pose', 'f8', 7)])


def command(kind: int, start_s: float = 0.0, end_s: float = 0.0, pose=(0, 0, 0, 0, 0, 0, 1)) -> bytes:
    """One COMMAND record; times are in s of the monotonic clock, which processes of one machine share."""
    return np.array([(kind, start_s, end_s, pose)], COMMAND).tobytes()
