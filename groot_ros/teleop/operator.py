# SPDX-License-Identifier: Apache-2.0
"""Who commands the arm: turns a device into the steps that the node teleop publishes. Imports no ROS."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from groot_ros.control.min_jerk import MinJerkMove, MinJerkTrajectory
from groot_ros.geometry import Array
from groot_ros.teleop.device import DeviceState, InputDevice, import_device
from groot_ros.teleop.mapping import STALE_S, OperatorCommand, TeleopMap, TeleopMapper, load_map
from groot_ros.teleop.ramp import VelocityRamp
from groot_ros.teleop.status_line import CellState
from groot_ros.ur5e_kinematics import forward


@dataclass
class OperatorStep:
    """What to do in one period.

    `delta` (6,) in m and rad moves the TCP while `held` is True. `opening` is of the gripper, NaN to leave
    it alone. `events` are those of mapping.py that happened.
    """

    delta: Array
    opening: float
    held: bool
    events: frozenset[str] = frozenset()


@dataclass
class OperatorContext:
    """What a device or operator may use when it opens.

    `parameters` are those of the node teleop. `node` is for devices that come over ROS topics, `services`
    (ServiceClients) for operators that record by themselves.
    """

    device: str
    parameters: Mapping[str, Any]
    node: Any = None
    services: Any = None

    @property
    def period_s(self) -> float:
        """Time between two steps, s."""
        return 1.0 / self.parameters['rate_hz']

    @cached_property
    def map(self) -> TeleopMap:
        """The map that the parameter `map` names, or that of the device."""
        return load_map(self.parameters['map'] or self.device)


class Operator(ABC):
    """Decides the step of each period."""

    description = ''

    @property
    @abstractmethod
    def needs_target(self) -> bool:
        """Whether `step` needs the target pose now; its 125 messages a second cost a Python node time."""

    @abstractmethod
    def step(self, target: Array | None, now_s: float, guided: bool = False) -> OperatorStep:
        """The step from the robot's target pose (7,), None while it is unknown or the arm is not enabled.

        `guided` is True in freedrive, when a hand moves the arm. Raises GrootRosError to end the node.
        """

    def show(self, state: CellState) -> None:  # noqa: B027 - most operators show nothing
        """Shows the state of the cell to the person, about twice a second."""

    @abstractmethod
    def close(self) -> None:
        """Releases what the operator has opened."""


class ManualOperator(Operator):
    """A person with a device. `home` is driven to while its button and the deadman are held.

    The gripper is left alone (NaN) until its button is pressed while the operator commands: the first press
    closes it, each further one toggles it. A device without a deadman needs the buttons only.
    """

    def __init__(self, device: InputDevice, mapper: TeleopMapper, period_s: float, home: Array) -> None:
        self._device = device
        self._mapper = mapper
        self._period_s = period_s
        self._home = home
        self._going_home: MinJerkTrajectory | None = None
        chosen = mapper.map
        self._ramp = VelocityRamp(
            chosen.linear_speed_m_s, chosen.angular_speed_rad_s, chosen.ramp_s, period_s
        )
        self.description = f'{mapper.map.name}: {mapper.map.description}'
        self.opening = float('nan')

    @property
    def needs_target(self) -> bool:
        """In the tool frame, and to drive home."""
        return self._mapper.map.frame == 'tool' or 'home' in self._mapper.map.buttons

    def step(self, target: Array | None, now_s: float, guided: bool = False) -> OperatorStep:
        """Reads the device and maps its state to a step."""
        state = self._device.read()
        if target is None:
            command = self._mapper.update(state, now_s)
        else:
            command = self._mapper.update(state, now_s, target)
        wishes = self._wishes(state) if not self._mapper.map.enable_button else set()
        if 'gripper' in command.events and (command.held or guided or 'gripper' in wishes):
            self.opening = 1.0 if self.opening == 0.0 else 0.0
        home_pressed = 'home' in wishes or (command.held and 'home' in self._wishes(state))
        if home_pressed and target is not None:
            self._ramp.reset()
            return OperatorStep(self._step_home(target), self.opening, True, command.events)
        self._going_home = None
        velocity = self._ramp_velocity(command, now_s, state)
        held = command.held or 'gripper' in wishes or bool(np.any(velocity))
        return OperatorStep(velocity * self._period_s, self.opening, held, command.events)

    def _wishes(self, state: DeviceState | None) -> set[str]:
        """Which of gripper and home have their button pressed."""
        buttons = self._mapper.map.buttons
        return {event for event in ('gripper', 'home') if state and buttons.get(event, '') in state.buttons}

    def _ramp_velocity(self, command: OperatorCommand, now_s: float, state: DeviceState | None) -> Array:
        """The ramped velocity. A device that fell silent, or an open deadman, ends it at once."""
        silent = state is None or now_s - state.time_s > STALE_S
        if silent or (self._mapper.map.enable_button and not command.held):
            self._ramp.reset()
            return self._ramp.velocity
        return self._ramp.step(command.velocity)

    def show(self, state: CellState) -> None:
        """Shows the state of the cell, if the device can."""
        show = getattr(self._device, 'show', None)
        if show is not None:
            show(state)

    def close(self) -> None:
        """Closes the input device of the operator."""
        self._device.close()

    def _step_home(self, target: Array) -> Array:
        if self._going_home is None:
            self._going_home = MinJerkTrajectory(target, self._period_s)
            self._going_home.follow([MinJerkMove(self._home, self.opening)])
        return np.zeros(6) if self._going_home.done else self._going_home.step()


def open_operator(context: OperatorContext) -> Operator:
    """Opens the device of a context. Raises GrootRosError, with what to do, if that fails."""
    opened = import_device(context.device).open(context)
    if isinstance(opened, Operator):
        return opened
    joints = np.array(context.parameters['home_joints_rad'])
    home = forward(joints, np.array(context.parameters['tcp_offset']))
    return ManualOperator(opened, TeleopMapper(context.map), context.period_s, home)
