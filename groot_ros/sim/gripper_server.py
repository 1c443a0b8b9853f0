# SPDX-License-Identifier: Apache-2.0
"""The Robotiq URCap socket, port 63352: SET and GET lines, and the gripper's registers behind them."""

from groot_ros.sim.scene import STEP_S, STROKE_M
from groot_ros.sim.sockets import Connection, TcpServer

OPEN_COUNT, CLOSED_COUNT = 3, 228
_SLOWEST_M_S, _MAX_SPEED_M_S = 0.020, 0.150
_SOFTEST_N, _HARDEST_N = 10.0, 60.0
_ACTIVATION_S = 1.5
_CONTACT_GAP_M = 0.002
_STILL_M_S = 0.002
_SETTABLE = ('ACT', 'GTO', 'ATR', 'ADR', 'FOR', 'SPE', 'POS')


class Gripper:
    """A 2F-85 that moves at SPE toward POS and stops by contact; `command_m` is where its motor stands."""

    def __init__(self) -> None:
        self.registers = {'ACT': 0, 'GTO': 0, 'ATR': 0, 'ADR': 0, 'FOR': 0, 'SPE': 255, 'POS': 0}
        self.command_m = STROKE_M
        self._measured_m, self._speed_m_s = STROKE_M, 0.0
        self._activating_s = 0.0

    @property
    def force_n(self) -> float:
        """Grip force of the FOR register; softer than the real 20 to 235 N, for a cube of 60 g."""
        return _SOFTEST_N + (_HARDEST_N - _SOFTEST_N) * self.registers['FOR'] / 255

    def tick(self, measured_m: float, closing_speed_m_s: float) -> None:
        """Moves the motor by one tick toward the requested position."""
        self._measured_m, self._speed_m_s = measured_m, closing_speed_m_s
        self._activating_s = max(self._activating_s - STEP_S, 0.0)
        if not self.active or not self.registers['GTO']:
            return
        speed = _SLOWEST_M_S + (_MAX_SPEED_M_S - _SLOWEST_M_S) * self.registers['SPE'] / 255
        step = speed * STEP_S
        self.command_m += min(max(self._requested_m() - self.command_m, -step), step)
        # The motor stalls on an object instead of winding up behind it.
        self.command_m = min(max(self.command_m, measured_m - 2 * _CONTACT_GAP_M - 0.01), measured_m + 0.02)

    @property
    def active(self) -> bool:
        """STA is 3."""
        return bool(self.registers['ACT']) and self._activating_s == 0.0

    def set(self, name: str, value: int) -> None:
        """Writes one register; ACT from 0 to 1 activates."""
        if name == 'ACT' and value and not self.registers['ACT']:
            self._activating_s = _ACTIVATION_S
        self.registers[name] = min(max(value, 0), 255)

    def get(self, name: str) -> int | None:
        """Reads one register, or None where there is none of that name."""
        if name == 'POS':
            return round(OPEN_COUNT + (CLOSED_COUNT - OPEN_COUNT) * (1 - self._measured_m / STROKE_M))
        if name == 'PRE':
            return self.registers['POS']
        if name == 'STA':
            return 3 if self.active else int(bool(self.registers['ACT']))
        if name == 'OBJ':
            return self._object()
        if name == 'FLT':
            return 0 if self.registers['ACT'] else 7
        return self.registers.get(name)

    def _requested_m(self) -> float:
        share = (self.registers['POS'] - OPEN_COUNT) / (CLOSED_COUNT - OPEN_COUNT)
        return STROKE_M * (1 - min(max(share, 0.0), 1.0))

    def _object(self) -> int:
        gap = self._measured_m - self._requested_m()
        if abs(gap) < _CONTACT_GAP_M:
            return 3
        if abs(self._speed_m_s) > _STILL_M_S or abs(self.command_m - self._measured_m) < _CONTACT_GAP_M:
            return 0
        return 2 if gap > 0 else 1


class GripperServer(TcpServer):
    """`SET POS 100 SPE 255 GTO 1` -> `ack` without a line end; `GET POS` -> `POS 3`."""

    name = 'gripper'

    def __init__(self, host: str, gripper: Gripper, port: int = 63352) -> None:
        super().__init__(host, port)
        self.gripper = gripper

    def received(self, connection: Connection) -> None:
        """Answers each complete line."""
        for line in connection.lines():
            words = line.split()
            if words[:1] == ['SET']:
                connection.send(b'ack' if self._set(words[1:]) else b'?\n')
            elif words[:1] == ['GET'] and len(words) == 2:
                value = self.gripper.get(words[1])
                connection.send(f'{words[1]} {"?" if value is None else value}\n'.encode())
            elif words:
                connection.send(b'?\n')

    def _set(self, words: list[str]) -> bool:
        pairs = list(zip(words[::2], words[1::2], strict=False))
        if len(words) % 2 or any(
            name not in _SETTABLE or not value.lstrip('-').isdigit() for name, value in pairs
        ):
            return False
        for name, value in pairs:
            self.gripper.set(name, int(value))
        return True
