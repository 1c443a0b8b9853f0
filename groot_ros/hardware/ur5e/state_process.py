# SPDX-License-Identifier: Apache-2.0
"""The process that reads the robot's state through ur_rtde's receive interface. Started by hardware/ur5e/arm.py.

It is apart from hardware/ur5e/servo_process.py, so that the state goes on when the control interface crashes, hangs or starts.
"""

import time

import numpy as np
from rtde_receive import RTDEReceiveInterface

from groot_ros.hardware.realtime import SERVO_PRIORITY, set_realtime_priority
from groot_ros.hardware.ur5e.ipc import STATE
from groot_ros.hardware.worker_process import WorkerConnection, run_worker

_VARIABLES = [
    'timestamp', 'actual_q', 'actual_qd', 'actual_TCP_pose', 'target_TCP_pose', 'target_q', 'speed_scaling', 'robot_mode',
    'safety_mode', 'runtime_state', 'safety_status_bits', 'robot_status_bits',
]  # fmt: skip
_CONNECT_S = 8.0
_LOOK_HZ = 500.0
_REREADS = 3
_GOLDEN_RATIO = 0.6180339887  # its multiples fill a period evenly


def new_state(receive: RTDEReceiveInterface, last_time_s: float) -> np.void | None:
    """A STATE record where the robot sent something since `last_time_s`.

    The getters are separate calls, so the time is read again behind them: one record comes from one package.
    """
    for _ in range(_REREADS):
        robot_time_s = receive.getTimestamp()
        if robot_time_s == last_time_s:
            return None
        # ChunkResult behind each reading of the time: an arrival before its own measurement would shift every later stamp.
        state = _state(receive, robot_time_s, time.time_ns())
        if receive.getTimestamp() == robot_time_s:
            break
    return state


def work(end: WorkerConnection) -> None:
    """Sends a record for each package of the robot.

    It looks 500 times a second, each time at another phase of the period: at a fixed phase every package would seem to
    arrive equally late, and the filter of control/device_clock.py could not find out how late.
    """
    set_realtime_priority(SERVO_PRIORITY)
    with end.deadline('connecting to the RTDE port', _CONNECT_S):
        receive = RTDEReceiveInterface(end.settings['robot_ip'], end.settings['state_rate_hz'], _VARIABLES)
    due_s, looks, last_time_s = time.monotonic(), 0, -1.0
    while True:
        for _ in end.orders():
            pass  # nothing is ordered; this notices that the parent hung up
        if (state := new_state(receive, last_time_s)) is not None:
            end.send(state.tobytes())
            last_time_s = float(state['robot_time_s'])
        elif not receive.isConnected():
            raise RuntimeError('the robot closed the RTDE connection')
        looks += 1
        due_s = max(due_s + 1.0 / _LOOK_HZ, time.monotonic() - 0.01)
        time.sleep(max(due_s + (looks * _GOLDEN_RATIO % 1.0) / _LOOK_HZ - time.monotonic(), 0.0))


def _state(receive: RTDEReceiveInterface, robot_time_s: float, arrival_ns: int) -> np.void:
    return np.array([(
        robot_time_s, arrival_ns, receive.getActualQ(), receive.getActualQd(), receive.getActualTCPPose(), receive.getTargetTCPPose(),
        receive.getTargetQ(), receive.getSpeedScaling(), receive.getRobotMode(), receive.getSafetyMode(), receive.getRuntimeState(),
        receive.getSafetyStatusBits(), receive.getRobotStatus(),
    )], STATE)[0]  # fmt: skip


if __name__ == '__main__':
    run_worker(work)
