# SPDX-License-Identifier: Apache-2.0
"""The policy runner in made-up time: faults, limits, pauses and swaps of the policy."""

import numpy as np
import pytest

from groot_ros.embodiment import load_embodiment
from groot_ros.errors import PolicyError
from groot_ros.geometry import angle_between, apply_delta
from groot_ros.policies.builtin_policies import FAULTS, HoldPolicy, ScriptedPolicy
from groot_ros.policies.chunk_scheduler import ScheduleSettings
from groot_ros.policies.inference_worker import InferenceResult
from groot_ros.policies.observation_builder import ObservationBuilder
from groot_ros.policies.policy_runner import PolicyRunner, RunnerSettings
from groot_ros.policies.replay_policy import ReplayPolicy

EMBODIMENT = load_embodiment('ur5e_robotiq_zed')
ROW_NS = round(1e9 / EMBODIMENT.fps)
START = np.array([0.3, -0.4, 0.2, 0.0, 1.0, 0.0, 0.0])
TIMEOUT_NS = 300_000_000


class MadeUpWorker:
    """An InferenceWorker whose results arrive a fixed latency after the request, in the time of the test."""

    def __init__(self, policy, latency_ns: int = 60_000_000) -> None:
        self.policy = policy
        self.latency_ns = latency_ns
        self.now_ns = 0
        self.asked = []
        self._due_ns = 0
        self._answer = None
        self.busy_until_ns = 0

    @property
    def busy(self):
        return self._answer is not None or self.now_ns < self.busy_until_ns

    def submit(self, observation, reset=False):
        if reset:
            self.policy.reset()
        self.asked.append(observation)
        hangs = self.policy.spec.name in ('scripted hanging', 'scripted late') and len(self.asked) > 5
        action = {}
        problem = f'{self.policy.spec.name} gave no answer' if hangs else ''
        try:
            action = {} if hangs else self.policy.infer(observation)
        except PolicyError as error:
            problem = str(error)
        self._answer = InferenceResult(observation, self.now_ns / 1e9, 0.0, action, problem)
        self._due_ns = self.now_ns + (TIMEOUT_NS if hangs else self.latency_ns)
        if hangs:
            self.busy_until_ns = self.now_ns + 30_000_000_000

    def poll(self):
        if self._answer is None or self.now_ns < self._due_ns:
            return None
        answer, self._answer = self._answer, None
        return answer

    def discard(self):
        self._answer = None


class Run:
    """A runner, its clock, and the pose that its commands lead to."""

    def __init__(self, policy, latency_ns=60_000_000, command_ns=ROW_NS, **schedule) -> None:
        self.worker = MadeUpWorker(policy, latency_ns)
        self.chunks = []
        self.commands = []
        settings = ScheduleSettings(ROW_NS / 1e9, **{'stop_distance_m': 0.01, **schedule})
        self.runner = PolicyRunner(
            self.worker,
            ObservationBuilder(EMBODIMENT),
            settings,
            RunnerSettings(command_ns),
            self.chunks.append,
        )
        self.now_ns = 1_000_000_000
        self.pose = START
        self.runner.begin(START, self.now_ns)

    def go_on(self, seconds, until=lambda: False):
        for _ in range(round(seconds / 0.002)):
            self.worker.now_ns = self.now_ns
            for command in self.runner.tick(self.now_ns, None):
                self.commands.append(command)
                self.pose = apply_delta(self.pose, command.delta)
            self.runner.poll(self.now_ns, 'go on')
            if self.runner.end_reason is not None or until():
                break
            self.now_ns += 2_000_000
        return self

    @property
    def steps_m(self):
        return np.linalg.norm([command.delta[:3] for command in self.commands], axis=1)


def test_commands_are_on_the_time_grid_whenever_it_is_polled():
    run = Run(ScriptedPolicy(EMBODIMENT)).go_on(2.0)
    ticks = np.array([command.tick_ns for command in run.commands])
    np.testing.assert_array_equal(np.diff(ticks), ROW_NS)
    assert [command.sequence for command in run.commands] == list(range(1, len(ticks) + 1))
    # 2 mm a row, from the first chunk on.
    assert run.pose[0] - START[0] == pytest.approx(0.002 * (2.0 - 0.06) / (ROW_NS / 1e9), abs=0.004)


REASONS = {
    'late': 'gave no answer',
    'hanging': 'gave no answer',
    'empty': 'it gave no step',
    'not_a_number': 'is NaN or infinite',
    'jumping': 'moves at',
    'shape': 'has the shape',
    'crashing': 'crashed, as it was asked to',
}


@pytest.mark.parametrize('fault', [fault for fault in FAULTS if fault])
def test_every_fault_ends_at_rest_with_its_reason(fault):
    run = Run(ScriptedPolicy(EMBODIMENT, fault)).go_on(10.0)
    assert run.runner.end_reason is not None
    assert run.runner.end_reason.startswith('no chunk came in time: ')
    assert REASONS[fault] in run.runner.end_reason
    assert not run.runner.done
    assert all(chunk.decoded is None or np.isfinite(chunk.decoded.poses).all() for chunk in run.chunks)
    # No step is longer than one of the policy's, and the last ones become shorter: it runs out.
    assert run.steps_m.max() <= 0.002 + 1e-9
    assert run.steps_m[-1] < 0.001 < run.steps_m[len(run.steps_m) // 2]
    run.runner.halt()
    busy = f'scripted {fault} still works on an earlier request' if fault in ('late', 'hanging') else ''
    assert run.runner.blocking_reason(run.now_ns) == busy


def test_an_unavailable_policy_may_not_begin():
    policy = HoldPolicy(EMBODIMENT)
    policy.unavailable_reason = lambda: 'the model is being started again'
    assert Run(policy).runner.blocking_reason(0) == 'the model is being started again'


def test_what_a_limit_takes_away_is_not_asked_for_again():
    """If half of each command passes, the next one starts from the pose that was reached."""
    whole = Run(ScriptedPolicy(EMBODIMENT))
    halved = Run(ScriptedPolicy(EMBODIMENT))
    for run in (whole, halved):
        run.let = START
        for _ in range(200):
            known = len(run.commands)
            run.go_on(0.01)
            for command in run.commands[known:]:
                accepted = command.delta / (2 if run is halved else 1)
                run.let = apply_delta(run.let, accepted)
                run.runner.apply_correction(command.sequence, accepted)
    moved = whole.let[0] - START[0]
    half = halved.let[0] - START[0]
    assert moved > 0.05
    # The target moves at the pace of the policy, so each command adds what is still missing.
    assert half == pytest.approx(moved, abs=0.01)


def test_a_rotation_that_was_refused_is_removed_from_the_target():
    run = Run(HoldPolicy(EMBODIMENT)).go_on(0.2)
    run.runner._commanded = apply_delta(START, np.array([0, 0, 0, 0, 0, 0.2]))
    run.runner._sent[99] = np.array([0, 0, 0, 0, 0, 0.2])
    run.runner.apply_correction(99, np.zeros(6))
    assert angle_between(run.runner._commanded, START) < 1e-9


def test_after_a_pause_it_goes_on_from_where_the_arm_was_left():
    run = Run(ScriptedPolicy(EMBODIMENT)).go_on(1.0)
    run.runner.halt()
    elsewhere = START + np.array([0, 0.1, 0, 0, 0, 0, 0])
    run.now_ns += 5_000_000_000
    before = len(run.commands)
    resumed_ns = run.now_ns
    run.runner.resume(elsewhere, resumed_ns)
    run.pose = elsewhere
    run.go_on(1.0)
    resumed = run.commands[before:]
    assert resumed[0].tick_ns == resumed_ns
    assert max(np.linalg.norm(command.delta[:3]) for command in resumed) <= 0.002 + 1e-9
    assert run.pose[1] == pytest.approx(elsewhere[1], abs=1e-9)
    assert run.pose[0] > elsewhere[0] + 0.02


def test_another_policy_takes_over_between_two_chunks_without_a_stop():
    run = Run(ScriptedPolicy(EMBODIMENT)).go_on(1.0)
    first = run.worker
    other = MadeUpWorker(ScriptedPolicy(EMBODIMENT))
    other.policy._moving_key = 'delta_tcp_orientation'
    other.now_ns = run.now_ns
    assert run.runner.swap_policy(other) is first
    run.worker = other
    run.go_on(1.5)
    assert run.runner.end_reason is None
    assert len(other.asked) >= 2
    assert angle_between(run.pose, START) > 0.02
    assert run.steps_m.max() <= 1.1 * 0.002


def test_a_policy_that_continues_receives_the_number_of_executed_steps():
    policy = ScriptedPolicy(EMBODIMENT)
    policy.spec.continues = True
    run = Run(policy, latency_ns=100_000_000).go_on(3.0)
    first, *others = run.worker.asked
    assert first.follows_ns is None
    assert len(others) > 2
    for before, after in zip(run.worker.asked, others, strict=False):
        assert after.follows_ns == before.tick_ns
        assert 2 <= after.frozen_steps <= 1 + np.ceil(0.1 / (ROW_NS / 1e9))


@pytest.mark.parametrize('latency_ns', [0, 60_000_000, 250_000_000])
@pytest.mark.parametrize('command_hz', [0, 100])
def test_a_replay_comes_to_where_the_recording_ended(converted, latency_ns, command_hz):
    policy = ReplayPolicy(converted, 0, EMBODIMENT)
    run = Run(policy, latency_ns, round(1e9 / command_hz) if command_hz else ROW_NS)
    run.go_on(30.0)
    assert (run.runner.end_reason, run.runner.done) == ('', True)
    expected = policy.start_state[EMBODIMENT.pose_part]
    for action in policy.actions:
        expected = apply_delta(expected, action[:6])
    np.testing.assert_allclose(run.pose[:3], expected[:3], atol=1e-5)
    assert angle_between(run.pose, expected) < 1e-4
