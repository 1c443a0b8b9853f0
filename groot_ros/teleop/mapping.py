# SPDX-License-Identifier: Apache-2.0
"""What an operator's device says becomes a TCP velocity, a dead-man and events, by a map in config/teleop/*.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.spatial.transform import Rotation

from groot_ros.config_files import checked, read_yaml
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.resources import share_directory

DIRECTIONS = ('x', 'y', 'z', 'roll', 'pitch', 'yaw')
EVENTS = (
    'gripper',
    'start',
    'save',
    'fail',
    'discard',
    'redo',
    'pause',
    'home',
    'enable',
    'stop',
    'recover',
    'freedrive',
)
STALE_S = 0.15
_UNTURNED = np.array([0, 0, 0, 0, 0, 0, 1.0])


@dataclass
class DeviceState:
    """What a device says at `time_s` of the monotonic clock: axes in -1 to 1, and the buttons that are pressed, by number or name."""

    time_s: float
    axes: Mapping[str, float] = field(default_factory=dict)
    buttons: frozenset[str] = frozenset()


@dataclass
class OperatorCommand:
    """A TCP velocity (6,) in m/s and rad/s in `base`, whether the dead-man is held, and the events of this instant."""

    velocity: Array
    held: bool
    events: frozenset[str]


class _Strict(BaseModel):
    model_config = ConfigDict(extra='forbid')


class AxisMapping(_Strict):
    """One axis of the device; a trigger that rests at 1 and is -1 when pulled has scale -0.5 and offset 0.5."""

    axis: str
    scale: float = 1.0
    offset: float = 0.0


class TeleopMap(_Strict):
    """A map file. Speeds are those of a full deflection."""

    name: str
    help: str
    frame: str = Field('base', pattern='^(base|tool)$')
    linear_speed_m_s: float = Field(0.15, gt=0, le=1.0)
    angular_speed_rad_s: float = Field(0.6, gt=0, le=3.0)
    slow_share: float = Field(0.3, gt=0, le=1.0)
    deadzone: float = Field(0.08, ge=0, lt=1)
    expo: float = Field(0.7, ge=0, le=1)
    enable_button: str = ''
    slow: str = ''
    axes: dict[str, list[AxisMapping]]
    buttons: dict[str, str]


def load_map(name: str) -> TeleopMap:
    """A map by name, from config/teleop, or by path. Raises GrootRosError, naming the key, for one that is not good."""
    shipped = share_directory() / 'config' / 'teleop'
    path = Path(name).expanduser() if name.endswith('.yaml') else shipped / f'{name}.yaml'
    if not path.is_file():
        known = ', '.join(sorted(file.stem for file in shipped.glob('*.yaml')))
        raise GrootRosError(f'There is no teleop map {name!r}: use {known}, or the path of a YAML file.')
    found = checked(TeleopMap, read_yaml(path, 'The teleop map'), f'The teleop map {path}')
    for kind, given, known in (('axes', found.axes, DIRECTIONS), ('buttons', found.buttons, EVENTS)):
        if wrong := sorted(set(given) - set(known)):
            raise GrootRosError(f'{path}: {kind}: {wrong[0]!r} is not one of {", ".join(known)}.')
    return found


class TeleopMapper:
    """Keeps what was pressed before, so that an event happens once for each press."""

    def __init__(self, chosen: TeleopMap) -> None:
        self.map = chosen
        self._pressed: frozenset[str] = frozenset()

    def update(self, raw: DeviceState | None, now_s: float, attitude: Array = _UNTURNED) -> OperatorCommand:
        """The command of this instant; an input older than 0.15 s is as none. `attitude` is a pose (7,), for the frame `tool`."""
        if raw is None or now_s - raw.time_s > STALE_S:
            return OperatorCommand(np.zeros(6), False, frozenset())
        fresh, self._pressed = raw.buttons - self._pressed, raw.buttons
        events = frozenset(event for event, button in self.map.buttons.items() if button in fresh)
        velocity = self._velocity(raw, attitude)
        held = self.map.enable_button in raw.buttons if self.map.enable_button else bool(np.any(velocity))
        return OperatorCommand(velocity if held else np.zeros(6), held, events)

    def _velocity(self, raw: DeviceState, attitude: Array) -> Array:
        deflection = np.array(
            [sum(self._deflection(raw, term) for term in self.map.axes.get(name, [])) for name in DIRECTIONS]
        )
        scale = self.map.slow_share if self.map.slow and self.map.slow in raw.buttons else 1.0
        speeds = np.repeat([self.map.linear_speed_m_s, self.map.angular_speed_rad_s], 3)
        velocity = np.clip(deflection, -1, 1) * speeds * scale
        if self.map.frame == 'base':
            return velocity
        return Rotation.from_quat(attitude[3:]).apply(velocity.reshape(2, 3)).ravel()

    def _deflection(self, raw: DeviceState, term: AxisMapping) -> float:
        value = raw.axes.get(term.axis, 0.0) * term.scale + (term.offset if term.axis in raw.axes else 0.0)
        return response(value, self.map.deadzone, self.map.expo)


def response(value: float, deadzone: float, expo: float) -> float:
    """Deflection -1 to 1 after a dead zone and a mix of linear and expo: continuous, odd, and 1 at 1."""
    if not np.isfinite(value):
        return 0.0
    beyond = max(min(abs(value), 1.0) - deadzone, 0.0) / (1.0 - deadzone)
    return float(np.copysign((1 - expo) * beyond + expo * beyond**3, value))
