# SPDX-License-Identifier: Apache-2.0
"""The driver's side of the arm: two supervised processes that own ur_rtde, one for the state and one that commands."""

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np

from groot_ros.control.command_gate import Waypoint
from groot_ros.hardware.ur5e.ipc import (
    BEAT,
    BRAKE,
    END_FREEDRIVE,
    FREEDRIVE,
    RECOVER,
    START_SERVO,
    STATE,
    TAKE_CONTROL,
    WAYPOINT,
    order,
)
from groot_ros.hardware.worker_process import WorkerProcess

_SILENT_S = 0.6
_TAKE_CONTROL_S, _RECOVER_S, _CALL_S = 15.0, 25.0, 4.0


@dataclass
class Ur5eSettings:
    """How to reach and move the arm; the tool offset is UR's x y z rx ry rz from flange to TCP."""

    host: str = '192.168.1.100'
    state_rate_hz: float = 125.0
    servo_rate_hz: float = 500.0
    lookahead_s: float = 0.1
    gain: float = 300.0
    smoothing_s: float = 0.05
    tcp_offset: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.174, 0.0, 0.0, 0.0])
    payload_kg: float = 0.94
    payload_centre_m: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.06])


class Ur5e:
    """Calls `on_state` with each STATE record, `on_beat` with each BEAT record, and the two `on_loss` with a sentence.

    The calls that ask something of the robot wait for its answer and return '' or, as one clause, what is wrong.
    """

    def __init__(
        self,
        settings: Ur5eSettings,
        on_state: Callable[[np.void], None],
        on_beat: Callable[[np.void], None],
        on_state_loss: Callable[[str], None],
        on_control_loss: Callable[[str], None],
    ) -> None:
        self._numbers = itertools.count(1)
        package, values = 'groot_ros.hardware.ur5e', asdict(settings)
        self._control = WorkerProcess(
            f'{package}.servo_process',
            values,
            lambda data: on_beat(np.frombuffer(data, BEAT)[0]),
            on_control_loss,
            _SILENT_S,
        )
        self._state = WorkerProcess(
            f'{package}.state_process',
            values,
            lambda data: on_state(np.frombuffer(data, STATE)[0]),
            on_state_loss,
            _SILENT_S,
        )

    def take_control(self) -> str:
        """Uploads the control script, sets TCP, payload and watchdog. Nothing moves."""
        return self._ask(TAKE_CONTROL, _TAKE_CONTROL_S)

    def start_servo(self, pose: np.ndarray) -> str:
        """Begins to servo, at the robot's own target pose (7,)."""
        number = next(self._numbers)
        return self._control.request(order(START_SERVO, number, pose=pose), number, _CALL_S)

    def move(self, waypoint: Waypoint) -> None:
        """Passes a waypoint on."""
        self._control.send(order(WAYPOINT, 0, waypoint.start_s, waypoint.end_s, waypoint.pose))

    def brake(self) -> None:
        """Slows the arm down along its path, then lets the script idle."""
        self._control.send(order(BRAKE))

    def freedrive(self, on: bool) -> str:
        """Lets a hand guide the arm, or ends that."""
        return self._ask(FREEDRIVE, _TAKE_CONTROL_S) if on else self._ask(END_FREEDRIVE, _CALL_S)

    def recover(self) -> str:
        """Recovers from a protective or emergency stop; may take 6 s, or 30 s where the arm must be powered."""
        return self._ask(RECOVER, _RECOVER_S)

    def close(self) -> None:
        """Leaves the arm holding and the script stopped, and ends both processes."""
        self._control.close()
        self._state.close()

    def _ask(self, kind: int, timeout_s: float) -> str:
        number = next(self._numbers)
        return self._control.request(order(kind, number), number, timeout_s)
