# SPDX-License-Identifier: Apache-2.0
"""The process that reads the robot's state through ur_rtde's receive interface. Started by arm.py.

It is separate from servo_process.py, so that the state continues while the control interface crashes, hangs
or starts.
"""

import time

import numpy as np
from rtde_receive import RTDEReceiveInterface

from groot_ros.hardware.realtime import SERVO_PRIORITY, set_realtime_priority
from groot_ros.hardware.ur5e.installation import UNKNOWN_PAYLOAD_KG
from groot_ros.hardware.ur5e.ipc import STATE
from groot_ros.hardware.worker_process import WorkerConnection, run_worker

_VARIABLES = [
    'timestamp',
    'actual_q',
    'actual_qd',
    'actual_TCP_pose',
    'target_TCP_pose',
    'target_q',
    'speed_scaling',
    'robot_mode',
    'safety_mode',
    'runtime_state',
    'safety_status_bits',
    'robot_status_bits',
]
_PAYLOAD = 'payload'  # since PolyScope 5.6 and 3.11
_CONNECT_S = 8.0
_POLL_HZ = 500.0
_REREADS = 3
_GOLDEN_RATIO = 0.6180339887  # its multiples fill a period evenly


def connect(end: WorkerConnection) -> tuple[RTDEReceiveInterface, bool]:
    """The receive interface, and whether the controller is new enough to report the payload.

    Raises RuntimeError, of the library, if the robot does not answer.
    """
    robot_ip, rate_hz = end.settings['robot_ip'], end.settings['state_rate_hz']
    try:
        with end.deadline('connecting to the RTDE port', _CONNECT_S):
            return RTDEReceiveInterface(robot_ip, rate_hz, [*_VARIABLES, _PAYLOAD]), True
    except RuntimeError as error:
        if _PAYLOAD not in str(error):
            raise
    with end.deadline('connecting to the RTDE port without payload', _CONNECT_S):
        return RTDEReceiveInterface(robot_ip, rate_hz, _VARIABLES), False


def new_state(receive: RTDEReceiveInterface, last_time_s: float, has_payload: bool = True) -> np.void | None:
    """A STATE record, or None if the robot sent nothing since `last_time_s`.

    The getters are separate calls, so the time is read again after them: one record comes from one package.
    """
    for _ in range(_REREADS):
        robot_time_s = receive.getTimestamp()
        if robot_time_s == last_time_s:
            return None
        # Taken after the reading of the time: an arrival before its measurement would shift later stamps.
        state = _state(receive, robot_time_s, time.time_ns(), has_payload)
        if receive.getTimestamp() == robot_time_s:
            break
    return state


def work(end: WorkerConnection) -> None:
    """Sends a record for each package of the robot.

    It polls 500 times a second with a varying phase. With a fixed phase every package would have the same
    delay, and the filter of control/device_clock.py could not find the minimum.
    """
    set_realtime_priority(SERVO_PRIORITY)
    receive, has_payload = connect(end)
    due_s = time.monotonic()
    polls = 0
    last_time_s = -1.0
    while True:
        for _ in end.orders():
            pass  # there are no orders, but this notices that the parent hung up
        if (state := new_state(receive, last_time_s, has_payload)) is not None:
            end.send(state.tobytes())
            last_time_s = float(state['robot_time_s'])
        elif not receive.isConnected():
            raise RuntimeError('the robot closed the RTDE connection')
        polls += 1
        due_s = max(due_s + 1.0 / _POLL_HZ, time.monotonic() - 0.01)
        phase_s = (polls * _GOLDEN_RATIO % 1.0) / _POLL_HZ
        time.sleep(max(due_s + phase_s - time.monotonic(), 0.0))


def _state(receive: RTDEReceiveInterface, robot_time_s: float, arrival_ns: int, has_payload: bool) -> np.void:
    record = (
        robot_time_s,
        arrival_ns,
        receive.getActualQ(),
        receive.getActualQd(),
        receive.getActualTCPPose(),
        receive.getTargetTCPPose(),
        receive.getTargetQ(),
        receive.getSpeedScaling(),
        receive.getPayload() if has_payload else UNKNOWN_PAYLOAD_KG,
        receive.getRobotMode(),
        receive.getSafetyMode(),
        receive.getRuntimeState(),
        receive.getSafetyStatusBits(),
        receive.getRobotStatus(),
    )
    return np.array([record], STATE)[0]


if __name__ == '__main__':
    run_worker(work)
