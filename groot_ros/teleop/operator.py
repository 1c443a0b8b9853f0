# SPDX-License-Identifier: Apache-2.0
"""A person with a device: turns mapped input into the steps that the node teleop publishes. Imports no ROS."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from groot_ros.control.min_jerk import MinJerkMove, MinJerkTrajectory
from groot_ros.geometry import Array
from groot_ros.teleop.mapping import DeviceState, TeleopMapper


class InputDevice(Protocol):
    """Something to command with."""

    def read(self) -> DeviceState | None:
        """What it says now, or None while it has said nothing."""

    def close(self) -> None:
        """Releases it."""


@dataclass
class OperatorStep:
    """What to do in one period: move by `delta` (6,) where `held`, the opening in force, and what was asked for besides."""

    delta: Array
    opening: float
    held: bool
    events: frozenset[str] = frozenset()


class ManualOperator:
    """Reads a device on every tick. `home` drives while its button and the dead-man are held.

    The gripper is left alone (NaN) until its button is pressed while the operator commands: then it closes, then it toggles.
    """

    def __init__(self, device: InputDevice, mapper: TeleopMapper, period_s: float, home: Array) -> None:
        self._device, self._mapper, self._period_s, self._home = device, mapper, period_s, home
        self._going_home: MinJerkTrajectory | None = None
        self.opening = float('nan')

    def step(self, target: Array | None, now_s: float, guided: bool = False) -> OperatorStep:
        """The step from the robot's target pose (7,), None while that is not known; `guided` where a hand moves the arm."""
        raw = self._device.read()
        command = (
            self._mapper.update(raw, now_s) if target is None else self._mapper.update(raw, now_s, target)
        )
        if 'gripper' in command.events and (command.held or guided):
            self.opening = 1.0 if self.opening == 0.0 else 0.0
        home_button = self._mapper.map.buttons.get('home', '')
        if raw is not None and home_button in raw.buttons and command.held and target is not None:
            return OperatorStep(self._step_home(target), self.opening, True, command.events)
        self._going_home = None
        return OperatorStep(command.velocity * self._period_s, self.opening, command.held, command.events)

    def close(self) -> None:
        """Releases the device."""
        self._device.close()

    def _step_home(self, target: Array) -> Array:
        if self._going_home is None:
            self._going_home = MinJerkTrajectory(target, self._period_s)
            self._going_home.follow([MinJerkMove(self._home, self.opening)])
        return self._going_home.step() if not self._going_home.done else np.zeros(6)
