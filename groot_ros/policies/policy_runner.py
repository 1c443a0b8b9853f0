# SPDX-License-Identifier: Apache-2.0
"""Plays a policy: asks it, schedules its chunks, and gives the deltas to command on an absolute grid of time. Knows no ROS.

All times are those of one clock in ns, given by the caller, so that a run can be repeated exactly without waiting for it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from groot_ros.control.min_jerk import MinJerkMove, MinJerkTrajectory
from groot_ros.embodiment import Embodiment
from groot_ros.geometry import Array, apply_delta, deltas_between
from groot_ros.policies.action_decoder import DecodedActions, InvalidActionError, decode_actions, gripper_key
from groot_ros.policies.chunk_scheduler import ChunkScheduler, ScheduleSettings
from groot_ros.policies.gripper_hysteresis import GripperHysteresis
from groot_ros.policies.inference_worker import InferenceResult, InferenceWorker
from groot_ros.policies.observation_builder import ObservationBuilder, ObservationUnavailable
from groot_ros.policies.policy import Observation, Policy
from groot_ros.policies.replay_policy import ReplayPolicy
from groot_ros.settings import setting

_KEPT = 100


@dataclass(frozen=True)
class RunnerSettings:
    """How a policy is executed: one command every `period_ns`."""

    period_ns: int
    max_speed_m_s: float = setting(1.0, 'a chunk with a faster step is refused, m/s', 0.01, 3.0)
    replay_settle_s: float = setting(
        1.5, 'pause at the start of the recording before it is replayed, s', 0.0, 10.0
    )


@dataclass
class Command:
    """One delta (6,) in the base frame, of a tick and for the time until the next, and the opening (not a number: as it is)."""

    sequence: int
    tick_ns: int
    delta: Array
    opening: float


@dataclass
class ChunkResult:
    """What became of an result: its decoded, where it has any, whether they were taken, and what was wrong."""

    result: InferenceResult
    decoded: DecodedActions | None = None
    taken: bool = False
    problem: str = ''


class PolicyRunner:
    """Call `begin`, then often `tick`, which gives what is due, and `look`.

    `end_reason` says why a run has ended, `done` whether that was its proper end.
    """

    def __init__(
        self,
        worker: InferenceWorker,
        observation_builder: ObservationBuilder,
        schedule: ScheduleSettings,
        settings: RunnerSettings,
        on_chunk: Callable[[ChunkResult], None],
    ) -> None:
        self.scheduler = ChunkScheduler(schedule)
        self.end_reason: str | None = None
        self.done = self.approaching = False
        self._worker, self._observation_builder, self._settings, self._on_chunk = (
            worker,
            observation_builder,
            settings,
            on_chunk,
        )
        self._row_ns = round(schedule.period_s * 1e9)
        self._gripper = GripperHysteresis()
        self._commanded = np.array([0.0, 0, 0, 0, 0, 0, 1])
        self._sent: dict[int, Array] = {}
        self._sequence = 0
        self._origin_ns = self._next_ns = self._request_from_ns = 0
        self._fresh = self._ended = False
        self._problem = ''
        self._grid_shift_ns = 0
        self._follows: tuple[int, float] | None = None

    @property
    def policy(self) -> Policy:
        """Whom it asks."""
        return self._worker.policy

    @property
    def period_s(self) -> float:
        """Time between two commands."""
        return self._settings.period_ns / 1e9

    @property
    def embodiment(self) -> Embodiment:
        """Whose rows are played."""
        return self._observation_builder.embodiment

    def blocking_reason(self, now_ns: int) -> str:
        """Why it cannot begin; empty where it can."""
        if reason := self.policy.unavailable_reason():
            return reason
        if self._worker.busy:
            return f'{self.policy.spec.name} still works on an earlier request'
        seen = self._observe(now_ns, '')
        return seen.reason if isinstance(seen, ObservationUnavailable) else ''

    def begin(self, target: Array, now_ns: int) -> None:
        """A new run from the arm's own target pose (7,). A replay first goes to where its recording began."""
        self.end_reason, self.done, self._problem = None, False, ''
        self._origin_ns, self._request_from_ns = now_ns, now_ns
        self._fresh, self._ended = True, False
        self.scheduler.start(target)
        self._reset_grid(target, now_ns)
        policy = self.policy
        self.approaching = isinstance(policy, ReplayPolicy)
        if isinstance(policy, ReplayPolicy):
            self._approach(policy, target, now_ns)

    def resume(self, target: Array, now_ns: int) -> None:
        """After somebody else had the arm: what was planned is forgotten."""
        self.scheduler.flush(target)
        self._reset_grid(target, now_ns)

    def halt(self) -> int:
        """No more commands; an result under way is not wanted any more. Returns the sequence number that lets the arm go."""
        self._worker.discard()
        self._sequence += 1
        return self._sequence

    def swap_policy(self, worker: InferenceWorker) -> InferenceWorker:
        """Asks another policy from the next chunk on, in the middle of a run too; returns who was asked before."""
        before, self._worker = self._worker, worker
        before.discard()
        self.scheduler.cancel_request()
        self._fresh, self._follows = True, None
        return before

    def apply_correction(self, sequence: int, accepted: Array) -> None:
        """What a limit took away from a command is taken from the target here too, so that it does not grow away from the arm's."""
        sent = self._sent.pop(sequence, None)
        if sent is not None and not np.array_equal(sent, accepted):
            wanted, moved = apply_delta(self._commanded, sent), apply_delta(self._commanded, accepted)
            self._commanded = apply_delta(self._commanded, deltas_between(np.array([wanted, moved]))[0])

    def tick(self, now_ns: int, measured: Array | None) -> list[Command]:
        """Returns the commands that are due, until `end_reason` is set; a policy that is late or slow to read does not delay them."""
        commands = []
        while self.end_reason is None and now_ns >= self._next_ns:
            if (command := self._step(self._next_ns, measured)) is not None:
                commands.append(command)
            self._next_ns += self._settings.period_ns
        return commands

    def swap_blocking_reason(self, policy: Policy, running: bool) -> str:
        """Why another policy cannot replace the present one now, in the middle of a run if `running`; empty if it can."""
        period_s = self.scheduler.settings.period_s
        if policy.period_s(self.embodiment) != period_s:
            given_hz = 1 / policy.period_s(self.embodiment)
            return f'{policy.spec.name} has {given_hz:g} rows per second, but this run has {1 / period_s:g}'
        now, new = self.policy.spec, policy.spec
        if new.observation_indices != now.observation_indices or new.observes != now.observes:
            return f'{new.name} needs other observations than {now.name}: restart the node'
        if new.ends and running:
            return f'{new.name} starts at another pose: end the run first'
        return ''

    def poll(self, now_ns: int, task: str) -> None:
        """Takes what has come, and asks when it is time; to be called when the due commands are out."""
        if (result := self._worker.poll()) is not None:
            self._handle_result(result, self._seconds(now_ns))
        if self.end_reason is None:
            self._request(now_ns, task)

    def _reset_grid(self, target: Array, now_ns: int) -> None:
        self._commanded, self._next_ns, self._follows, self._grid_shift_ns = target, now_ns, None, 0
        self._sent.clear()

    def _approach(self, policy: ReplayPolicy, target: Array, now_ns: int) -> None:
        """To where the recording began, as one long chunk."""
        row_s = self.scheduler.settings.period_s
        follower, poses = MinJerkTrajectory(target, row_s), []
        opening = float(policy.infer(Observation(0, policy.start_state))[gripper_key(self.embodiment)][0, 0])
        follower.follow(
            [
                MinJerkMove(
                    policy.start_state[self.embodiment.pose_part], opening, self._settings.replay_settle_s
                )
            ]
        )
        while not follower.done:
            follower.step()
            poses.append(follower.pose)
        now_s = self._seconds(now_ns)
        self.scheduler.add(np.array(poses), np.full(len(poses), opening), now_s, now_s)
        self._request_from_ns = now_ns + len(poses) * self._row_ns

    def _seconds(self, time_ns: int) -> float:
        return (time_ns - self._origin_ns) / 1e9

    def _observe(self, now_ns: int, task: str) -> Observation | ObservationUnavailable:
        if self.policy.spec.observes:
            return self._observation_builder.observe(now_ns, task)
        # A row's own time, so that a replay's rows follow each other without a part of one lost or doubled.
        passed = (now_ns - self._grid_shift_ns - self._request_from_ns) // self._row_ns
        return Observation(self._request_from_ns + passed * self._row_ns, np.zeros(0), {}, task)

    def _request(self, now_ns: int, task: str) -> None:
        now_s = self._seconds(now_ns)
        if (
            now_ns < self._request_from_ns
            or self._ended
            or self._worker.busy
            or not self.scheduler.wants_request(now_s)
        ):
            return
        if self.approaching:
            self.scheduler.flush(self._commanded)
            self.approaching = False
        seen = self._observe(now_ns, task)
        if isinstance(seen, ObservationUnavailable):
            self.end_reason = seen.reason
            return
        if self.policy.spec.continues and self._follows is not None:
            self._continue(seen, now_s, *self._follows)
        seen.reply_timeout_s = self.scheduler.reply_timeout_s()
        self._worker.submit(seen, reset=self._fresh)
        self._fresh = False
        self.scheduler.request_sent(now_s)

    def _continue(self, seen: Observation, now_s: float, follows_ns: int, began_s: float) -> None:
        """Tells for real-time chunking what will have been carried out of the chunk of `follows_ns`, which began at `began_s`."""
        settings, observed_s = self.scheduler.settings, self._seconds(seen.tick_ns + self._grid_shift_ns)
        expected_s = now_s + self.scheduler.stats.latency_s(settings.latency_share) - observed_s
        seen.follows_ns, seen.elapsed_steps = (
            follows_ns,
            max(round((observed_s - began_s) / settings.period_s), 0),
        )
        seen.frozen_steps = int(np.ceil(expected_s / settings.period_s))

    def _handle_result(self, result: InferenceResult, now_s: float) -> None:
        observed_s = self._seconds(result.observation.tick_ns + self._grid_shift_ns)
        spec = self.policy.spec
        try:
            decoded = self._decode(result, observed_s)
        except InvalidActionError as error:
            self.scheduler.reply_lost(now_s)
            if str(error):
                self._problem = str(error)
                self._on_chunk(ChunkResult(result, problem=self._problem))
            return
        last = self._ended = spec.ends and len(decoded.poses) < spec.horizon
        began_s = self.scheduler.add(
            decoded.poses, decoded.openings, observed_s, now_s, self._seconds(self._next_ns), last
        )
        if began_s is not None:
            self._follows = result.observation.tick_ns, began_s
            if not spec.observes:
                self._grid_shift_ns += round((began_s - observed_s) * 1e9)
        self._on_chunk(ChunkResult(result, decoded, began_s is not None))

    def _decode(self, result: InferenceResult, observed_s: float) -> DecodedActions:
        if result.problem:
            raise InvalidActionError(result.problem)
        decoded = decode_actions(result.action, self.embodiment, self.scheduler.target(observed_s))
        if not len(decoded.poses):
            self._ended = self.policy.spec.ends
            raise InvalidActionError('' if self._ended else 'it gave no step')
        steps = (
            np.linalg.norm(np.diff(decoded.poses[:, :3], axis=0), axis=1)
            if len(decoded.poses) > 1
            else np.zeros(1)
        )
        speed_m_s = steps.max() / self.scheduler.settings.period_s
        if speed_m_s > self._settings.max_speed_m_s:
            raise InvalidActionError(f'step {int(steps.argmax()) + 1} moves at {speed_m_s:.2f} m/s')
        return decoded

    def _step(self, tick_ns: int, measured: Array | None) -> Command | None:
        now_s = self._seconds(tick_ns)
        if self.scheduler.is_exhausted(now_s) and not self.approaching:
            self.done = self._ended
            self.end_reason = (
                '' if self.done else f'no chunk came in time{": " if self._problem else ""}{self._problem}'
            )
            return None
        pose, value = self.scheduler.sample(now_s + self.period_s, measured)
        delta = deltas_between(np.array([self._commanded, pose]))[0]
        self._commanded = pose
        self._sequence += 1
        self._sent[self._sequence] = delta
        while len(self._sent) > _KEPT:
            self._sent.pop(next(iter(self._sent)))
        opening = self._gripper.decide(value) if self.policy.spec.observes and np.isfinite(value) else value
        return Command(self._sequence, tick_ns, delta, float(opening))
