# SPDX-License-Identifier: Apache-2.0
"""Closed loop in made-up time: statistics on known numbers, the judge of the task, and whole trials."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groot_ros.cli.main import main
from groot_ros.embodiment import load_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.inference.model_process import ModelSettings
from groot_ros.policies.builtin_policies import HoldPolicy, ScriptedPolicy
from groot_ros.policies.factory import PolicyChoice
from groot_ros.policies.observation_builder import ObservationBuilder
from groot_ros.policies.policy import Observation
from groot_ros.policies.success import (
    SuccessResult,
    TrialOutcome,
    best,
    comparison_lines,
    mcnemar_p,
    wilson_interval,
)
from groot_ros.sim.offline import evaluation
from groot_ros.sim.offline.cell import OfflineCell
from groot_ros.sim.offline.closed_loop import MadeUpWorker, MessageFeed, TrialSettings, run_trial
from groot_ros.sim.offline.evaluation import Candidate, EvaluationJob, evaluate_closed_loop
from groot_ros.sim.offline.expert_policy import ExpertPolicy
from groot_ros.sim.scene import BIN_CENTRE_M, HOME_JOINTS_RAD
from groot_ros.sim.task_judge import TaskJudge

START = np.array([-0.1, -0.48, 0.25, 0.0, 1.0, 0.0, 0.0])
CUBE = (-0.15, -0.5, 0.3)
BLACK = np.zeros((48, 64, 3), np.uint8)
NO_RENDERER = SimpleNamespace(width=64, height=48, render=lambda qpos, camera: BLACK)
IN_BIN = np.array([*BIN_CENTRE_M, 0.03, 0.0, 0.0, 0.0, 1.0])
ON_TABLE = np.array([-0.15, -0.5, 0.02, 0.0, 0.0, 0.0, 1.0])


@pytest.fixture(scope='module')
def offline():
    return OfflineCell()


def result(name, *times_s):
    outcomes = [TrialOutcome(time_s is not None, time_s, lifted=time_s is not None) for time_s in times_s]
    return SuccessResult(name, outcomes)


@pytest.mark.parametrize(
    ('successes', 'trials', 'low', 'high'),
    [
        (10, 10, 0.7225, 1.0),
        (0, 10, 0.0, 0.2775),
        (50, 100, 0.4038, 0.5962),
        (495, 500, 0.9768, 0.9957),
        (0, 0, 0.0, 1.0),
    ],
)
def test_the_interval_of_wilson_on_known_numbers(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 1000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_narrows_with_trials(counts):
    successes, trials = counts
    low, high = wilson_interval(successes, trials)
    assert 0.0 <= low <= successes / trials <= high <= 1.0
    more_low, more_high = wilson_interval(4 * successes, 4 * trials)
    assert more_high - more_low < high - low


def test_mcnemar_on_known_numbers():
    first = [True] * 10 + [False] * 2 + [True] * 30
    second = [False] * 10 + [True] * 2 + [True] * 30
    assert mcnemar_p(first, second) == pytest.approx(2 * (1 + 12 + 66) / 4096)
    assert mcnemar_p([True] * 3, [False] * 3) == 0.25
    assert mcnemar_p([True, False], [True, False]) == 1.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_mcnemar_is_symmetric_and_a_probability(pairs):
    first = [a for a, _ in pairs]
    second = [b for _, b in pairs]
    assert mcnemar_p(first, second) == mcnemar_p(second, first)
    assert 0.0 < mcnemar_p(first, second) <= 1.0


def test_the_policy_with_more_successes_is_deployed_and_of_equal_ones_the_faster():
    slow = result('slow', 9.0, 9.0, None)
    fast = result('fast', 5.0, None, 5.0)
    sure = result('sure', 12.0, 12.0, 12.0)
    assert best([slow, fast]) is fast
    assert best([slow, fast, sure]) is sure


def test_a_comparison_says_how_sure_it_is():
    good = result('good', *[8.0] * 12)
    bad = result('bad', *[None] * 12)
    close = result('close', None, *[9.0] * 11)
    lines = comparison_lines([bad, good, close])
    assert lines[0] == 'Deploy good.'
    assert 'better than bad' in lines[1]
    assert 'not shown to differ from close' in lines[2]
    assert comparison_lines([good]) == []


def test_a_summary_has_share_interval_times_and_why_trials_failed():
    outcomes = [
        TrialOutcome(True, 8.0, True),
        TrialOutcome(True, 10.0, True),
        TrialOutcome(False, None, True),
        TrialOutcome(False, None, False, 'no chunk came in time'),
    ]
    text = '\n'.join(SuccessResult('small', outcomes).summary_lines())
    assert 'small: 50.0 % (2 of 4), 95 % interval 15.0 % to 85.0 %' in text
    assert 'median 9.0 s' in text
    assert 'failed 1 times: the cube was not lifted; no chunk came in time' in text


def test_the_cube_is_placed_once_it_rests_in_the_bin_with_open_fingers():
    judge = TaskJudge()
    judge.watch(0.0, ON_TABLE, 1.0)
    judge.watch(1.0, IN_BIN, 0.4)
    judge.watch(2.0, IN_BIN, 1.0)
    judge.watch(2.1, ON_TABLE, 1.0)
    judge.watch(2.2, IN_BIN, 1.0)
    judge.watch(2.4, IN_BIN, 1.0)
    assert judge.success_s is None
    assert not judge.lifted
    judge.watch(2.46, IN_BIN, 1.0)
    assert judge.success_s == 2.2


def test_a_cube_above_the_table_is_lifted():
    judge = TaskJudge()
    raised = ON_TABLE.copy()
    raised[2] += 0.06
    judge.watch(0.0, raised, 0.4)
    assert judge.lifted


def test_an_answer_arrives_after_its_latency(embodiment):
    now_s = [1.0]
    worker = MadeUpWorker(HoldPolicy(embodiment), 0.1, lambda: now_s[0])
    worker.submit(Observation(0, np.zeros(0)))
    now_s[0] = 1.05
    assert worker.poll() is None
    assert worker.busy
    now_s[0] = 1.1
    assert worker.poll().replied_s == pytest.approx(1.1)
    assert not worker.busy
    worker.submit(Observation(0, np.zeros(0)))
    worker.discard()
    assert not worker.busy


def test_the_time_of_computing_is_not_limited_by_made_up_time(embodiment):
    policy = HoldPolicy(embodiment)
    limits_s = []
    policy.infer = lambda observation: limits_s.append(observation.reply_timeout_s) or {}
    MadeUpWorker(policy, 0.1, lambda: 0.0).submit(Observation(0, np.zeros(0), reply_timeout_s=0.05))
    assert limits_s == [np.inf]


def test_a_frame_is_seen_with_the_delay_of_the_camera_and_the_rows_around_it(offline, embodiment):
    offline.reset(START, CUBE, HOME_JOINTS_RAD)
    builder = ObservationBuilder(embodiment, observation_indices=(-1, 0), period_s=0.05)
    feed = MessageFeed(offline, embodiment, NO_RENDERER, builder)
    feed.step()
    for _ in range(208):
        offline.advance()
        feed.step()
    seen = builder.observe(offline.now_ns, 'task')
    assert offline.now_ns - seen.tick_ns == 66_000_000
    assert seen.state[embodiment.pose_part][:3] == pytest.approx(START[:3], abs=1e-4)
    assert seen.images['zed_camera'].shape == (480, 640, 3)
    assert seen.at(-1).tick_ns == seen.tick_ns - 50_000_000


@pytest.mark.parametrize('latency_s', [0.0, 0.2])
def test_the_expert_places_the_cube(offline, latency_s):
    embodiment = load_embodiment('ur5e_robotiq_zed_wrist')
    policy = ExpertPolicy(offline, embodiment)
    settings = TrialSettings(latency_s=latency_s)
    outcome = run_trial(offline, policy, embodiment, NO_RENDERER, settings, 0)
    assert outcome.success
    assert 5.0 < outcome.time_s < 15.0
    again = run_trial(offline, policy, embodiment, NO_RENDERER, settings, 0)
    assert again == outcome


def test_a_policy_that_does_nothing_lifts_nothing(offline, embodiment):
    settings = TrialSettings(time_limit_s=1.0)
    outcome = run_trial(offline, HoldPolicy(embodiment), embodiment, NO_RENDERER, settings, 3)
    assert outcome == TrialOutcome(False, None, False, '')


def test_a_policy_that_crashes_ends_its_trial_with_the_reason(offline, embodiment):
    policy = ScriptedPolicy(embodiment, 'crashing', after=1)
    outcome = run_trial(offline, policy, embodiment, NO_RENDERER, TrialSettings(), 0)
    assert not outcome.success
    assert 'crashed' in outcome.reason


def test_starts_differ_by_trial_and_not_by_policy(offline, embodiment):
    starts = []
    for number in (0, 1, 0):
        settings = TrialSettings(time_limit_s=0.01)
        run_trial(offline, HoldPolicy(embodiment), embodiment, NO_RENDERER, settings, number)
        starts.append([*offline.measured, *offline.physics.cube_pose])
    assert starts[0] == starts[2]
    assert starts[0] != starts[1]


def test_an_embodiment_that_the_cell_cannot_serve_is_refused():
    job = EvaluationJob(Candidate('expert', None), load_embodiment('ur5e_ros2_drivers'))
    with pytest.raises(GrootRosError, match='simulated cell has'):
        evaluate_closed_loop(job, 1)


class ServedModel:
    """Stands for the process of a model."""

    def __init__(self):
        self.settings = ModelSettings('small', 'checkpoint')
        self.port = 4321
        self.token = 'secret'
        self.waited = 0
        self.closed = 0

    def wait(self):
        self.waited += 1

    def close(self):
        self.closed += 1


def test_all_workers_share_one_model_server(monkeypatch, embodiment):
    started = []
    made = []

    def start_model(choice, embodiment, on_line):
        started.append(ServedModel())
        return started[-1]

    def make_policy(choice, embodiment, on_line, token_host, token):
        made.append((choice.backend, choice.host, choice.port, token_host, token))
        return HoldPolicy(embodiment)

    monkeypatch.setattr(evaluation, 'start_model', start_model)
    monkeypatch.setattr(evaluation, 'make_policy', make_policy)
    monkeypatch.setattr(evaluation, 'SceneRenderer', lambda: NO_RENDERER)
    choice = PolicyChoice('small', 'checkpoint')
    job = EvaluationJob(Candidate('small', choice), embodiment, TrialSettings(time_limit_s=0.01))
    assert evaluate_closed_loop(job, 2).outcomes
    assert made == [('remote', '127.0.0.1', 4321, '127.0.0.1', 'secret')]
    assert [(model.waited, model.closed) for model in started] == [(1, 1)]


def test_the_command_prints_success_and_which_policy_to_deploy(tmp_path):
    arguments = ['--closed-loop', 'expert', '--trials', '2', '--workers', '2', '--seed', '5']
    command = [sys.executable, '-m', 'groot_ros.cli', 'evaluate', *arguments]
    command += ['--embodiment', 'ur5e_robotiq_zed_wrist', '--json', str(tmp_path / 'result.json')]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'expert: 100.0 % (2 of 2)' in done.stdout
    document = json.loads((tmp_path / 'result.json').read_text())
    assert document['deploy'] == 'expert'
    assert document['policies'][0]['trials'] == 2


def test_without_a_dataset_and_without_a_policy_the_way_out_is_told(capsys):
    assert main(['evaluate']) == 1
    assert 'after --closed-loop' in capsys.readouterr().err


def test_a_policy_that_is_neither_a_folder_nor_an_address_is_refused(capsys):
    assert main(['evaluate', '--closed-loop', 'expert', 'nothing']) == 1
    assert 'nothing is neither the folder of a checkpoint' in capsys.readouterr().err
