# SPDX-License-Identifier: Apache-2.0
"""The gripper on the robot's wrist connector: the socket of Robotiq's URCap."""

import socket
import time

from groot_ros.errors import GrootRosError
from groot_ros.hardware.robotiq.registers import ACTIVE, GripperRegisters

PORT = 63352
_REPLY_S = 1.0
_ACTIVATION_S = 8.0


class UrcapSocket:
    """The ASCII protocol of the URCap on the robot at `host`. Raises GrootRosError if nothing answers.

    `SET` is answered with `ack` without a line end, `GET` with one line for each name. The packaged client
    (pyrobotiqur) sends four requests for each move; here a move and a reading are one request each.
    """

    def __init__(self, host: str, port: int = PORT) -> None:
        try:
            self._socket = socket.create_connection((host, port), timeout=_REPLY_S)
        except OSError as error:
            raise GrootRosError(
                f'No gripper answers on {host}:{port} ({error}): check the cable, and that the '
                'Robotiq URCap is installed on the robot.'
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._inbox = b''

    def set(self, **registers: int) -> None:
        """Writes registers in one request."""
        words = ' '.join(f'{name} {value}' for name, value in registers.items())
        self._socket.sendall(f'SET {words}\n'.encode())
        if (reply := self._receive(3)) != b'ack':
            raise OSError(f'the gripper answered {reply!r} to SET')

    def get(self, *names: str) -> list[int]:
        """Reads registers in one pipelined request.

        Raises OSError if one is answered with '?', as in an emergency stop.
        """
        self._socket.sendall(''.join(f'GET {name}\n' for name in names).encode())
        return [self._value(name) for name in names]

    def read(self) -> GripperRegisters:
        """Reads the registers. The URCap does not report the current."""
        return GripperRegisters(*self.get('POS', 'PRE', 'OBJ', 'FLT', 'STA'), current_a=float('nan'))

    def go_to(self, count: int, speed: int, force: int) -> None:
        """Moves toward a position, in one request."""
        self.set(POS=count, SPE=speed, FOR=force, GTO=1)

    def activate(self) -> None:
        """Resets and activates the gripper, then waits until it is ready."""
        self.set(ACT=0, ATR=0)
        self.set(ACT=1)
        deadline_s = time.monotonic() + _ACTIVATION_S
        while self.get('STA') != [ACTIVE]:
            if time.monotonic() > deadline_s:
                raise GrootRosError(
                    'The gripper did not activate within 8 s: check its LED, its power and emergency stops.'
                )
            time.sleep(0.05)

    def close(self) -> None:
        """Closes the socket; the gripper keeps its last target."""
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
        data = self._inbox[:count]
        self._inbox = self._inbox[count:]
        return data

    def _fill(self) -> None:
        data = self._socket.recv(1024)
        if not data:
            raise OSError('the gripper closed the connection')
        self._inbox += data
