# SPDX-License-Identifier: Apache-2.0
"""The gripper on the robot's wrist connector: the socket of Robotiq's URCap."""

import re
import socket
import time

from groot_ros.errors import GrootRosError
from groot_ros.hardware.robotiq.registers import ACTIVE, GripperRegisters

PORT = 63352
_REPLY_S = 1.0
_ACTIVATION_S = 8.0
# The longest line of the protocol is `GTO 255`; five of them are one answer.
_MAX_LINE_BYTES = 32
_LINE = re.compile(rb'([A-Z]{3}) +([0-9]{1,5}) *\r?')
_MAX_INBOX_BYTES = 4096


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
        self._deadline_s = 0.0

    def set(self, **registers: int) -> None:
        """Writes registers in one request."""
        words = ' '.join(f'{name} {value}' for name, value in registers.items())
        self._send(f'SET {words}\n')
        if (reply := self._receive(3)) != b'ack':
            raise OSError(f'the gripper answered {reply!r} to SET')

    def get(self, *names: str) -> list[int]:
        """Reads registers in one pipelined request.

        Raises OSError if one is answered with '?', as in an emergency stop.
        """
        self._send(''.join(f'GET {name}\n' for name in names))
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

    def _send(self, request: str) -> None:
        """Sends a request, whose answers must come within a second."""
        if self._inbox:
            raise OSError(f'the gripper sent {self._inbox[:_MAX_LINE_BYTES]!r}, which nobody asked for')
        self._deadline_s = time.monotonic() + _REPLY_S
        self._socket.settimeout(_REPLY_S)
        self._socket.sendall(request.encode())

    def _value(self, name: str) -> int:
        while b'\n' not in self._inbox:
            if len(self._inbox) > _MAX_LINE_BYTES:
                raise OSError(f'the gripper sends a line without an end to GET {name}')
            self._fill()
        line, _, self._inbox = self._inbox.partition(b'\n')
        found = _LINE.fullmatch(line)
        if found is None or found[1].decode() != name:
            raise OSError(f'the gripper answered {line[:_MAX_LINE_BYTES]!r} to GET {name}')
        return int(found[2])

    def _receive(self, count: int) -> bytes:
        while len(self._inbox) < count:
            self._fill()
        data = self._inbox[:count]
        self._inbox = self._inbox[count:]
        return data

    def _fill(self) -> None:
        remaining_s = self._deadline_s - time.monotonic()
        if remaining_s <= 0:
            raise OSError(f'the gripper has not answered for {_REPLY_S:g} s')
        self._socket.settimeout(remaining_s)
        data = self._socket.recv(1024)
        if not data:
            raise OSError('the gripper closed the connection')
        self._inbox += data
        if len(self._inbox) > _MAX_INBOX_BYTES:
            raise OSError('the gripper sends more than it was asked for')
