# SPDX-License-Identifier: Apache-2.0
"""Teleoperation devices: what a device returns, and the one table of the devices that can be chosen."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from groot_ros.errors import GrootRosError, nearest
from groot_ros.resources import share_directory

_KEYBOARD = 'groot_ros.teleop.keyboard:Keyboard'

# Name (parameter `source` of the node teleop) to 'module:Class'. A new device needs its class, a map in
# config/teleop/NAME.yaml and a line here. A class is imported when it is chosen, since each needs another
# library. It is an InputDevice or an Operator (operator.py), and has the class method `open(context)`.
TELEOP_DEVICES = {
    'joy': 'groot_ros.ros.joy_topic:JoyTopic',
    'spacenav': 'groot_ros.ros.joy_topic:SpacenavTopic',
    'spacemouse': 'groot_ros.teleop.spacemouse:SpaceMouse',
    'phone': 'groot_ros.teleop.phone:Phone',
    'keyboard': _KEYBOARD,
    'hand_guiding': _KEYBOARD,
    'scripted': 'groot_ros.sim.nodes.scripted_operator:ScriptedOperator',
}


@dataclass
class DeviceState:
    """What a device reports at `time_s` of the monotonic clock.

    `axes` are in -1 to 1, `buttons` are those that are pressed; both have numbers or names as keys.
    """

    time_s: float
    axes: Mapping[str, float] = field(default_factory=dict)
    buttons: frozenset[str] = frozenset()


class InputDevice(Protocol):
    """Something that a person holds."""

    def read(self) -> DeviceState | None:
        """The newest state, or None before the first one."""

    def close(self) -> None:
        """Closes the device, so that another process can open it."""


def needs_terminal(name: str) -> bool:
    """Whether a device reads the keys of the terminal that its node runs in."""
    return TELEOP_DEVICES[name] == _KEYBOARD


def check_device(name: str) -> None:
    """Raises GrootRosError if the table has no such device."""
    if name not in TELEOP_DEVICES:
        raise GrootRosError(
            f'There is no teleoperation device {name!r}: choose one of {", ".join(TELEOP_DEVICES)}'
            f'{nearest(name, TELEOP_DEVICES)}.'
        )


def map_path(name: str) -> Path:
    """The file of a map, which is given by its name in config/teleop or by its path.

    Raises GrootRosError, which names the known maps, if there is none.
    """
    shipped = share_directory() / 'config' / 'teleop'
    path = Path(name).expanduser() if name.endswith('.yaml') else shipped / f'{name}.yaml'
    if not path.is_file():
        known = sorted(file.stem for file in shipped.glob('*.yaml'))
        raise GrootRosError(
            f'There is no teleop map {name!r}: use {", ".join(known)}, or the path of a YAML file'
            f'{nearest(name, known)}.'
        )
    return path


def import_device(name: str) -> Any:
    """The class of a device."""
    check_device(name)
    module, _, class_name = TELEOP_DEVICES[name].partition(':')
    return getattr(importlib.import_module(module), class_name)
