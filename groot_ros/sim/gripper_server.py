# SPDX-License-Identifier: Apache-2.0
"""The Robotiq URCap socket on port 63352 with its SET and GET lines, and the gripper."""

from groot_ros.sim.scene import STEP_S, STROKE_M
from groot_ros.sim.sockets import Connection, TcpServer

OPEN_COUNT = 3
CLOSED_COUNT = 228
_MIN_SPEED_M_S = 0.020
_MAX_SPEED_M_S = 0.150
_MIN_FORCE_N = 10.0
_MAX_FORCE_N = 60.0
_ACTIVATION_S = 1.5
_CONTACT_GAP_M = 0.002
_MIN_MOTION_M_S = 0.002
_SETTABLE = ('ACT', 'GTO', 'ATR', 'ADR', 'FOR', 'SPE', 'POS')


class Gripper:
    """A 2F-85 that moves with speed SPE to position POS, up to contact. `command_m` is its motor position."""

    def __init__(self) -> None:
        self.registers = {'ACT': 0, 'GTO': 0, 'ATR': 0, 'ADR': 0, 'FOR': 0, 'SPE': 255, 'POS': 0}
        self.command_m = STROKE_M
        self._measured_m = STROKE_M
        self._speed_m_s = 0.0
        self._activating_s = 0.0

    @property
    def force_n(self) -> float:
        """Grip force for register FOR: 10 to 60 N for a cube of 60 g; the real gripper has 20 to 235 N."""
        return _MIN_FORCE_N + (_MAX_FORCE_N - _MIN_FORCE_N) * self.registers['FOR'] / 255

    def tick(self, measured_m: float, closing_speed_m_s: float) -> None:
        """Moves the motor toward the requested position for one tick; lengths in m, speed in m/s."""
        self._measured_m = measured_m
        self._speed_m_s = closing_speed_m_s
        self._activating_s = max(self._activating_s - STEP_S, 0.0)
        if not self.active or not self.registers['GTO']:
            return
        speed = _MIN_SPEED_M_S + (_MAX_SPEED_M_S - _MIN_SPEED_M_S) * self.registers['SPE'] / 255
        step = speed * STEP_S
        self.command_m += min(max(self._requested_m() - self.command_m, -step), step)
        # The motor stalls on an object: its position stays near the measured one.
        lowest_m = measured_m - 2 * _CONTACT_GAP_M - 0.01
        self.command_m = min(max(self.command_m, lowest_m), measured_m + 0.02)

    @property
    def active(self) -> bool:
        """Whether the gripper is activated, which is status STA 3."""
        return bool(self.registers['ACT']) and self._activating_s == 0.0

    def set(self, name: str, value: int) -> None:
        """Writes one register. Changing ACT from 0 to 1 starts the activation."""
        if name == 'ACT' and value and not self.registers['ACT']:
            self._activating_s = _ACTIVATION_S
        self.registers[name] = min(max(value, 0), 255)

    def get(self, name: str) -> int | None:
        """Reads one register; None when there is no register of that name."""
        if name == 'POS':
            closed = 1 - self._measured_m / STROKE_M
            return round(OPEN_COUNT + (CLOSED_COUNT - OPEN_COUNT) * closed)
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
        closed = (self.registers['POS'] - OPEN_COUNT) / (CLOSED_COUNT - OPEN_COUNT)
        return STROKE_M * (1 - min(max(closed, 0.0), 1.0))

    def _object(self) -> int:
        """Register OBJ: 0 moving, 1 and 2 contact while opening and closing, 3 at the requested position."""
        gap_m = self._measured_m - self._requested_m()
        if abs(gap_m) < _CONTACT_GAP_M:
            return 3
        is_moving = abs(self._speed_m_s) > _MIN_MOTION_M_S
        is_free = abs(self.command_m - self._measured_m) < _CONTACT_GAP_M
        if is_moving or is_free:
            return 0
        return 2 if gap_m > 0 else 1


class GripperServer(TcpServer):
    """Answers `SET POS 100 SPE 255 GTO 1` with `ack` and no line end, and `GET POS` with `POS 3`."""

    name = 'gripper'

    def __init__(self, host: str, gripper: Gripper, port: int = 63352) -> None:
        super().__init__(host, port)
        self.gripper = gripper

    def on_data(self, connection: Connection) -> None:
        """Answers every complete line in the inbox."""
        for line in connection.take_lines():
            words = line.split()
            if words[:1] == ['SET']:
                connection.send(b'ack' if self._set(words[1:]) else b'?\n')
            elif words[:1] == ['GET'] and len(words) == 2:
                value = self.gripper.get(words[1])
                connection.send(f'{words[1]} {"?" if value is None else value}\n'.encode())
            elif words:
                connection.send(b'?\n')

    def _set(self, words: list[str]) -> bool:
        names = words[::2]
        values = words[1::2]
        if len(names) != len(values) or not set(names) <= set(_SETTABLE):
            return False
        if not all(value.lstrip('-').isdigit() for value in values):
            return False
        for name, value in zip(names, values, strict=True):
            self.gripper.set(name, int(value))
        return True
