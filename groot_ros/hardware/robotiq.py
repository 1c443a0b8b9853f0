"""A Robotiq 2F gripper behind the URCap socket of the robot, port 63352: one worker, latest target wins.

The packaged clients either send four requests a move (pyrobotiqur) or speak Modbus only (pyrobotiqgripper).
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from groot_ros.errors import GrootRosError

PORT = 63352
FAULTS = {
    0: '', 5: 'waits for the activation to end', 7: 'activation bit missing', 8: 'over-temperature', 9: 'no communication for 1 s',
    10: 'under-voltage', 11: 'automatic release running', 12: 'internal fault', 13: 'activation fault', 14: 'overcurrent',
    15: 'automatic release done',
}  # fmt: skip
_ACTIVE = 3
_CONTACT = (1, 2)
_DEADBAND_COUNTS = 2
_REPLY_S = 1.0
_ACTIVATION_S = 8.0
_RETRY_S = 1.0


@dataclass
class GripperReading:
    """Openings are 1 open, 0 closed; `stamp_ns` is when the reply arrived."""

    stamp_ns: int
    position: float
    target: float
    moving: bool
    object_detected: bool
    fault: int


@dataclass
class GripperSettings:
    """Counts are POS at the ends of travel: a 2F-85 reads about 3 open and 228 closed. Speed and force are 0 to 1."""

    host: str = '192.168.1.100'
    rate_hz: float = 50.0
    open_count: int = 3
    closed_count: int = 228
    speed: float = 1.0
    force: float = 0.5


class RobotiqSocket:
    """The ASCII protocol: `SET` answers `ack` without a line end, `GET` answers a line for each name."""

    def __init__(self, host: str, port: int = PORT) -> None:
        try:
            self._socket = socket.create_connection((host, port), timeout=_REPLY_S)
        except OSError as error:
            raise GrootRosError(
                f'No gripper answers on {host}:{port} ({error}): check the cable, and that the Robotiq URCap is installed on the robot.'
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._inbox = b''

    def set(self, **registers: int) -> None:
        """Writes registers in one request."""
        self._socket.sendall(('SET ' + ' '.join(f'{name} {value}' for name, value in registers.items()) + '\n').encode())
        if (reply := self._receive(3)) != b'ack':
            raise OSError(f'the gripper answered {reply!r} to SET')

    def get(self, *names: str) -> list[int]:
        """Reads registers in one pipelined request; raises OSError where one reads '?', as in an emergency stop."""
        self._socket.sendall(''.join(f'GET {name}\n' for name in names).encode())
        return [self._value(name) for name in names]

    def close(self) -> None:
        """Hangs up; the gripper keeps its last target."""
        self._socket.close()

    def _value(self, name: str) -> int:
        while b'\n' not in self._inbox:
            self._fill()
        line, _, self._inbox = self._inbox.partition(b'\n')
        words = line.decode('ascii', 'replace').split()
        if len(words) != 2 or words[0] != name or not words[1].isdigit():
            raise OSError(f'the gripper answered {line!r} to GET {name}')
        return int(words[1])

    def _receive(self, count: int) -> bytes:
        while len(self._inbox) < count:
            self._fill()
        data, self._inbox = self._inbox[:count], self._inbox[count:]
        return data

    def _fill(self) -> None:
        data = self._socket.recv(1024)
        if not data:
            raise OSError('the gripper closed the connection')
        self._inbox += data


def activate(gripper: RobotiqSocket) -> None:
    """Activates where needed, which moves the fingers through their travel. Raises GrootRosError after 8 s."""
    if gripper.get('STA') == [_ACTIVE]:
        return
    gripper.set(ACT=0, ATR=0)
    gripper.set(ACT=1)
    deadline_s = time.monotonic() + _ACTIVATION_S
    while gripper.get('STA') != [_ACTIVE]:
        if time.monotonic() > deadline_s:
            raise GrootRosError('The gripper did not activate within 8 s: look at its LED and power, and release emergency stops.')
        time.sleep(0.05)


class Robotiq:
    """Calls `on_reading` at a fixed rate and `on_loss` with a sentence when the connection breaks; reconnects by itself."""

    def __init__(self, settings: GripperSettings, on_reading: Callable[[GripperReading], None], on_loss: Callable[[str], None]) -> None:
        self.settings = settings
        self._on_reading, self._on_loss = on_reading, on_loss
        self._wanted: float | None = None
        self._sent: int | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name='robotiq', daemon=True)
        self._thread.start()

    def move(self, opening: float) -> None:
        """Sets the target, 1 open to 0 closed; values outside are clipped."""
        self._wanted = min(max(opening, 0.0), 1.0)

    def close(self) -> None:
        """Ends the worker; the gripper holds what it holds."""
        self._closing.set()
        self._thread.join(3.0)

    def _work(self) -> None:
        while not self._closing.is_set():
            gripper = None
            try:
                gripper = RobotiqSocket(self.settings.host)
                activate(gripper)
                self._serve(gripper)
            except (OSError, GrootRosError) as error:
                self._on_loss(str(error))
                self._closing.wait(_RETRY_S)
            finally:
                if gripper is not None:
                    with contextlib.suppress(OSError):
                        gripper.close()

    def _serve(self, gripper: RobotiqSocket) -> None:
        self._sent = None
        due_s = time.monotonic()
        while not self._closing.is_set():
            self._send_target(gripper)
            self._on_reading(self._read(gripper))
            due_s = max(due_s + 1.0 / self.settings.rate_hz, time.monotonic() - 1.0)
            self._closing.wait(max(due_s - time.monotonic(), 0.0))

    def _send_target(self, gripper: RobotiqSocket) -> None:
        if self._wanted is None:
            return
        count = self._count(self._wanted)
        if self._sent is None or abs(count - self._sent) > _DEADBAND_COUNTS or (count != self._sent and self._wanted in (0.0, 1.0)):
            gripper.set(POS=count, SPE=round(255 * self.settings.speed), FOR=round(255 * self.settings.force), GTO=1)
            self._sent = count

    def _read(self, gripper: RobotiqSocket) -> GripperReading:
        position, requested, status, fault = gripper.get('POS', 'PRE', 'OBJ', 'FLT')
        return GripperReading(
            stamp_ns=time.time_ns(),
            position=self._opening(position),
            target=self._opening(requested if self._sent is not None else position),
            moving=status == 0,
            object_detected=status in _CONTACT,
            fault=fault,
        )

    def _count(self, opening: float) -> int:
        return round(self.settings.closed_count + (self.settings.open_count - self.settings.closed_count) * opening)

    def _opening(self, count: int) -> float:
        share = (count - self.settings.closed_count) / (self.settings.open_count - self.settings.closed_count)
        return min(max(share, 0.0), 1.0)
