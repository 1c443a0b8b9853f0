# SPDX-License-Identifier: Apache-2.0
"""Maps the state of a device to a TCP velocity, the deadman and events, as config/teleop/*.yaml says."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.spatial.transform import Rotation

from groot_ros.config_files import checked, read_yaml
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.teleop.device import DeviceState, map_path

DIRECTIONS = ('x', 'y', 'z', 'roll', 'pitch', 'yaw')
EVENTS = (
    'gripper',
    'start',
    'stop_success',
    'stop_failure',
    'discard',
    'redo',
    'pause',
    'next_task',
    'skip_task',
    'home',
    'enable',
    'disable',
    'recover',
    'freedrive',
)
STALE_S = 0.15
# Events that power the robot up need their button held for this time, s.
HOLD_S = {'recover': 2.0}
_UNTURNED = np.array([0, 0, 0, 0, 0, 0, 1.0])


@dataclass
class OperatorCommand:
    """A TCP velocity (6,) in m/s and rad/s in `base`, whether the deadman is held, and the new events."""

    velocity: Array
    held: bool
    events: frozenset[str]


class _Strict(BaseModel):
    model_config = ConfigDict(extra='forbid', allow_inf_nan=False)


class AxisMapping(_Strict):
    """One axis of the device. For a trigger that rests at 1 and is -1 when pulled: scale -0.5, offset 0.5."""

    axis: str
    scale: float = Field(1.0, ge=-100, le=100)
    offset: float = Field(0.0, ge=-100, le=100)


class TeleopMap(_Strict):
    """A map file of config/teleop.

    Speeds are reached at full deflection in any direction; `precision_scale` multiplies them while
    `precision_button` is held. `expo` mixes a linear (0) and a cubic (1) response. Without `enable_button`
    any motion is the deadman, and gripper and home need none. `ramp_s` is the time from rest to full speed.
    """

    name: str
    description: str
    frame: str = Field('base', pattern='^(base|tool)$')
    linear_speed_m_s: float = Field(0.15, gt=0, le=1.0)
    angular_speed_rad_s: float = Field(0.6, gt=0, le=3.0)
    precision_scale: float = Field(0.3, gt=0, le=1.0)
    deadzone: float = Field(0.08, ge=0, lt=1)
    expo: float = Field(0.7, ge=0, le=1)
    ramp_s: float = Field(0.0, ge=0, le=1.0)
    enable_button: str = ''
    precision_button: str = ''
    axes: dict[str, list[AxisMapping]]
    buttons: dict[str, str]


def load_map(name: str) -> TeleopMap:
    """A map by its name in config/teleop or by path. Raises GrootRosError, with the key, if it is invalid."""
    path = map_path(name)
    found = checked(TeleopMap, read_yaml(path, 'The teleop map'), f'The teleop map {path}')
    _check_keys(path, 'axes', set(found.axes), DIRECTIONS)
    _check_keys(path, 'buttons', set(found.buttons), EVENTS)
    return found


def _check_keys(path: Path, section: str, keys: set[str], known: tuple[str, ...]) -> None:
    if unknown := sorted(keys - set(known)):
        raise GrootRosError(f'{path}: {section}: {unknown[0]!r} is not one of {", ".join(known)}.')


class TeleopMapper:
    """Applies a map. It remembers which buttons were pressed, so that an event happens once per press.

    `recover` happens once its button has been held for 2 s.
    """

    def __init__(self, chosen: TeleopMap) -> None:
        self.map = chosen
        self._pressed: frozenset[str] = frozenset()
        self._held_since_s: dict[str, float] = {}
        self._told: set[str] = set()

    def update(self, state: DeviceState | None, now_s: float, attitude: Array = _UNTURNED) -> OperatorCommand:
        """The command of this instant; a state older than 0.15 s is ignored.

        `attitude` is the pose (7,) of the TCP, which the frame `tool` needs.
        """
        if state is None or now_s - state.time_s > STALE_S:
            self._held_since_s.clear()
            return OperatorCommand(np.zeros(6), False, frozenset())
        events = self._events(state.buttons, now_s)
        velocity = self._velocity(state, attitude)
        held = self._is_held(state, velocity)
        return OperatorCommand(velocity if held else np.zeros(6), held, events)

    def _events(self, buttons: frozenset[str], now_s: float) -> frozenset[str]:
        pressed_now = buttons - self._pressed
        self._pressed = buttons
        events = {
            event
            for event, button in self.map.buttons.items()
            if button in pressed_now and event not in HOLD_S
        }
        return frozenset(events | {event for event in HOLD_S if self._held_long(event, buttons, now_s)})

    def _held_long(self, event: str, buttons: frozenset[str], now_s: float) -> bool:
        """Whether the button of an event has been held for its time; True once for each hold."""
        if self.map.buttons.get(event) not in buttons:
            self._held_since_s.pop(event, None)
            self._told.discard(event)
            return False
        since_s = self._held_since_s.setdefault(event, now_s)
        if event in self._told or now_s - since_s < HOLD_S[event]:
            return False
        self._told.add(event)
        return True

    def _is_held(self, state: DeviceState, velocity: Array) -> bool:
        if self.map.enable_button:
            return self.map.enable_button in state.buttons
        return bool(np.any(velocity))

    def _velocity(self, state: DeviceState, attitude: Array) -> Array:
        deflection = np.array([self._sum_axes(state, direction) for direction in DIRECTIONS])
        shares = np.concatenate([_shorten(deflection[:3]), _shorten(deflection[3:])])
        precise = self.map.precision_button in state.buttons
        scale = self.map.precision_scale if precise else 1.0
        speeds = np.repeat([self.map.linear_speed_m_s, self.map.angular_speed_rad_s], 3)
        velocity = shares * speeds * scale
        if self.map.frame == 'base':
            return velocity
        return Rotation.from_quat(attitude[3:]).apply(velocity.reshape(2, 3)).ravel()

    def _sum_axes(self, state: DeviceState, direction: str) -> float:
        return sum(self._deflection(state, axis) for axis in self.map.axes.get(direction, []))

    def _deflection(self, state: DeviceState, term: AxisMapping) -> float:
        if term.axis not in state.axes:
            return 0.0
        value = state.axes[term.axis] * term.scale + term.offset
        return response(value, self.map.deadzone, self.map.expo)


def _shorten(deflection: Array) -> Array:
    """The deflection (3,), at most 1 long, so that a diagonal is not faster than one axis."""
    return deflection / max(float(np.linalg.norm(deflection)), 1.0)


def response(value: float, deadzone: float, expo: float) -> float:
    """Deflection in -1 to 1 after the deadzone, as (1 - expo) x + expo x^3: continuous, odd, and 1 at 1."""
    if not np.isfinite(value):
        return 0.0
    beyond = max(min(abs(value), 1.0) - deadzone, 0.0) / (1.0 - deadzone)
    return float(np.copysign((1 - expo) * beyond + expo * beyond**3, value))
