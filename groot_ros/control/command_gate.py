# SPDX-License-Identifier: Apache-2.0
"""Decides which commands reach the robot: enabled or not, who commands, how old, within which limits. Used by ur5e_driver."""

from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from groot_ros.control.limits import (
    Limits,
    RefusedError,
    clip_delta,
    clip_to_workspace,
    max_share,
    min_duration_s,
    solve_joints,
)
from groot_ros.geometry import Array, deltas_between

TELEOP, POLICY = 'teleop', 'policy'
_UNIT_TOLERANCE = 1e-3


class GateState(IntEnum):
    """As in RobotStatus.msg."""

    DISABLED = 0
    ENABLED = 1
    STOPPED = 2
    FREEDRIVE = 3


@dataclass
class DeltaCommand:
    """One TcpDelta. Times are in s of the monotonic clock; `start_s` is when the motion begins."""

    source: str
    sequence: int
    start_s: float
    duration_s: float
    delta: Array
    opening: float


@dataclass
class Waypoint:
    """A target that passed: the arm leaves its last target at `start_s`, moves by `delta` (6,), and is here at `end_s`."""

    start_s: float
    end_s: float
    pose: Array
    delta: Array


@dataclass
class Counters:
    """What happened to the commands so far."""

    accepted: int = 0
    clipped: int = 0
    refused: int = 0


@dataclass
class GateSettings:
    """Time-outs in s. `command_delay_s` delays every command by the same time, so that arrival jitter does not show."""

    command_delay_s: float = 0.002
    max_command_age_s: float = 0.2
    command_timeout_s: float = 0.25
    teleop_override_s: float = 0.3


@dataclass
class CommandGate:
    """Holds the commanded pose and integrates accepted deltas into it. Nothing passes before `enable`."""

    limits: Limits
    tcp_offset: Array
    settings: GateSettings = field(default_factory=GateSettings)
    state: GateState = GateState.DISABLED
    reason: str = 'not enabled yet'
    source: str = ''
    counters: Counters = field(default_factory=Counters)
    target: Array = field(default_factory=lambda: np.array([0, 0, 0, 0, 0, 0, 1.0]))
    joints: Array = field(default_factory=lambda: np.zeros(6))
    _end_s: float = 0.0
    _last_s: dict[str, float] = field(default_factory=dict)
    _last_sequence: dict[str, int] = field(default_factory=dict)
    _recent: deque[tuple[float, Array]] = field(default_factory=deque)

    def enable(self, target: Array, joints: Array) -> None:
        """Lets commands pass from now on, starting at the robot's own target pose (7,) and joints (6,).

        Raises RefusedError for a target that is not a pose, or lies outside the box.
        """
        target, joints = np.asarray(target, float), np.asarray(joints, float)
        if not np.all(np.isfinite(target)) or abs(np.linalg.norm(target[3:]) - 1) > _UNIT_TOLERANCE:
            raise RefusedError('the robot reports a pose that is none')
        outside = np.flatnonzero(
            (target[:3] < self.limits.workspace_min_m) | (target[:3] > self.limits.workspace_max_m)
        )
        if outside.size:
            axis = outside[0]
            raise RefusedError(
                f'the TCP is outside the box: {"xyz"[axis]} is {target[axis]:.3f} m, not within {self.limits.workspace_min_m[axis]:.3f} to '
                f'{self.limits.workspace_max_m[axis]:.3f} m; move it inside by freedrive, or change workspace_min_m and workspace_max_m'
            )
        self.target, self.joints = target, joints
        self._change(GateState.ENABLED, '')

    def enter_freedrive(self) -> None:
        """Lets a hand guide the arm: commands pass their gripper opening only."""
        self._change(GateState.FREEDRIVE, '')

    def disable(self, reason: str = 'disabled by the operator') -> None:
        """Refuses commands until `enable`."""
        self._change(GateState.DISABLED, reason)

    def stop(self, reason: str) -> None:
        """Refuses commands until `enable`, because of a fault."""
        if self.state in (GateState.ENABLED, GateState.FREEDRIVE):
            self._change(GateState.STOPPED, reason)

    def set_stop_reason(self, reason: str) -> None:
        """A better reason for the present stop became known."""
        if self.state is GateState.STOPPED:
            self.reason = reason

    def release(self, source: str) -> None:
        """A source says that it lets go, as with an open dead-man: the arm holds, and another source may command at once.

        Its count of commands is forgotten with it: when its node is started again, that counts from 1.
        """
        self._last_s.pop(source, None)
        self._last_sequence.pop(source, None)
        if self.source == source:
            self.source = ''

    def submit(self, command: DeltaCommand, now_s: float) -> Waypoint:
        """The waypoint of a command that may pass. Raises RefusedError, counted, for one that may not."""
        try:
            self._check(command, now_s)
            waypoint, clipped = (
                self._hold_position(now_s)
                if self.state is GateState.FREEDRIVE
                else self._accept(command, now_s)
            )
        except RefusedError:
            self.counters.refused += 1
            raise
        self.source = command.source
        self._last_s[command.source], self._last_sequence[command.source] = now_s, command.sequence
        self.counters.accepted += 1
        self.counters.clipped += clipped
        return waypoint

    def check_timeout(self, now_s: float) -> bool:
        """Stops where the commanding source has been silent too long; True on the call that stops."""
        if self.state is not GateState.ENABLED or not self.source:
            return False
        silent_s = now_s - self._last_s[self.source]
        if silent_s <= self.settings.command_timeout_s:
            return False
        self.stop(f'{self.source} has been silent for {silent_s:.2f} s')
        return True

    def _change(self, state: GateState, reason: str) -> None:
        self.state, self.reason, self.source = state, reason, ''
        self._last_s.clear()
        self._last_sequence.clear()
        self._recent.clear()
        self._end_s = 0.0

    def _check(self, command: DeltaCommand, now_s: float) -> None:
        if self.state not in (GateState.ENABLED, GateState.FREEDRIVE):
            raise RefusedError(f'the arm is not enabled: {self.reason}')
        if command.source not in (TELEOP, POLICY):
            raise RefusedError(f'{command.source!r} is neither {TELEOP!r} nor {POLICY!r}')
        if not np.isfinite(command.start_s) or abs(now_s - command.start_s) > self.settings.max_command_age_s:
            raise RefusedError(f'the command is {now_s - command.start_s:.2f} s old')
        if command.sequence <= self._last_sequence.get(command.source, -1):
            raise RefusedError(f'sequence {command.sequence} of {command.source} came twice or late')
        if not (np.isnan(command.opening) or 0.0 <= command.opening <= 1.0):
            raise RefusedError(f'the opening {command.opening:g} is not within 0 (closed) to 1 (open)')
        if (
            command.source == POLICY
            and now_s - self._last_s.get(TELEOP, -np.inf) < self.settings.teleop_override_s
        ):
            raise RefusedError('teleop overrides the policy')

    def _hold_position(self, now_s: float) -> tuple[Waypoint, bool]:
        return Waypoint(now_s, now_s, self.target, np.zeros(6)), False

    def _accept(self, command: DeltaCommand, now_s: float) -> tuple[Waypoint, bool]:
        delta, shortened = clip_delta(command.delta, command.duration_s, self.limits)
        start_s, end_s = self._schedule(command, delta, now_s)
        share = max_share(
            delta / (end_s - start_s), self._velocities_since(start_s - self.limits.smoothing_s), self.limits
        )
        target, boxed = clip_to_workspace(self.target, delta * share, self.limits)
        self.joints = solve_joints(target, self.joints, end_s - start_s, self.tcp_offset, self.limits)
        passed = deltas_between(np.array([self.target, target]))[0]
        self.target, self._end_s = target, end_s
        self._recent.append((end_s, passed / (end_s - start_s)))
        return Waypoint(start_s, end_s, target, passed), shortened or boxed or share < 1.0

    def _schedule(self, command: DeltaCommand, delta: Array, now_s: float) -> tuple[float, float]:
        """When the motion begins and ends: behind the last one, and never faster than the limits."""
        planned_s = command.start_s + self.settings.command_delay_s
        start_s = max(planned_s, self._end_s, now_s)
        if start_s - now_s > self.settings.max_command_age_s + self.settings.command_delay_s:
            raise RefusedError('commands come faster than the arm may carry them out')
        return start_s, max(planned_s + command.duration_s, start_s + min_duration_s(delta, self.limits))

    def _velocities_since(self, time_s: float) -> list[Array]:
        while self._recent and self._recent[0][0] < time_s:
            self._recent.popleft()
        return [velocity for _, velocity in self._recent]
