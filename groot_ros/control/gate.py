"""Decides which commands reach the robot: enabled or not, who commands, how old, within which limits. Used by ur5e_driver."""

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from groot_ros.control.limits import Limits, RefusedError, joints_of_target, limited_delta, limited_target
from groot_ros.geometry import Array, deltas_between

TELEOP, POLICY = 'teleop', 'policy'


class GateState(IntEnum):
    """As in RobotStatus.msg."""

    DISABLED = 0
    ENABLED = 1
    STOPPED = 2


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
    """Time-outs in s. `playout_s` delays every command by the same time, so that arrival jitter does not show."""

    playout_s: float = 0.02
    stale_s: float = 0.2
    silence_s: float = 0.25
    handover_s: float = 0.3


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
    _last_s: dict[str, float] = field(default_factory=dict)
    _last_sequence: dict[str, int] = field(default_factory=dict)
    _enabled_s: float = 0.0

    def enable(self, target: Array, joints: Array, now_s: float) -> None:
        """Lets commands pass from now on, starting at the robot's own target pose (7,) and joints (6,)."""
        self.target, self.joints = np.asarray(target, float), np.asarray(joints, float)
        self.state, self.reason, self.source = GateState.ENABLED, '', ''
        self._last_s.clear()
        self._last_sequence.clear()
        self._enabled_s = now_s

    def disable(self) -> None:
        """Refuses commands until `enable`."""
        self.state, self.reason, self.source = GateState.DISABLED, 'disabled by the operator', ''

    def stop(self, reason: str) -> None:
        """Refuses commands until `enable`, because of a fault."""
        if self.state is GateState.ENABLED:
            self.state, self.reason, self.source = GateState.STOPPED, reason, ''

    def offer(self, command: DeltaCommand, now_s: float) -> Waypoint:
        """The waypoint of a command that may pass. Raises RefusedError, counted, for one that may not."""
        try:
            waypoint, clipped = self._judge(command, now_s)
        except RefusedError:
            self.counters.refused += 1
            raise
        self.counters.accepted += 1
        self.counters.clipped += clipped
        return waypoint

    def check_silence(self, now_s: float) -> bool:
        """Stops where the commanding source has been silent too long; True on the call that stops."""
        if self.state is not GateState.ENABLED or not self.source:
            return False
        silent_s = now_s - self._last_s[self.source]
        if silent_s <= self.settings.silence_s:
            return False
        self.stop(f'{self.source} has been silent for {silent_s:.2f} s')
        return True

    def _judge(self, command: DeltaCommand, now_s: float) -> tuple[Waypoint, bool]:
        if self.state is not GateState.ENABLED:
            raise RefusedError(f'the arm is not enabled: {self.reason}')
        if command.source not in (TELEOP, POLICY):
            raise RefusedError(f'{command.source!r} is neither {TELEOP!r} nor {POLICY!r}')
        if not np.isfinite(command.start_s) or abs(now_s - command.start_s) > self.settings.stale_s:
            raise RefusedError(f'the command is {now_s - command.start_s:.2f} s old')
        if command.sequence <= self._last_sequence.get(command.source, -1):
            raise RefusedError(f'sequence {command.sequence} of {command.source} came twice or late')
        if command.source == POLICY and now_s - self._last_s.get(TELEOP, -np.inf) < self.settings.handover_s:
            raise RefusedError('teleop overrides the policy')
        return self._pass(command, now_s)

    def _pass(self, command: DeltaCommand, now_s: float) -> tuple[Waypoint, bool]:
        delta, shortened = limited_delta(command.delta, command.duration_s, self.limits)
        target, boxed = limited_target(self.target, delta, self.limits)
        self.joints = joints_of_target(target, self.joints, command.duration_s, self.tcp_offset, self.limits)
        passed = deltas_between(np.array([self.target, target]))[0]
        self.target, self.source = target, command.source
        self._last_s[command.source], self._last_sequence[command.source] = now_s, command.sequence
        start_s = command.start_s + self.settings.playout_s
        return Waypoint(start_s, start_s + command.duration_s, target, passed), shortened or boxed
