# SPDX-License-Identifier: Apache-2.0
"""A Robotiq 2F gripper: one thread sends the latest target and reads the registers at a fixed rate."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from groot_ros.errors import GrootRosError
from groot_ros.hardware import DEFAULT_ROBOT_IP
from groot_ros.hardware.robotiq.modbus import ModbusGripper
from groot_ros.hardware.robotiq.registers import ACTIVE, GripperConnection, GripperRegisters
from groot_ros.hardware.robotiq.urcap import UrcapSocket
from groot_ros.settings import setting

FAULTS = {
    0: '',
    5: 'waits for the activation to end',
    7: 'not activated: call ~/activate',
    8: 'over-temperature',
    9: 'no communication for 1 s',
    10: 'under-voltage',
    11: 'automatic release running',
    12: 'internal fault',
    13: 'activation fault',
    14: 'overcurrent',
    15: 'automatic release done',
}
_NOT_ACTIVE = 7
_MOVING = 0
_AT_TARGET = 3
_CONTACT = (1, 2)
_DEADBAND_COUNTS = 2
_RETRY_S = 1.0
_TRAVEL_S = 6.0
_REST_S = 0.3
_CALIBRATION_SPEED = 128
_MIN_TRAVEL_COUNTS = 100


@dataclass
class GripperReading:
    """One reading. `opening` and `target` are 1 open to 0 closed; `stamp_ns` is the arrival of the reply."""

    stamp_ns: int
    opening: float
    target: float
    moving: bool
    object_detected: bool
    fault: int
    current_a: float


@dataclass
class GripperSettings:
    """The parameters of robotiq_driver. A count is the POS register: about 3 open, 228 closed in a 2F-85."""

    connection: str = setting(
        'urcap', "'urcap': port 63352 of the robot; 'modbus': a USB adapter of the gripper's own"
    )
    robot_ip: str = setting(DEFAULT_ROBOT_IP, 'address of the robot whose Robotiq URCap serves port 63352')
    device: str = setting('/dev/ttyUSB0', 'serial port, for connection modbus')
    rate_hz: float = setting(50.0, 'rate of gripper/state, Hz', 5.0, 60.0)
    open_count: int = setting(3, 'POS register of the open gripper, as ~/calibrate reports it')
    closed_count: int = setting(228, 'POS register of the closed gripper, as ~/calibrate reports it')
    speed: float = setting(1.0, 'finger speed, 0 slowest to 1 fastest', 0.0, 1.0)
    force: float = setting(0.5, 'grip force, 0 softest to 1 hardest', 0.0, 1.0)
    force_calibration: bool = setting(
        False, '~/calibrate and ~/activate also while an object is held or the arm is enabled: it may fall'
    )
    activate_on_start: bool = setting(
        True, 'activate a gripper that is not active: the fingers move through their travel'
    )

    def __post_init__(self) -> None:
        if self.connection not in CONNECTIONS:
            known = ' or '.join(map(repr, CONNECTIONS))
            raise GrootRosError(f'There is no connection {self.connection!r}: set connection to {known}.')
        if self.open_count == self.closed_count:
            raise GrootRosError(
                f'open_count and closed_count are both {self.open_count}: remove them from the parameter '
                'file, call ~/calibrate and write down the counts that it reports.'
            )


CONNECTIONS: dict[str, Callable[[GripperSettings], GripperConnection]] = {
    'urcap': lambda settings: UrcapSocket(settings.robot_ip),
    'modbus': lambda settings: ModbusGripper(settings.device),
}


class Robotiq:
    """Calls `on_reading` at a fixed rate, and `on_loss` with a sentence when the connection breaks.

    It reconnects by itself, reads first, and then sends nothing until the next `move`: a person may have put
    the fingers elsewhere. It activates the gripper, which moves the fingers, only once after `start`.
    """

    def __init__(
        self,
        settings: GripperSettings,
        on_reading: Callable[[GripperReading], None],
        on_loss: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self._on_reading = on_reading
        self._on_loss = on_loss
        self._wanted: float | None = None
        self._sent: int | None = None
        self._newest: GripperReading | None = None
        self._may_activate = False
        self._request: tuple[Callable[[GripperConnection], str], Future[str]] | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name='robotiq', daemon=True)
        self._thread.start()

    def start(self) -> None:
        """Activates a gripper that is not active, if the settings say so: the fingers may move now."""
        self._may_activate = self.settings.activate_on_start

    def forget_target(self) -> None:
        """Sends no target until the next `move`; the fingers still go to one that was sent."""
        self._wanted = None

    def move(self, opening: float) -> None:
        """Sets the target, 1 open to 0 closed; values outside are clipped."""
        self._wanted = min(max(opening, 0.0), 1.0)

    def activate(self, force: bool = False) -> str:
        """Activates the gripper again, which moves the fingers. Returns '' or what is wrong.

        Refused while the fingers hold an object, unless it is forced.
        """
        return self._held_object(force) or self._run(self._activate)

    def calibrate(self, force: bool = False) -> str:
        """Opens and closes fully and uses the counts that it reads. Returns '' or what is wrong.

        Refused while the fingers hold an object, unless it is forced.
        """
        return self._held_object(force) or self._run(self._calibrate)

    def close(self) -> None:
        """Ends the thread and closes the connection; the gripper keeps its last target."""
        self._closing.set()
        self._thread.join(3.0)

    def _held_object(self, force: bool) -> str:
        if force or self._newest is None or not self._newest.object_detected:
            return ''
        return (
            'the fingers hold an object, which would fall: take it out first, or start the driver with '
            'force_calibration'
        )

    def _run(self, request: Callable[[GripperConnection], str]) -> str:
        done: Future[str] = Future()
        self._request = request, done
        try:
            return done.result(2 * _TRAVEL_S + 4.0)
        except TimeoutError:
            return 'the gripper does not answer: see the warnings of robotiq_driver'

    def _work(self) -> None:
        while not self._closing.is_set():
            gripper = None
            try:
                gripper = self._connect()
                self._serve(gripper)
            except Exception as error:  # nothing that a gripper sends may end this thread
                self._on_loss(_reason(error))
                self._closing.wait(_RETRY_S)
            finally:
                if gripper is not None:
                    with contextlib.suppress(OSError):
                        gripper.close()

    def _connect(self) -> GripperConnection:
        return CONNECTIONS[self.settings.connection](self.settings)

    def _serve(self, gripper: GripperConnection) -> None:
        self._sent = None
        self._wanted = None
        self._report(gripper.read())
        due_s = time.monotonic()
        while not self._closing.is_set():
            self._activate_once(gripper)
            self._handle_request(gripper)
            self._send_target(gripper)
            self._report(gripper.read())
            due_s = max(due_s + 1.0 / self.settings.rate_hz, time.monotonic() - 1.0)
            self._closing.wait(max(due_s - time.monotonic(), 0.0))

    def _activate_once(self, gripper: GripperConnection) -> None:
        if not self._may_activate:
            return
        self._may_activate = False  # first: after a failure the fingers move only when somebody asks
        if gripper.read().activation != ACTIVE:
            gripper.activate()

    def _handle_request(self, gripper: GripperConnection) -> None:
        if self._request is None:
            return
        request, done = self._request
        self._request = None
        try:
            done.set_result(request(gripper))
        except Exception as error:
            done.set_result(_reason(error))
            raise

    def _activate(self, gripper: GripperConnection) -> str:
        gripper.activate()
        self._sent = None
        self._wanted = None
        return ''

    def _calibrate(self, gripper: GripperConnection) -> str:
        ends = []
        for count in (0, 255, 0):
            registers = self._travel(gripper, count)
            if registers.object_status != _AT_TARGET:
                return 'the fingers met something or did not arrive: clear the space between them, try again'
            ends.append(registers.position)
        _, closed_count, open_count = ends
        if closed_count - open_count < _MIN_TRAVEL_COUNTS:
            return f'the fingers report {open_count} open, {closed_count} closed: too little for a 2F gripper'
        self.settings.open_count = open_count
        self.settings.closed_count = closed_count
        self._wanted = None
        self._sent = None
        return ''

    def _travel(self, gripper: GripperConnection, count: int) -> GripperRegisters:
        """Moves to an end and waits until the position rests, since the status says so a little too early."""
        gripper.go_to(count, _CALIBRATION_SPEED, round(255 * self.settings.force))
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
        wanted = self._wanted  # read once: another thread may forget it
        if wanted is None:
            self._sent = None
            return
        count = self._to_count(wanted)
        if self._sent is not None:
            at_an_end = wanted in (0.0, 1.0) and count != self._sent
            if abs(count - self._sent) <= _DEADBAND_COUNTS and not at_an_end:
                return
        gripper.go_to(count, round(255 * self.settings.speed), round(255 * self.settings.force))
        self._sent = count

    def _report(self, registers: GripperRegisters) -> None:
        active = registers.activation == ACTIVE
        requested = registers.position if self._sent is None else registers.requested
        reading = GripperReading(
            stamp_ns=time.time_ns(),
            opening=self._to_opening(registers.position),
            target=self._to_opening(requested),
            moving=active and registers.object_status == _MOVING,
            object_detected=active and registers.object_status in _CONTACT,
            fault=registers.fault if active or registers.fault else _NOT_ACTIVE,
            current_a=registers.current_a,
        )
        self._newest = reading
        self._on_reading(reading)

    def _to_count(self, opening: float) -> int:
        travel = self.settings.open_count - self.settings.closed_count
        return round(self.settings.closed_count + travel * opening)

    def _to_opening(self, count: int) -> float:
        travel = self.settings.open_count - self.settings.closed_count
        return min(max((count - self.settings.closed_count) / travel, 0.0), 1.0)


def _reason(error: Exception) -> str:
    known = isinstance(error, OSError | GrootRosError)
    return str(error) if known else f'the driver of the gripper failed: {type(error).__name__}: {error}'
