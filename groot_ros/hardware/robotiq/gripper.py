# SPDX-License-Identifier: Apache-2.0
"""A Robotiq 2F gripper: one worker thread that sends the latest target and reads at a fixed rate."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from groot_ros.errors import GrootRosError
from groot_ros.hardware.robotiq.connection import (
    ACTIVE,
    GripperConnection,
    GripperRegisters,
    ModbusGripper,
    UrcapSocket,
)

FAULTS = {
    0: '', 5: 'waits for the activation to end', 7: 'not activated: call ~/activate', 8: 'over-temperature', 9: 'no communication for 1 s',
    10: 'under-voltage', 11: 'automatic release running', 12: 'internal fault', 13: 'activation fault', 14: 'overcurrent',
    15: 'automatic release done',
}  # fmt: skip
_NOT_ACTIVE = 7
_MOVING, _AT_TARGET = 0, 3
_CONTACT = (1, 2)
_DEADBAND_COUNTS = 2
_RETRY_S = 1.0
_TRAVEL_S, _REST_S = 6.0, 0.3
_MIN_TRAVEL_COUNTS = 100


@dataclass
class GripperReading:
    """Openings are 1 open, 0 closed; `stamp_ns` is when the reply arrived."""

    stamp_ns: int
    position: float
    target: float
    moving: bool
    object_detected: bool
    fault: int
    current_a: float


@dataclass
class GripperSettings:
    """Counts are POS at the ends of travel: a 2F-85 reads about 3 open and 228 closed. Speed and force are 0 to 1.

    `connection` is 'urcap' (the robot at `host`) or 'modbus' (the serial port `device`).
    """

    connection: str = 'urcap'
    host: str = '192.168.1.100'
    device: str = '/dev/ttyUSB0'
    rate_hz: float = 50.0
    open_count: int = 3
    closed_count: int = 228
    speed: float = 1.0
    force: float = 0.5
    activate_on_start: bool = True


class Robotiq:
    """Calls `on_reading` at a fixed rate and `on_loss` with a sentence when the connection breaks; reconnects by itself.

    It activates the gripper, which moves the fingers, once at the start and never by itself after a loss.
    """

    def __init__(
        self,
        settings: GripperSettings,
        on_reading: Callable[[GripperReading], None],
        on_loss: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self._on_reading, self._on_loss = on_reading, on_loss
        self._wanted: float | None = None
        self._sent: int | None = None
        self._may_activate = settings.activate_on_start
        self._errand: tuple[Callable[[GripperConnection], str], Future[str]] | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name='robotiq', daemon=True)
        self._thread.start()

    def move(self, opening: float) -> None:
        """Sets the target, 1 open to 0 closed; values outside are clipped."""
        self._wanted = min(max(opening, 0.0), 1.0)

    def activate(self) -> str:
        """Activates anew, which moves the fingers; returns '' or what is wrong."""
        return self._run(self._activate)

    def calibrate(self) -> str:
        """Opens and closes fully and takes over the counts that it reads; returns '' or what is wrong."""
        return self._run(self._calibrate)

    def close(self) -> None:
        """Ends the worker; the gripper holds what it holds."""
        self._closing.set()
        self._thread.join(3.0)

    def _run(self, errand: Callable[[GripperConnection], str]) -> str:
        done: Future[str] = Future()
        self._errand = errand, done
        try:
            return done.result(2 * _TRAVEL_S + 4.0)
        except TimeoutError:
            return 'the gripper does not answer'

    def _work(self) -> None:
        while not self._closing.is_set():
            gripper = None
            try:
                gripper = self._connect()
                if self._may_activate and gripper.read().activation != ACTIVE:
                    gripper.activate()
                self._may_activate = False
                self._serve(gripper)
            except (OSError, GrootRosError) as error:
                self._on_loss(str(error))
                self._closing.wait(_RETRY_S)
            finally:
                if gripper is not None:
                    with contextlib.suppress(OSError):
                        gripper.close()

    def _connect(self) -> GripperConnection:
        if self.settings.connection == 'modbus':
            return ModbusGripper(self.settings.device)
        return UrcapSocket(self.settings.host)

    def _serve(self, gripper: GripperConnection) -> None:
        self._sent = None
        due_s = time.monotonic()
        while not self._closing.is_set():
            self._run_errand(gripper)
            self._send_target(gripper)
            self._report(gripper.read())
            due_s = max(due_s + 1.0 / self.settings.rate_hz, time.monotonic() - 1.0)
            self._closing.wait(max(due_s - time.monotonic(), 0.0))

    def _run_errand(self, gripper: GripperConnection) -> None:
        if self._errand is None:
            return
        (errand, done), self._errand = self._errand, None
        try:
            done.set_result(errand(gripper))
        except (OSError, GrootRosError) as error:
            done.set_result(str(error))
            raise

    def _activate(self, gripper: GripperConnection) -> str:
        gripper.activate()
        self._sent, self._wanted = None, None
        return ''

    def _calibrate(self, gripper: GripperConnection) -> str:
        ends = []
        for count in (0, 255, 0):
            registers = self._travel(gripper, count)
            if registers.object_status != _AT_TARGET:
                return (
                    'the fingers met something, or did not arrive: clear the space between them and try again'
                )
            ends.append(registers.position)
        if ends[1] - ends[2] < _MIN_TRAVEL_COUNTS:
            return f'the fingers read {ends[2]} open and {ends[1]} closed, too little travel for a 2F gripper'
        self.settings.open_count, self.settings.closed_count = ends[2], ends[1]
        self._wanted, self._sent = 1.0, 0
        return ''

    def _travel(self, gripper: GripperConnection, count: int) -> GripperRegisters:
        """Moves to an end and waits until the fingers rest: the status says so a little earlier."""
        gripper.go_to(count, 128, round(255 * self.settings.force))
        deadline_s = time.monotonic() + _TRAVEL_S
        self._closing.wait(_REST_S)
        positions: deque[int] = deque(maxlen=max(round(_REST_S * self.settings.rate_hz), 2))
        while True:
            registers = gripper.read()
            positions.append(registers.position)
            resting = len(positions) == positions.maxlen and len(set(positions)) == 1
            if (resting and registers.object_status != _MOVING) or time.monotonic() > deadline_s:
                return registers
            self._report(registers)
            self._closing.wait(1.0 / self.settings.rate_hz)

    def _send_target(self, gripper: GripperConnection) -> None:
        if self._wanted is None:
            return
        count = self._count(self._wanted)
        if (
            self._sent is None
            or abs(count - self._sent) > _DEADBAND_COUNTS
            or (count != self._sent and self._wanted in (0.0, 1.0))
        ):
            gripper.go_to(count, round(255 * self.settings.speed), round(255 * self.settings.force))
            self._sent = count

    def _report(self, registers: GripperRegisters) -> None:
        active = registers.activation == ACTIVE
        self._on_reading(GripperReading(
            stamp_ns=time.time_ns(),
            position=self._opening(registers.position),
            target=self._opening(registers.requested if self._sent is not None else registers.position),
            moving=active and registers.object_status == _MOVING,
            object_detected=registers.object_status in _CONTACT,
            fault=registers.fault if active or registers.fault else _NOT_ACTIVE,
            current_a=registers.current_a,
        ))  # fmt: skip

    def _count(self, opening: float) -> int:
        return round(
            self.settings.closed_count + (self.settings.open_count - self.settings.closed_count) * opening
        )

    def _opening(self, count: int) -> float:
        share = (count - self.settings.closed_count) / (self.settings.open_count - self.settings.closed_count)
        return min(max(share, 0.0), 1.0)
