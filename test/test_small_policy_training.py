# SPDX-License-Identifier: Apache-2.0
"""The small policy learns where a square is, resumes, and answers through its backend; needs torch."""

import numpy as np
import pytest

pytest.importorskip('torch')
pytest.importorskip('safetensors')

import torch

from groot_ros.errors import GrootRosError
from groot_ros.inference.backends.small import SmallBackend
from groot_ros.small_policy.checkpoint import WEIGHTS_FILE, load_checkpoint
from groot_ros.small_policy.episodes import TrainingData, with_ranges
from groot_ros.small_policy.spec import ActionSpec, CameraSpec, KeySpec, NetworkSpec, PolicySpec
from groot_ros.small_policy.targets import normalised, text_features
from groot_ros.small_policy.training_loop import LoopSettings, Training

SPEC = PolicySpec(
    embodiment='square', fps=20, horizon=4, relative=False, language='task',
    cameras=[CameraSpec(name='front', width=64, height=48)],
    state=[KeySpec(name='place', size=1)],
    action=[ActionSpec(name='move', size=2), ActionSpec(name='grip', size=1)],
    network=NetworkSpec(width=64, layers=2, context_layers=1),
)  # fmt: skip
TASK = 'go to the square'


def scene(column, row):
    """An image (48, 64, 3) with a red square."""
    image = np.full((48, 64, 3), 90, np.uint8)
    image[row : row + 8, column : column + 8] = (230, 30, 30)
    return image


def square_data(count=200, seed=0):
    """Squares at random places; the motion goes towards them, and the gripper closes on the right half."""
    random = np.random.default_rng(seed)
    columns = random.integers(0, 56, count)
    rows = random.integers(0, 40, count)
    goals = np.stack([columns / 560, rows / 400, columns > 28], axis=1).astype(float)
    goals[:, :2] -= 0.05
    chunks = np.repeat(goals[:, None], SPEC.horizon, axis=1)
    states = random.uniform(size=(count, 1))
    spec = with_ranges(SPEC, states, chunks)
    images = np.stack([scene(*place) for place in zip(columns, rows, strict=True)])
    return TrainingData(
        spec, {'front': images}, normalised(states[:, None], spec.state_range)[:, 0],
        normalised(chunks, spec.action_range), np.zeros(count, int), text_features(TASK)[None],
        np.ones(count),
    )  # fmt: skip


def settings(output, **changes):
    values = {'steps': 4, 'batch_size': 16, 'save_steps': 2, 'learning_rate': 1e-3, 'device': 'cpu'}
    return LoopSettings(output, **{**values, **changes})


@pytest.fixture(autouse=True)
def _few_threads():
    torch.set_num_threads(2)


def weights(folder):
    return (folder / WEIGHTS_FILE).read_bytes()


def test_a_resumed_run_ends_with_the_weights_of_one_that_was_not_interrupted(tmp_path):
    data = square_data(40)
    Training(data, settings(tmp_path / 'whole')).run()
    stopped = Training(data, settings(tmp_path / 'parts'))
    learn = stopped._learn

    def learn_and_interrupt():
        loss = learn()
        if stopped.step == 1:
            stopped._interrupt(2, None)
        return loss

    stopped._learn = learn_and_interrupt
    stopped.run()
    assert stopped.step == 2
    Training(data, settings(tmp_path / 'parts', resume=True)).run()
    assert weights(tmp_path / 'parts') == weights(tmp_path / 'whole')


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoint(tmp_path):
    data = square_data(40)
    Training(data, settings(tmp_path)).run()
    kept = weights(tmp_path)
    data.chunks[:] = np.nan
    with pytest.raises(GrootRosError, match='not a number at step'):
        Training(data, settings(tmp_path, steps=6, resume=True)).run()
    assert weights(tmp_path) == kept


def test_weights_of_another_network_are_refused(tmp_path):
    Training(square_data(40), settings(tmp_path)).run()
    spec_file = tmp_path / 'small_policy.json'
    spec_file.write_text(
        spec_file.read_text().replace('"layers":2', '"layers":3').replace('"layers": 2', '"layers": 3')
    )
    with pytest.raises(GrootRosError, match='does not have the weights'):
        load_checkpoint(tmp_path)


def test_it_learns_where_the_square_is(tmp_path):
    Training(square_data(), settings(tmp_path, steps=200, batch_size=32, save_steps=200)).run()
    backend = SmallBackend(*load_checkpoint(tmp_path), 'cpu', 'square')
    errors = []
    grips = []
    for column, row in [(5, 5), (45, 8), (10, 35), (50, 30), (25, 20)]:
        observation = {
            'video': {'front': scene(column, row)[None, None]},
            'state': {'place': np.full((1, 1, 1), 0.5, np.float32)},
            'language': {'task': [[TASK]]},
        }
        action, _ = backend.get_action(observation, None)
        assert action['move'].shape == (1, 4, 2)
        goal = [column / 560 - 0.05, row / 400 - 0.05]
        errors.append(np.abs(action['move'][0, 0] - goal).max())
        grips.append(action['grip'][0, 0, 0] == (column > 28))
    assert max(errors) < 0.02
    assert all(grips)
