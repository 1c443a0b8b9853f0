# SPDX-License-Identifier: Apache-2.0
"""The driver's side of the arm: two worker processes that own ur_rtde, one reads and one commands."""

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from groot_ros.control.command_gate import Waypoint
from groot_ros.hardware import DEFAULT_ROBOT_IP
from groot_ros.hardware.ur5e.ipc import (
    BRAKE,
    END_FREEDRIVE,
    FREEDRIVE,
    HALT,
    HOLD,
    LIMIT_SPEEDS,
    RECOVER,
    START_SERVO,
    TAKE_CONTROL,
    WAYPOINT,
    order,
)
from groot_ros.hardware.ur5e.record_check import read_beat, read_state
from groot_ros.hardware.worker_process import WorkerProcess
from groot_ros.settings import setting
from groot_ros.ur5e_kinematics import DEFAULT_TCP_OFFSET

_SILENT_S = 0.6
# Each is longer than the deadlines that servo_process announces for the same order take together.
TAKE_CONTROL_S = 40.0
RECOVER_S = 50.0
_CALL_S = 4.0


@dataclass
class Ur5eSettings:
    """How to reach and move the arm: parameters of ur5e_driver; `smoothing_s`, `max_speeds` are of Limits."""

    robot_ip: str = setting(DEFAULT_ROBOT_IP, 'address of the UR5e, or of sim_cell')
    state_rate_hz: float = setting(125.0, 'rate of joint_states, tcp_pose and tcp_target, Hz', 10.0, 500.0)
    servo_rate_hz: float = setting(
        500.0, 'rate of the servo loop, Hz: 500 for e-Series, 125 for CB3', 125.0, 500.0
    )
    lookahead_s: float = setting(0.1, 'lookahead time of servoL, s: longer is smoother and slower', 0.03, 0.2)
    gain: float = setting(300.0, 'gain of servoL', 100.0, 2000.0)
    tcp_offset: list[float] = setting(
        DEFAULT_TCP_OFFSET.tolist(), 'flange to TCP, UR x y z rx ry rz in m and rad'
    )
    payload_kg: float = setting(0.94, 'mass behind the flange, kg', 0.0, 5.0)
    payload_centre_m: list[float] = setting([0.0, 0.0, 0.06], 'centre of that mass in the flange frame, m')
    smoothing_s: float = 0.0625
    max_speeds: tuple[float, float] = (0.25, 1.0)


class Ur5e:
    """Two worker processes. `on_state` gets each STATE record, `on_beat` each BEAT record.

    The two `on_loss` get a sentence when a process was lost; it is restarted by itself. `on_call` gets the
    name of each call to the robot that may take long. The calls that need an answer of the robot wait for it
    and return '' or, as one clause, what is wrong.
    """

    def __init__(
        self,
        settings: Ur5eSettings,
        on_state: Callable[[np.void], None],
        on_beat: Callable[[np.void], None],
        on_state_loss: Callable[[str], None],
        on_control_loss: Callable[[str], None],
        on_call: Callable[[str], None],
    ) -> None:
        self._numbers = itertools.count(1)
        self._max_speeds = settings.max_speeds
        values = asdict(settings)
        self._control = WorkerProcess(
            'groot_ros.hardware.ur5e.servo_process',
            values,
            lambda data: on_beat(read_beat(data)),
            on_control_loss,
            _SILENT_S,
            on_call,
        )
        self._state = WorkerProcess(
            'groot_ros.hardware.ur5e.state_process',
            values,
            lambda data: on_state(read_state(data)),
            on_state_loss,
            _SILENT_S,
        )

    def take_control(self) -> str:
        """Uploads the control script, sets TCP, payload and watchdog. Nothing moves."""
        return self._ask(TAKE_CONTROL, TAKE_CONTROL_S)

    def start_servo(self, pose: np.ndarray) -> str:
        """Starts to servo, at the robot's own target pose (7,)."""
        self.limit_speeds(self._max_speeds)  # the process may have been started again
        return self._ask(START_SERVO, _CALL_S, pose=pose)

    def limit_speeds(self, max_speeds: tuple[float, float]) -> None:
        """Sets how fast set-points that catch up may be, in m/s and rad/s."""
        self._max_speeds = max_speeds
        self._control.send(order(LIMIT_SPEEDS, pose=(*max_speeds, 0, 0, 0, 0, 1)))

    def move(self, waypoint: Waypoint) -> None:
        """Sends an accepted waypoint to the servo loop."""
        self._control.send(order(WAYPOINT, 0, waypoint.start_s, waypoint.end_s, waypoint.pose))

    def hold(self) -> None:
        """Slows the arm down along its path and goes on to servo there. A beat then tells where."""
        self._control.send(order(HOLD))

    def brake(self) -> None:
        """Slows the arm down along its path, then lets the script idle. Ends freedrive."""
        self._control.send(order(BRAKE))

    def halt(self) -> None:
        """Drops the set-points and stops the arm where it is. Ends freedrive."""
        self._control.send(order(HALT))

    def enter_freedrive(self) -> str:
        """Lets a person guide the arm by hand."""
        return self._ask(FREEDRIVE, TAKE_CONTROL_S)

    def end_freedrive(self) -> str:
        """Holds the arm again, and waits until the robot has confirmed it."""
        return self._ask(END_FREEDRIVE, _CALL_S)

    def request_end_of_freedrive(self) -> None:
        """Holds the arm again, without waiting for the robot."""
        self._control.send(order(END_FREEDRIVE))

    def recover(self) -> str:
        """Recovers from a protective or emergency stop. Takes up to 6 s, or 40 s if the power is off."""
        return self._ask(RECOVER, RECOVER_S)

    def close(self) -> None:
        """Stops the script, which leaves the arm holding its position, and ends both processes."""
        self._control.close()
        self._state.close()

    def _ask(self, kind: int, timeout_s: float, **content: np.ndarray) -> str:
        number = next(self._numbers)
        return self._control.request(order(kind, number, **content), number, timeout_s)
