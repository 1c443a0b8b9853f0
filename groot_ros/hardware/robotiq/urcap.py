# SPDX-License-Identifier: Apache-2.0
"""The two ways to a Robotiq 2F gripper: the socket of the URCap on the robot, and Modbus RTU on its own USB adapter."""

import contextlib
import socket
import time
from dataclasses import dataclass
from typing import Protocol

from groot_ros.errors import GrootRosError

PORT = 63352
_REPLY_S = 1.0
_ACTIVATION_S = 8.0
ACTIVE = 3


@dataclass
class GripperRegisters:
    """As the gripper reports them: positions in counts, 0 open to 255 closed; the current in A, NaN where it is not told."""

    position: int
    requested: int
    object_status: int
    fault: int
    activation: int
    current_a: float


class GripperConnection(Protocol):
    """What hardware/robotiq/gripper.py needs of a connection. Every call raises OSError where the gripper is lost."""

    def read(self) -> GripperRegisters:
        """The registers now."""

    def go_to(self, count: int, speed: int, force: int) -> None:
        """Moves toward a position; all three are 0 to 255."""

    def activate(self) -> None:
        """Activates, which moves the fingers through their travel. Raises GrootRosError after 8 s."""

    def close(self) -> None:
        """Hangs up; the gripper keeps its last target."""


class UrcapSocket:
    """The ASCII protocol of the URCap: `SET` answers `ack` without a line end, `GET` answers a line for each name.

    The packaged client (pyrobotiqur) sends four requests a move; here a move and a reading are one each.
    """

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
        self._socket.sendall(
            ('SET ' + ' '.join(f'{name} {value}' for name, value in registers.items()) + '\n').encode()
        )
        if (reply := self._receive(3)) != b'ack':
            raise OSError(f'the gripper answered {reply!r} to SET')

    def get(self, *names: str) -> list[int]:
        """Reads registers in one pipelined request; raises OSError where one reads '?', as in an emergency stop."""
        self._socket.sendall(''.join(f'GET {name}\n' for name in names).encode())
        return [self._value(name) for name in names]

    def read(self) -> GripperRegisters:
        """The registers now; the URCap tells no current."""
        return GripperRegisters(*self.get('POS', 'PRE', 'OBJ', 'FLT', 'STA'), current_a=float('nan'))

    def go_to(self, count: int, speed: int, force: int) -> None:
        """Moves toward a position."""
        self.set(POS=count, SPE=speed, FOR=force, GTO=1)

    def activate(self) -> None:
        """Resets and activates."""
        self.set(ACT=0, ATR=0)
        self.set(ACT=1)
        deadline_s = time.monotonic() + _ACTIVATION_S
        while self.get('STA') != [ACTIVE]:
            if time.monotonic() > deadline_s:
                raise GrootRosError(
                    'The gripper did not activate within 8 s: look at its LED and power, and release emergency stops.'
                )
            time.sleep(0.05)

    def close(self) -> None:
        """Hangs up."""
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


class ModbusGripper:
    """A gripper on its own USB adapter, through the library pyrobotiqgripper."""

    def __init__(self, device: str) -> None:
        try:
            import pyrobotiqgripper
            from pymodbus.exceptions import ModbusException
        except ImportError as error:
            raise GrootRosError(
                'The connection modbus needs the library pyrobotiqgripper: pip install pyrobotiqgripper.'
            ) from error
        self._errors = (pyrobotiqgripper.RobotiqGripperError, ModbusException, AttributeError)
        try:
            self._gripper = pyrobotiqgripper.RobotiqGripper(com_port=device)
        except (*self._errors, OSError) as error:
            raise GrootRosError(
                f'No gripper answers on {device} ({error}): check the adapter, its power, and that you may use the port (group dialout).'
            ) from error

    def read(self) -> GripperRegisters:
        """The registers now; the gripper tells its current in steps of 10 mA."""
        with self._as_os_error():
            self._gripper.readStatus(raiseOnFault=False)
            status = {name: int(value) for name, value in self._gripper.status(refreshStatus=False).items()}
        return GripperRegisters(
            status['gPO'], status['gPR'], status['gOBJ'], status['gFLT'], status['gSTA'], 0.01 * status['gCU']
        )

    def go_to(self, count: int, speed: int, force: int) -> None:
        """Moves toward a position."""
        with self._as_os_error():
            self._gripper.move(count, speed, force, wait=False, readStatus=False, start=True)

    def activate(self) -> None:
        """Resets and activates."""
        with self._as_os_error():
            self._gripper.activate()

    def close(self) -> None:
        """Closes the port."""
        self._gripper.disconnect()

    @contextlib.contextmanager
    def _as_os_error(self):
        try:
            yield
        except self._errors as error:
            raise OSError(str(error)) from error
