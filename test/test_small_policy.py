# SPDX-License-Identifier: Apache-2.0
"""The small policy without torch: spec, targets, ranges, weights, and its place in the table of trainers."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from groot_ros.errors import GrootRosError
from groot_ros.geometry import absolute_9d, pose_to_eef_9d, relative_9d
from groot_ros.policies.checkpoint import read_checkpoint
from groot_ros.small_policy.spec import SPEC_FILE, ValueRange, image_height, spec_for
from groot_ros.small_policy.targets import (
    TRANSITION_WEIGHT,
    absolute_chunk,
    chunks_of,
    denormalised,
    is_two_valued,
    normalised,
    range_of,
    relative_chunks,
    sampling_weights,
    snapped,
    text_features,
)
from groot_ros.training.job import FinetuneJob
from groot_ros.training.preset import load_preset
from groot_ros.training.probe import Probe
from groot_ros.training.run import make_command


def random_poses(seed, count):
    """Poses (count, 9) as XYZ_ROT6D."""
    random = np.random.default_rng(seed)
    quaternions = Rotation.random(count, random_state=seed).as_quat()
    return pose_to_eef_9d(np.hstack([random.normal(size=(count, 3)), quaternions]))


@given(st.integers(0, 2**31))
def test_absolute_is_the_inverse_of_relative(seed):
    reference, *targets = random_poses(seed, 5)
    relatives = relative_9d(reference, np.array(targets))
    np.testing.assert_allclose(absolute_9d(reference, relatives), targets, atol=1e-9)


def test_a_chunk_at_the_end_of_an_episode_repeats_its_last_action():
    chunks = chunks_of(np.array([[0.0], [1.0], [2.0]]), 3)
    np.testing.assert_array_equal(chunks[:, :, 0], [[0, 1, 2], [1, 2, 2], [2, 2, 2]])


def test_chunks_return_from_the_frame_of_the_observed_pose():
    poses = random_poses(1, 6)
    chunks = chunks_of(np.hstack([poses, np.arange(6.0)[:, None]]), 4)
    relative = relative_chunks(poses, chunks)
    np.testing.assert_allclose(relative[:, 0, :3], 0, atol=1e-12)
    np.testing.assert_allclose(absolute_chunk(poses[2], relative[2]), chunks[2], atol=1e-9)


def test_a_range_is_minus_one_to_one_and_a_constant_is_zero():
    values = np.array([[[0.0, 5.0]], [[4.0, 5.0]], [[1.0, 5.0]]])
    limits = range_of(values)
    np.testing.assert_allclose(normalised(values, limits)[:, 0], [[-1, 0], [1, 0], [-0.5, 0]])
    np.testing.assert_allclose(denormalised(normalised(values, limits), limits), values)
    assert normalised(np.array([[7.0, 9.0]]), limits)[0, 1] == 0


def test_values_beyond_the_range_are_never_answered():
    limits = ValueRange(low=[[0.0]], high=[[2.0]])
    np.testing.assert_allclose(denormalised(np.array([[9.0], [-9.0]]), limits), [[2], [0]])


def test_a_two_valued_command_is_answered_as_one_of_its_values():
    assert is_two_valued(np.array([0.0, 1.0, 1.0]))
    assert not is_two_valued(np.array([0.0, 0.5, 1.0]))
    np.testing.assert_array_equal(snapped(np.array([0.1, 0.7, 2.0]), 0.0, 1.0), [0, 1, 1])


def test_rows_around_a_transition_of_the_gripper_are_drawn_more_often():
    chunks = chunks_of(np.array([[1.0], [1.0], [1.0], [0.0], [0.0]]), 2)
    np.testing.assert_array_equal(sampling_weights(chunks), [1, 1, TRANSITION_WEIGHT, 1, 1])


def test_texts_that_are_alike_have_features_that_are_alike():
    cube = text_features('Pick up the cube')
    assert np.linalg.norm(cube) == pytest.approx(1)
    np.testing.assert_array_equal(cube, text_features('pick  up the CUBE'))
    assert cube @ text_features('Pick up the cubes') > cube @ text_features('Open the drawer')


@pytest.mark.parametrize(('width', 'height', 'expected'), [(640, 480, 96), (640, 360, 80), (224, 224, 128)])
def test_images_keep_their_aspect_in_whole_tokens(width, height, expected):
    assert image_height(width, height) == expected


def test_with_pose_columns_the_policy_sees_and_answers_poses(embodiment):
    spec = spec_for(embodiment, 20, has_poses=True)
    assert [key.name for key in spec.state] == ['eef_9d', 'gripper_state']
    assert [key.name for key in spec.action] == ['eef_9d', 'gripper_command']
    assert spec.action_size == 10


def test_without_them_it_answers_the_action_and_sees_no_velocities(embodiment):
    spec = spec_for(embodiment, 20, has_poses=False)
    assert 'joint_velocities' not in [key.name for key in spec.state]
    assert spec.action_size == embodiment.action_size


def test_a_checkpoint_is_recognised_and_compared(embodiment, tmp_path):
    spec = spec_for(embodiment, 20, has_poses=True)
    (tmp_path / SPEC_FILE).write_text(spec.model_dump_json())
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.backend == 'small'
    assert checkpoint.mismatches(embodiment) == []
    (tmp_path / SPEC_FILE).write_text('{"format": "another"}')
    with pytest.raises(GrootRosError, match=SPEC_FILE):
        read_checkpoint(tmp_path)


def test_the_trainer_gets_the_values_of_the_preset(tmp_path):
    job = FinetuneJob(tmp_path, tmp_path / 'out', load_preset('small', steps=7), sys.executable, resume=True)
    arguments = make_command(job, Probe()).arguments
    assert arguments[arguments.index('--steps') + 1] == '7'
    assert arguments[1].endswith('run_training.py')
    assert '--resume' in arguments
