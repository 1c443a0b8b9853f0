# SPDX-License-Identifier: Apache-2.0
"""One trial of a policy in the offline cell, through the real observation builder, runner and scheduler."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from groot_ros.control.command_gate import POLICY
from groot_ros.embodiment import Embodiment
from groot_ros.policies.chunk_scheduler import ScheduleSettings
from groot_ros.policies.inference_worker import InferenceResult
from groot_ros.policies.observation_builder import ObservationBuilder
from groot_ros.policies.policy import Observation, Policy
from groot_ros.policies.policy_runner import PolicyRunner
from groot_ros.policies.runner_settings import RunnerSettings
from groot_ros.policies.success import TrialOutcome
from groot_ros.sim.offline.cell import STEP_NS, OfflineCell
from groot_ros.sim.offline.recording import FrameClock
from groot_ros.sim.offline.topics import ImageMessage, state_message
from groot_ros.sim.rendering import SceneRenderer
from groot_ros.sim.scene import HOME_JOINTS_RAD
from groot_ros.sim.scripted_operator import TASK, random_cube, random_start
from groot_ros.sim.task_judge import TaskJudge

# Keeps the random numbers of evaluations apart from those of demonstrations with the same seed.
_STREAM = 2
_WARM_UP_S = 0.5
_STOPPED_S = 1.0
# From the exposure of a frame to its arrival, as measured with the live cell.
_FRAME_DELAY_S = 0.02
_STEPS_A_POLL = 5
# The delay of the simulated arm, as in the parameters of policy_server.
_ARM_LATENCY_S = 0.13


@dataclass(frozen=True)
class TrialSettings:
    """How trials are run; times in s.

    `latency_s` is added to every answer of the policy, whose own time of computing does not count. The two
    last ones are the parameters of policy_server of the same names.
    """

    seed: int = 0
    latency_s: float = 0.0
    time_limit_s: float = 30.0
    n_action_steps: int = 0
    inference_interval_s: float = 0.4


class MadeUpWorker:
    """Plays InferenceWorker in made-up time: the policy answers at once, and the answer waits `latency_s`."""

    def __init__(self, policy: Policy, latency_s: float, clock_s: Callable[[], float]) -> None:
        self.policy = policy
        self._latency_s = latency_s
        self._clock_s = clock_s
        self._pending: InferenceResult | None = None

    @property
    def busy(self) -> bool:
        """Whether an answer is expected."""
        return self._pending is not None

    def submit(self, observation: Observation, reset: bool = False) -> None:
        """Requests an inference; with `reset` the policy is reset before it."""
        now_s = self._clock_s()
        action = {}
        problem = ''
        try:
            if reset:
                self.policy.reset()
            # The runner bounds the answer by made-up time, and the policy computes in real time.
            observation.reply_timeout_s = np.inf
            action = self.policy.infer(observation)
        except Exception as error:  # a model may raise anything, and a trial goes on as a run would
            problem = str(error) or type(error).__name__
        self._pending = InferenceResult(observation, now_s, now_s + self._latency_s, action, problem)

    def poll(self) -> InferenceResult | None:
        """The answer, once, when its time has come."""
        result = self._pending
        if result is None or self._clock_s() < result.replied_s:
            return None
        self._pending = None
        return result

    def discard(self) -> None:
        """Drops the answer that is under way; it never arrives."""
        self._pending = None


class MessageFeed:
    """Gives an observation builder what the topics of the cell would, with the delay of a camera's frame."""

    def __init__(
        self, cell: OfflineCell, embodiment: Embodiment, renderer: SceneRenderer, builder: ObservationBuilder
    ) -> None:
        self._cell = cell
        self._embodiment = embodiment
        self._renderer = renderer
        self._builder = builder
        self._clock = FrameClock(embodiment.fps, cell.steps)
        self._delay_ns = round(_FRAME_DELAY_S * 1e9)
        self._on_the_way: deque[tuple[int, str, Any]] = deque()

    def step(self) -> None:
        """Call it after every step of the cell, and once before the first."""
        if self._clock.due(self._cell.steps):
            self._take_messages()
        while self._on_the_way and self._on_the_way[0][0] + self._delay_ns <= self._cell.now_ns:
            stamp_ns, topic, message = self._on_the_way.popleft()
            self._builder.add(topic, stamp_ns, message)

    def _take_messages(self) -> None:
        now_ns = self._cell.now_ns
        for topic in self._embodiment.sampled_topics:
            self._on_the_way.append((now_ns, topic, state_message(self._cell, topic)))
        for camera in self._embodiment.cameras:
            message = ImageMessage(self._cell, camera, self._renderer)
            self._on_the_way.append((now_ns, camera.topic, message))


class Trial:
    """One run of a policy from the start that belongs to a seed and a number."""

    def __init__(
        self,
        cell: OfflineCell,
        policy: Policy,
        embodiment: Embodiment,
        renderer: SceneRenderer,
        settings: TrialSettings,
    ) -> None:
        self._cell = cell
        self._settings = settings
        self._judge = TaskJudge()
        period_s = policy.period_s(embodiment)
        builder = ObservationBuilder(
            embodiment, observation_indices=policy.spec.observation_indices, period_s=period_s
        )
        self._feed = MessageFeed(cell, embodiment, renderer, builder)
        self._runner = PolicyRunner(
            MadeUpWorker(policy, settings.latency_s, lambda: cell.now_s),  # type: ignore[arg-type]
            builder,
            ScheduleSettings(
                period_s,
                n_action_steps=settings.n_action_steps,
                inference_interval_s=settings.inference_interval_s,
                robot_action_latency_s=_ARM_LATENCY_S,
            ),
            RunnerSettings(round(period_s * 1e9)),
            lambda chunk: None,
        )

    def run(self) -> TrialOutcome:
        """Runs until the cube is placed, the time limit, or 1 s after the run of the policy has ended."""
        self._feed.step()
        self._rest(_WARM_UP_S)
        began_s = self._cell.now_s
        self._runner.begin(self._cell.gate.target, self._cell.now_ns)
        end_s = began_s + self._settings.time_limit_s
        while self._judge.success_s is None and self._runner.end_reason is None and self._cell.now_s < end_s:
            self._control()
            self._advance(_STEPS_A_POLL)
        reason = self._runner.end_reason or ''
        if self._judge.success_s is None and self._runner.end_reason is not None:
            self._cell.stop('the policy ended')
            self._rest(_STOPPED_S)
        return self._outcome(began_s, reason)

    def _outcome(self, began_s: float, reason: str) -> TrialOutcome:
        success_s = self._judge.success_s
        if success_s is None:
            return TrialOutcome(False, None, self._judge.lifted, reason)
        return TrialOutcome(True, success_s - began_s, self._judge.lifted)

    def _control(self) -> None:
        """What policy_server does in a tick of its timer."""
        cell = self._cell
        for command in self._runner.tick(cell.now_ns, cell.measured):
            target = cell.command(
                POLICY, command.sequence, command.delta, self._runner.period_s, command.opening
            )
            if target is not None:
                self._runner.apply_echo(command.sequence, target)
        self._runner.poll(cell.now_ns, TASK)

    def _rest(self, duration_s: float) -> None:
        self._advance(round(duration_s * 1e9 / STEP_NS))

    def _advance(self, steps: int) -> None:
        for _ in range(steps):
            self._cell.advance()
            self._feed.step()
        self._judge.watch(self._cell.now_s, self._cell.physics.cube_pose, self._cell.opening)


def run_trial(
    cell: OfflineCell,
    policy: Policy,
    embodiment: Embodiment,
    renderer: SceneRenderer,
    settings: TrialSettings,
    number: int,
) -> TrialOutcome:
    """Runs a policy from the start of a trial, which depends on the seed and its number only."""
    rng = np.random.default_rng([_STREAM, settings.seed, number])
    start = random_start(rng)
    cell.reset(start, random_cube(rng), HOME_JOINTS_RAD)
    return Trial(cell, policy, embodiment, renderer, settings).run()
