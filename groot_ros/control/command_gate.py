# SPDX-License-Identifier: Apache-2.0
"""Decides which commands reach the robot: enabled, who commands, how old, which limits.

Used by ur5e_driver. Each refused command has a reason, see `CommandGate.submit`.
"""

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
    solve_path,
)
from groot_ros.control.publisher_binding import PublisherBinding
from groot_ros.control.setpoints import MAX_CATCH_UP
from groot_ros.geometry import Array, angle_between, deltas_between
from groot_ros.settings import setting
from groot_ros.ur5e_kinematics import forward, inverse

TELEOP = 'teleop'
POLICY = 'policy'
_UNIT_TOLERANCE = 1e-3
# An arm that was clipped at a wall of the workspace reports a pose that is a little outside.
_ENABLE_TOLERANCE_M = 0.002
# A calibrated UR5e differs from the nominal formulas by a few mm; a CB3's UR5 by 61 mm.
MAX_MODEL_ERROR_M = 0.01
MAX_MODEL_ERROR_RAD = 0.03


class GateState(IntEnum):
    """Whether commands pass. The numbers are the constants of RobotStatus.msg."""

    DISABLED = 0
    ENABLED = 1
    STOPPED = 2
    FREEDRIVE = 3


@dataclass
class DeltaCommand:
    """One TcpDelta. Times are in s of the monotonic clock; `start_s` is when the motion begins.

    `delta` (6,) is translation in m and rotation in rad; `opening` is 1 open to 0 closed, NaN for no change.
    `alone` says whether the topic of the source has only one publisher.
    """

    source: str
    sequence: int
    start_s: float
    duration_s: float
    delta: Array
    opening: float
    alone: bool = True


@dataclass
class Waypoint:
    """An accepted command: the arm leaves its last target at `start_s` and is at `pose` (7,) at `end_s`.

    `delta` (6,) is what is left of the commanded delta after the limits.
    """

    start_s: float
    end_s: float
    pose: Array
    delta: Array


@dataclass
class Counters:
    """Numbers of commands since the gate was made. A clipped command is accepted too."""

    accepted: int = 0
    clipped: int = 0
    refused: int = 0


@dataclass
class GateSettings:
    """Times in s: parameters of ur5e_driver."""

    command_timeout_s: float = setting(
        0.2, 'the arm stops if the commanding source is silent for this time, s', 0.05, 2.0
    )
    max_command_age_s: float = setting(0.2, 'a command older than this is refused, s', 0.02, 2.0)
    command_delay_s: float = setting(
        0.002, 'delay of every command, so that arrival jitter does not show in the motion, s', 0.0, 0.2
    )


@dataclass
class CommandGate:
    """Holds the commanded TCP pose and adds accepted deltas to it. Nothing passes before `enable`."""

    limits: Limits
    tcp_offset: Array
    settings: GateSettings = field(default_factory=GateSettings)
    state: GateState = GateState.DISABLED
    reason: str = 'not enabled yet'
    source: str = ''
    braking: bool = False
    counters: Counters = field(default_factory=Counters)
    target: Array = field(default_factory=lambda: np.array([0, 0, 0, 0, 0, 0, 1.0]))
    joints: Array = field(default_factory=lambda: np.zeros(6))
    _end_s: float = 0.0
    _last_s: dict[str, float] = field(default_factory=dict)
    _bindings: dict[str, PublisherBinding] = field(
        default_factory=lambda: {TELEOP: PublisherBinding(), POLICY: PublisherBinding()}
    )
    _recent: deque[tuple[float, Array]] = field(default_factory=deque)

    def enable(self, target: Array, joints: Array) -> None:
        """Accepts commands from now on, starting at the robot's own target pose (7,) and joint angles (6,).

        Raises RefusedError if the target is not a valid pose, is more than 2 mm outside the workspace, or is
        not the pose that a UR5e with this tool offset has at those joint angles.
        """
        target = np.asarray(target, float)
        joints = np.asarray(joints, float)
        self._check_pose(target)
        self._check_joints(target, joints)
        self.target = target
        self.joints = joints
        self._change(GateState.ENABLED, '')

    def enter_freedrive(self) -> None:
        """A person guides the arm by hand: commands pass with their gripper opening only."""
        self._change(GateState.FREEDRIVE, '')

    def disable(self, reason: str = 'disabled by the operator') -> None:
        """Refuses every command until the next `enable`."""
        self._change(GateState.DISABLED, reason)

    def stop(self, reason: str) -> None:
        """Refuses commands until `enable`, because of a fault."""
        if self.state in (GateState.ENABLED, GateState.FREEDRIVE):
            self._change(GateState.STOPPED, reason)

    def set_stop_reason(self, reason: str) -> None:
        """Replaces the reason of the present stop, if a better one has become known.

        It does nothing in any other state.
        """
        if self.state is GateState.STOPPED:
            self.reason = reason

    def release(self, source: str, sequence: int, now_s: float, alone: bool = True) -> bool:
        """A source stops commanding, as with an open deadman. Returns True if the arm must brake for it.

        Then no command passes until `come_to_rest`. Raises RefusedError, and counts it, if the release comes
        from another publisher than the commands.
        """
        self._take(source, sequence, now_s, alone)
        self._last_s.pop(source, None)
        if self.source != source:
            return False
        self.source = ''
        if self.state is not GateState.ENABLED:
            return False
        self.braking = True
        # What was scheduled for later is not carried out.
        self._recent = deque((min(end_s, now_s), velocity) for end_s, velocity in self._recent)
        return True

    def come_to_rest(self, pose: Array) -> None:
        """Goes on from the pose (7,) at which the braking arm comes to rest.

        Raises RefusedError if it has no joint angles, which no point of a checked path can be.
        """
        joints = inverse(pose, self.joints, self.tcp_offset)
        if joints is None:
            raise RefusedError('the arm came to rest at a pose that is out of reach')
        self.target = np.asarray(pose, float)
        self.joints = joints
        self.braking = False
        self._end_s = 0.0

    def submit(self, command: DeltaCommand, now_s: float) -> Waypoint:
        """The waypoint of an accepted command; `now_s` is the time on the monotonic clock.

        Raises RefusedError, and counts it, for a command that comes while nothing may pass, is late, repeated
        or not finite, or leads out of reach, and RivalError for one of a second publisher. A delta beyond the
        limits is clipped, and counted.
        """
        self._take(command.source, command.sequence, now_s, command.alone)
        try:
            self._check(command, now_s)
            self._claim(command.source, now_s)
            if self.state is GateState.FREEDRIVE:
                waypoint, clipped = self._hold_position(now_s), False
            else:
                waypoint, clipped = self._accept(command, now_s)
        except RefusedError:
            self.counters.refused += 1
            raise
        self._last_s[command.source] = now_s
        self.counters.accepted += 1
        self.counters.clipped += clipped
        return waypoint

    def check_timeout(self, now_s: float) -> bool:
        """Stops if the commanding source was silent for too long; returns True in the call that stops."""
        if self.state is not GateState.ENABLED or not self.source:
            return False
        silent_s = now_s - self._last_s[self.source]
        if silent_s <= self.settings.command_timeout_s:
            return False
        self.stop(f'{self.source} has been silent for {silent_s:.2f} s')
        return True

    def _change(self, state: GateState, reason: str) -> None:
        self.state = state
        self.reason = reason
        self.source = ''
        self._last_s.clear()
        for binding in self._bindings.values():
            binding.loosen()
        self._recent.clear()
        self.braking = False
        self._end_s = 0.0

    def _check_pose(self, target: Array) -> None:
        if not np.all(np.isfinite(target)) or abs(np.linalg.norm(target[3:]) - 1) > _UNIT_TOLERANCE:
            raise RefusedError(
                'the robot reported an invalid TCP pose (not finite, or its quaternion is not normalised): '
                'check the RTDE connection or reboot the controller'
            )
        lower = self.limits.workspace_min_m
        upper = self.limits.workspace_max_m
        beyond_m = np.maximum(lower - target[:3], target[:3] - upper)
        outside = np.flatnonzero(beyond_m > _ENABLE_TOLERANCE_M)
        if outside.size:
            axis = outside[0]
            raise RefusedError(
                f'the TCP is outside the workspace: {"xyz"[axis]} is {target[axis]:.3f} m, not within '
                f'{lower[axis]:.3f} to {upper[axis]:.3f} m; move it inside with ~/freedrive, or change the '
                'parameters workspace_min_m and workspace_max_m'
            )

    def _check_joints(self, target: Array, joints: Array) -> None:
        """The pose of another robot model or tool offset differs from that of the formulas."""
        if joints.shape != (6,) or not np.all(np.isfinite(joints)):
            raise RefusedError('the robot reported joint angles that are not finite: reboot the controller')
        expected = forward(joints, self.tcp_offset)
        distance_m = float(np.linalg.norm(expected[:3] - target[:3]))
        turn_rad = angle_between(expected, target)
        if distance_m > MAX_MODEL_ERROR_M or turn_rad > MAX_MODEL_ERROR_RAD:
            raise RefusedError(
                f'the robot reports a TCP {1e3 * distance_m:.0f} mm and {turn_rad:.3f} rad away from where '
                'the kinematics of a UR5e has it: check that it is a UR5e, and that tcp_offset is its tool'
            )

    def _take(self, source: str, sequence: int, now_s: float, alone: bool) -> None:
        """Raises RefusedError, and counts it, for a message of an unknown source or a second publisher."""
        try:
            if source not in self._bindings:
                raise RefusedError(f'the source {source!r} is neither {TELEOP!r} nor {POLICY!r}')
            self._bindings[source].take(sequence, now_s, self.source == source, alone)
        except RefusedError:
            self.counters.refused += 1
            raise

    def _check(self, command: DeltaCommand, now_s: float) -> None:
        """Raises RefusedError for a command that may not pass, whatever its delta."""
        if self.state not in (GateState.ENABLED, GateState.FREEDRIVE):
            raise RefusedError(f'the arm is not enabled: {self.reason}')
        if self.braking:
            raise RefusedError('the arm brakes, since its source let go')
        age_s = now_s - command.start_s
        if not np.isfinite(age_s) or abs(age_s) > self.settings.max_command_age_s:
            raise RefusedError(f'the command is {age_s:.2f} s old')
        if not (np.isnan(command.opening) or 0.0 <= command.opening <= 1.0):
            raise RefusedError(f'the opening {command.opening:g} is not within 0 (closed) to 1 (open)')
        if command.source == POLICY and self.source == TELEOP:
            raise RefusedError('teleop overrides the policy until it lets go')

    def _claim(self, source: str, now_s: float) -> None:
        """The source commands from now on, even if its command is refused, and may not fall silent."""
        if self.source != source:
            self.source = source
            self._last_s[source] = now_s

    def _hold_position(self, now_s: float) -> Waypoint:
        return Waypoint(now_s, now_s, self.target, np.zeros(6))

    def _accept(self, command: DeltaCommand, now_s: float) -> tuple[Waypoint, bool]:
        """The waypoint of a command, and whether a limit clipped it."""
        delta, shortened = clip_delta(command.delta, command.duration_s, self.limits)
        start_s, end_s = self._schedule(command, delta, now_s)
        duration_s = end_s - start_s
        # Set-points that catch up average over a longer part of the path.
        recent = self._velocities_since(start_s - MAX_CATCH_UP * self.limits.smoothing_s)
        share = max_share(delta / duration_s, recent, self.limits)
        target, moved_inside = clip_to_workspace(self.target, delta * share, self.limits)
        self.joints = solve_path(self.target, target, self.joints, duration_s, self.tcp_offset, self.limits)
        accepted = deltas_between(np.array([self.target, target]))[0]
        self.target = target
        self._end_s = end_s
        self._recent.append((end_s, accepted / duration_s))
        return Waypoint(start_s, end_s, target, accepted), shortened or moved_inside or share < 1.0

    def _schedule(self, command: DeltaCommand, delta: Array, now_s: float) -> tuple[float, float]:
        """When the motion begins and ends: after the last one, never faster than the limits.

        A command that comes late is shifted in time and takes at least 1 / 1.25 of its duration, so that the
        arm catches up with its source; one that would begin later than `max_command_age_s` is refused.
        """
        planned_s = command.start_s + self.settings.command_delay_s
        start_s = max(planned_s, self._end_s, now_s)
        if start_s - now_s > self.settings.max_command_age_s + self.settings.command_delay_s:
            raise RefusedError('commands come faster than the arm may carry them out')
        min_s = max(min_duration_s(delta, self.limits), command.duration_s / MAX_CATCH_UP)
        return start_s, max(planned_s + command.duration_s, start_s + min_s)

    def _velocities_since(self, time_s: float) -> list[Array]:
        while self._recent and self._recent[0][0] < time_s:
            self._recent.popleft()
        return [velocity for _, velocity in self._recent]
