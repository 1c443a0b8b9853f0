# SPDX-License-Identifier: Apache-2.0
"""Runs a policy: requests chunks, schedules them, and returns the deltas to command on a fixed time grid.

It uses no ROS. All times are ns of one clock and come from the caller, so a run can be repeated exactly.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from groot_ros.control.min_jerk import MinJerkMove, MinJerkTrajectory
from groot_ros.control.publisher_binding import first_sequence
from groot_ros.embodiment import Embodiment
from groot_ros.geometry import Array, angle_between
from groot_ros.policies.action_decoder import DecodedActions, InvalidActionError, decode_actions, gripper_key
from groot_ros.policies.chunk_scheduler import ChunkScheduler, ScheduleSettings
from groot_ros.policies.commanded_pose import CommandedPose
from groot_ros.policies.gripper_hysteresis import GripperHysteresis
from groot_ros.policies.inference_worker import InferenceResult, InferenceWorker
from groot_ros.policies.observation_builder import ObservationBuilder, ObservationUnavailable
from groot_ros.policies.policy import Observation, Policy
from groot_ros.policies.replay_policy import ReplayPolicy
from groot_ros.policies.runner_settings import RunnerSettings

_MAX_FAR_CHUNKS = 3


@dataclass
class Command:
    """One delta (6,) in the base frame, valid from its tick to the next, and the opening of the gripper.

    An opening of NaN leaves the gripper as it is.
    """

    sequence: int
    tick_ns: int
    delta: Array
    opening: float


@dataclass
class ChunkResult:
    """An inference result, its decoded actions if valid, whether they were scheduled, the problem."""

    result: InferenceResult
    decoded: DecodedActions | None = None
    taken: bool = False
    problem: str = ''


class PolicyRunner:
    """Call `begin`, then `tick` and `poll` often: `tick` returns the commands that are due.

    `end_reason` is None during a run and says afterwards why it ended; `done` is True after its regular end.
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
        self.done = False
        self.approaching = False
        self._worker = worker
        self._observation_builder = observation_builder
        self._settings = settings
        self._on_chunk = on_chunk
        self._row_ns = round(schedule.period_s * 1e9)
        self._gripper = GripperHysteresis()
        self._commanded = CommandedPose()
        self._sequence = first_sequence()
        self._origin_ns = 0
        self._next_ns = 0
        self._request_from_ns = 0
        self._fresh = False
        self._ended = False
        self._far_chunks = 0
        self._expected_s = np.inf
        self._run_out_reason = ''
        self._problem = ''
        self._grid_shift_ns = 0
        self._follows: tuple[int, float] | None = None

    @property
    def policy(self) -> Policy:
        """The policy that is asked for chunks."""
        return self._worker.policy

    @property
    def period_s(self) -> float:
        """The time between two commands in s."""
        return self._settings.period_ns / 1e9

    @property
    def embodiment(self) -> Embodiment:
        """The embodiment whose rows the policy commands."""
        return self._observation_builder.embodiment

    def blocking_reason(self, now_ns: int) -> str:
        """Why a run cannot begin now; empty if it can."""
        if reason := self.policy.unavailable_reason():
            return reason
        if self._worker.busy:
            return f'{self.policy.spec.name} still works on an earlier request'
        seen = self._observe(now_ns, '')
        return seen.reason if isinstance(seen, ObservationUnavailable) else ''

    def begin(self, target: Array, now_ns: int) -> None:
        """Starts a run at a target pose (7,). A replay first moves to the start of its recording."""
        self.end_reason = None
        self.done = False
        self._problem = ''
        self._origin_ns = now_ns
        self._request_from_ns = now_ns
        self._fresh = True
        self._ended = False
        self._run_out_reason = ''
        self.scheduler.start(target)
        self._reset_grid(target, now_ns)
        policy = self.policy
        self.approaching = isinstance(policy, ReplayPolicy)
        if isinstance(policy, ReplayPolicy):
            self._approach(policy, target, now_ns)

    def resume(self, target: Array, now_ns: int) -> None:
        """Continues after a pause from a target pose (7,), with a new observation.

        A replay has no observation: it continues where it stopped, and repeats an interrupted approach.
        """
        policy = self.policy
        if policy.spec.ends and not self.approaching:
            self._continue_replay(target, now_ns)
            return
        self.scheduler.flush(target)
        self._reset_grid(target, now_ns)
        if isinstance(policy, ReplayPolicy):
            self._approach(policy, target, now_ns)

    def pause_note(self) -> str:
        """How the policy will continue after a pause of the speed slider, where that is not obvious."""
        if not self.policy.spec.ends:
            return ''
        if self.approaching:
            return 'the approach is repeated then'
        return 'the replay continues where it stopped'

    def halt(self) -> int:
        """Ends the commands, discards a pending result, returns the sequence number of the release."""
        self._worker.discard()
        self._sequence += 1
        return self._sequence

    def swap_policy(self, worker: InferenceWorker) -> InferenceWorker:
        """Asks another policy from the next chunk on, also during a run. Returns the worker used before."""
        before = self._worker
        self._worker = worker
        before.discard()
        self.scheduler.cancel_request()
        self._fresh = True
        self._follows = None
        return before

    def apply_echo(self, sequence: int, target: Array) -> None:
        """Takes over the pose (7,) that the gate of the driver holds after it accepted a command."""
        self._commanded.apply_echo(sequence, target)

    def tick(self, now_ns: int, measured: Array | None) -> list[Command]:
        """Returns the commands that are due, until `end_reason` is set; a late policy does not delay them.

        `measured` is the measured TCP pose (7,), if known.
        """
        commands = []
        self._check_echoes(now_ns)
        self._check_blindness(self._seconds(now_ns))
        while self.end_reason is None and now_ns >= self._next_ns:
            if (command := self._step(self._next_ns, measured)) is not None:
                commands.append(command)
            self._next_ns += self._settings.period_ns
        return commands

    def swap_blocking_reason(self, policy: Policy, running: bool) -> str:
        """Why a policy cannot replace the present one now, during a run if `running`; empty if it can."""
        period_s = self.scheduler.settings.period_s
        if policy.period_s(self.embodiment) != period_s:
            given_hz = 1 / policy.period_s(self.embodiment)
            return f'{policy.spec.name} has {given_hz:g} rows per second, but this run has {1 / period_s:g}'
        now = self.policy.spec
        new = policy.spec
        if new.observation_indices != now.observation_indices or new.observes != now.observes:
            return f'{new.name} needs other observations than {now.name}: restart the node'
        if new.ends and running:
            return f'{new.name} starts at another pose: end the run first'
        return ''

    def poll(self, now_ns: int, task: str) -> None:
        """Takes a result that has arrived, and sends a request when it is time. Call it after `tick`."""
        if self._run_out_reason:
            return
        if (result := self._worker.poll()) is not None:
            self._handle_result(result, self._seconds(now_ns))
        if self.end_reason is None and not self._run_out_reason:
            self._request(now_ns, task)

    def _reset_grid(self, target: Array, now_ns: int) -> None:
        self._commanded.start(target, now_ns)
        self._next_ns = now_ns
        self._follows = None
        self._grid_shift_ns = 0
        self._far_chunks = 0
        self._expected_s = np.inf

    def _continue_replay(self, target: Array, now_ns: int) -> None:
        """Shifts the time of the plan by the pause, so that no row is skipped."""
        planned, _ = self.scheduler.sample(self._seconds(self._next_ns))
        pause_ns = now_ns - self._next_ns
        self._origin_ns += pause_ns
        self._grid_shift_ns += pause_ns
        self._next_ns = now_ns
        self.scheduler.cancel_request()
        # A first chunk that was discarded is requested again from the first row on.
        self._fresh = self._fresh or self._follows is None
        self._commanded.start(target, now_ns)
        distance_m = float(np.linalg.norm(planned[:3] - target[:3]))
        angle_rad = angle_between(planned, target)
        if not self._settings.is_near(distance_m, angle_rad):
            self.end_reason = (
                f'the arm was moved by {distance_m:.3f} m and {angle_rad:.2f} rad during the pause: '
                'start the replay again'
            )

    def _check_blindness(self, now_s: float) -> None:
        if self._ended or self.approaching or self._run_out_reason:
            return
        if now_s > self._expected_s + self._settings.max_blind_s:
            late = f'no fresh chunk came within {self._settings.max_blind_s:g} s of its time'
            self._run_out(self._with_problem(late))

    def _run_out(self, reason: str) -> None:
        """Slows down along the path to a stop, and then ends the run with the reason."""
        self._worker.discard()
        self._run_out_reason = reason
        if not self.scheduler.run_out(self._seconds(self._next_ns)):
            self.end_reason = reason

    def _check_echoes(self, now_ns: int) -> None:
        silent_s = self._commanded.silent_s(now_ns, self._settings.period_ns)
        if self.end_reason is None and silent_s > self._settings.echo_timeout_s:
            self.end_reason = (
                f"the arm's driver refuses the commands: it accepted none for {silent_s:.2f} s; "
                'the log of ur5e_driver says why'
            )

    def _approach(self, policy: ReplayPolicy, target: Array, now_ns: int) -> None:
        """Schedules the move to the start of the recording as one long chunk."""
        row_s = self.scheduler.settings.period_s
        policy.reset()  # it may have been stopped in the middle of its recording
        first = policy.infer(Observation(0, policy.start_state))
        opening = float(first[gripper_key(self.embodiment)][0, 0])
        start = policy.start_state[self.embodiment.pose_part]
        trajectory = MinJerkTrajectory(target, row_s)
        trajectory.follow([MinJerkMove(start, opening, self._settings.replay_settle_s)])
        poses = []
        while not trajectory.done:
            trajectory.step()
            poses.append(trajectory.pose)
        now_s = self._seconds(now_ns)
        self.scheduler.add(np.array(poses), np.full(len(poses), opening), now_s, now_s)
        self._request_from_ns = now_ns + len(poses) * self._row_ns

    def _seconds(self, time_ns: int) -> float:
        return (time_ns - self._origin_ns) / 1e9

    def _observe(self, now_ns: int, task: str) -> Observation | ObservationUnavailable:
        if self.policy.spec.observes:
            return self._observation_builder.observe(now_ns, task)
        # The time of a row, so that no part of a row of a replay is lost or played twice.
        passed = (now_ns - self._grid_shift_ns - self._request_from_ns) // self._row_ns
        return Observation(self._request_from_ns + passed * self._row_ns, np.zeros(0), {}, task)

    def _request(self, now_ns: int, task: str) -> None:
        now_s = self._seconds(now_ns)
        if now_ns < self._request_from_ns or self._ended or self._worker.busy:
            return
        if not self.scheduler.wants_request(now_s):
            return
        if self.approaching:
            self.scheduler.flush(self._commanded.pose)
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
        """Adds for real-time chunking how much of the chunk of `follows_ns` will be executed."""
        settings = self.scheduler.settings
        observed_s = self._seconds(seen.tick_ns + self._grid_shift_ns)
        expected_s = now_s + self.scheduler.stats.latency_s(settings.latency_share) - observed_s
        seen.follows_ns = follows_ns
        seen.elapsed_steps = max(round((observed_s - began_s) / settings.period_s), 0)
        seen.frozen_steps = int(np.ceil(expected_s / settings.period_s))

    def _handle_result(self, result: InferenceResult, now_s: float) -> None:
        observed_s = self._seconds(result.observation.tick_ns + self._grid_shift_ns)
        spec = self.policy.spec
        try:
            decoded = self._decode(result, observed_s)
            self._check_offset(decoded.poses, observed_s, now_s)
        except InvalidActionError as error:
            self.scheduler.reply_lost(now_s)
            if str(error):
                self._problem = str(error)
                self._on_chunk(ChunkResult(result, problem=self._problem))
            return
        self._ended = spec.ends and len(decoded.poses) < spec.horizon
        next_s = self._seconds(self._next_ns)
        began_s = self.scheduler.add(
            decoded.poses, decoded.openings, observed_s, now_s, next_s, last=self._ended
        )
        if began_s is not None:
            self._follows = (result.observation.tick_ns, began_s)
            self._expected_s = self.scheduler.next_chunk_s()
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
        self._settings.check_speed(decoded.poses, self.scheduler.settings.period_s)
        return decoded

    def _check_offset(self, poses: Array, observed_s: float, now_s: float) -> None:
        """Refuses a chunk far from the present target; the third in a row ends the run."""
        distance_m, angle_rad = self.scheduler.offset(poses, observed_s, now_s)
        if self._settings.is_near(distance_m, angle_rad):
            self._far_chunks = 0
            return
        self._far_chunks += 1
        problem = (
            f'its first pose is {distance_m:.3f} m and {angle_rad:.2f} rad from the target '
            '(see max_chunk_offset_m and max_chunk_offset_rad)'
        )
        if self._far_chunks >= _MAX_FAR_CHUNKS:
            self._run_out(f'{self._far_chunks} chunks in a row were refused: {problem}')
        raise InvalidActionError(problem)

    def _step(self, tick_ns: int, measured: Array | None) -> Command | None:
        now_s = self._seconds(tick_ns)
        if self.scheduler.is_exhausted(now_s) and not self.approaching:
            self.done = self._ended and not self._run_out_reason
            self.end_reason = (
                '' if self.done else self._run_out_reason or self._with_problem('no chunk came in time')
            )
            return None
        pose, value = self.scheduler.sample(now_s + self.period_s, measured)
        self._sequence += 1
        delta = self._commanded.send(self._sequence, pose)
        # A replay repeats the recorded openings as they are.
        if self.policy.spec.observes and np.isfinite(value):
            value = self._gripper.decide(value)
        return Command(self._sequence, tick_ns, delta, float(value))

    def _with_problem(self, reason: str) -> str:
        return f'{reason}: {self._problem}' if self._problem else reason
