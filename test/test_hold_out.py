# SPDX-License-Identifier: Apache-2.0
"""Episodes that are held out from training: which they are, who trains without them, and their evaluation."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groot_ros.cli import finetune, held_out
from groot_ros.errors import GrootRosError
from groot_ros.policies import factory
from groot_ros.policies.builtin_policies import HoldPolicy
from groot_ros.training.dataset_checks import dataset_problems
from groot_ros.training.hold_out import choose_held_out
from groot_ros.training.job import FinetuneJob
from groot_ros.training.preset import load_preset
from groot_ros.training.probe import Probe
from groot_ros.training.receipt import begin_receipt, changed_since
from groot_ros.training.trainers import load_trainer

recordings = st.lists(st.integers(0, 10_000), min_size=2, max_size=60).filter(
    lambda all_of: len(set(all_of)) > 1
)
shares = st.floats(0.001, 1.0)


def meta_of(names):
    return SimpleNamespace(
        root='datasets/cube',
        episodes=[{'episode_index': index} for index in range(len(names))],
        conversion={'episodes': [{'sha256': str(name)} for name in names]},
    )


@given(recordings, shares)
def test_some_are_held_out_and_some_are_trained_on(names, share):
    chosen = choose_held_out(meta_of(names), share)
    assert 0 < len(chosen) < len(names)
    assert chosen == sorted(set(chosen))


@given(recordings, shares)
def test_the_episodes_of_one_recording_stay_together(names, share):
    chosen = choose_held_out(meta_of(names), share)
    held = {names[index] for index in chosen}
    trained = {name for index, name in enumerate(names) if index not in chosen}
    assert not held & trained


@given(recordings, st.lists(st.integers(20_000, 30_000), max_size=20), shares)
def test_a_dataset_that_grows_keeps_those_below_the_share(names, more, share):
    before = choose_held_out(meta_of(names), share)
    after = choose_held_out(meta_of(names + more), share)
    lowest = choose_held_out(meta_of(names), 1e-12)
    assert set(before) - set(lowest) <= set(after)


def test_the_share_is_about_what_was_asked_for():
    assert len(choose_held_out(meta_of(range(2000)), 0.1)) == pytest.approx(200, abs=40)


def test_nothing_is_held_out_unless_asked_for():
    assert choose_held_out(meta_of([1, 2, 3]), 0.0) == []


def test_a_dataset_of_one_recording_is_refused():
    with pytest.raises(GrootRosError, match='one recording only'):
        choose_held_out(meta_of([7, 7]), 0.5)


def job_for(dataset, tmp_path, preset, hold_out=0.5):
    return FinetuneJob(dataset, tmp_path / 'output', load_preset(preset), sys.executable, hold_out=hold_out)


def command_of(job):
    return load_trainer(job.preset.trainer).command(job, Probe(python='3.12')).arguments


def test_trainers_are_told_what_to_leave_out(dataset, tmp_path):
    job = job_for(dataset, tmp_path, 'small')
    words = command_of(job)
    held = [str(index) for index in job.held_out]
    assert held  # the dataset is of two recordings
    assert words[words.index('--without') + 1 :][: len(held)] == held
    trained = [record['episode_index'] for record in job.meta.episodes]
    trained = [index for index in trained if index not in job.held_out]
    assert f'--dataset.episodes={trained}' in command_of(job_for(dataset, tmp_path, 'lerobot_act'))
    assert '--without' not in command_of(job_for(dataset, tmp_path, 'small', 0.0))


@pytest.mark.parametrize(('preset', 'refused'), [('h100_80gb', True), ('small', False)])
def test_a_trainer_that_takes_every_episode_is_named(dataset, tmp_path, preset, refused):
    job = job_for(dataset, tmp_path, preset)
    checks = {problem.check for problem in dataset_problems(job, load_trainer(job.preset.trainer).TRAINER)}
    assert ('hold-out' in checks) == refused


def test_a_run_is_not_continued_with_others_held_out(dataset, tmp_path):
    job = job_for(dataset, tmp_path, 'small')
    receipt = vars(begin_receipt(job, Probe(python='3.12'), []))
    assert receipt['held_out'] == job.held_out
    assert changed_since(job, receipt) == []
    other = job_for(dataset, tmp_path, 'small', 0.0)
    assert changed_since(other, receipt) == ['the episodes that are held out']


def test_each_checkpoint_is_evaluated_on_what_was_held_out(dataset, tmp_path, monkeypatch, capsys):
    job = job_for(dataset, tmp_path, 'small')
    job.held_out = [0]
    for step in (20, 100):
        folder = job.output / 'checkpoints' / f'step_{step:07}'
        folder.mkdir(parents=True)
        (folder / 'small_policy.json').write_text('{}')
    opened = []

    def make(choice, embodiment, say):
        opened.append(choice.path)
        return HoldPolicy(embodiment)

    monkeypatch.setattr(
        'groot_ros.policies.checkpoint.read_matching_checkpoint', lambda *_: SimpleNamespace(backend='small')
    )
    monkeypatch.setattr(factory, 'make_policy', make)
    finetune._evaluate_held_out(job)
    assert [path.rpartition('/')[2] for path in opened] == ['step_0000020', 'step_0000100']
    written = json.loads((job.output / held_out.HELD_OUT_FILE).read_text())
    assert written['episodes'] == [0]
    assert len(written['checkpoints']) == 2
    assert np.isfinite(written['checkpoints'][0]['keys']['delta_tcp_position']['mae'])
    assert '1 episodes that were held out' in capsys.readouterr().out
