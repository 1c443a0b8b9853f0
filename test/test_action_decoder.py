# SPDX-License-Identifier: Apache-2.0
"""The action decoder: actions in every representation give the poses that were recorded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groot_ros.embodiment import load_embodiment
from groot_ros.geometry import (
    deltas_between,
    integrate_deltas,
    pose_to_eef_9d,
    poses_from_9d,
    rotvec_from_pose,
)
from groot_ros.policies.action_decoder import InvalidActionError, decode_actions, gripper_key

EMBODIMENT = load_embodiment('ur5e_robotiq_zed')
GRIPPER = np.linspace(0, 1, 8)[:, None]


def recorded(seed):
    """Nine poses, neighbours less than half a turn apart."""
    rng = np.random.default_rng(seed)
    start = np.concatenate([rng.normal(size=3), rng.normal(size=4)])
    start[3:] /= np.linalg.norm(start[3:])
    return integrate_deltas(start, rng.uniform(-0.4, 0.4, (8, 6)))


def same(poses, wanted):
    np.testing.assert_allclose(poses[:, :3], wanted[:, :3], atol=1e-9)
    np.testing.assert_allclose(np.abs(np.sum(poses[:, 3:] * wanted[:, 3:], axis=1)), 1.0, atol=1e-9)


@given(st.integers(0, 200))
def test_deltas_and_absolute_poses_are_the_same_motion(seed):
    poses = recorded(seed)
    deltas = deltas_between(poses)
    forms = [
        {'delta_tcp_position': deltas[:, :3], 'delta_tcp_orientation': deltas[:, 3:]},
        {'eef_9d': pose_to_eef_9d(poses[1:])},
        {'eef_6d': np.array([rotvec_from_pose(pose) for pose in poses[1:]])},
    ]
    for form in forms:
        decoded = decode_actions({**form, 'gripper_command': GRIPPER}, EMBODIMENT, poses[0])
        same(decoded.poses, poses[1:])
        np.testing.assert_array_equal(decoded.openings, GRIPPER[:, 0])


@given(st.integers(0, 200))
def test_nine_numbers_are_a_pose_and_back(seed):
    poses = recorded(seed)
    same(poses_from_9d(pose_to_eef_9d(poses)), poses)


def test_a_model_without_a_gripper_leaves_it_alone():
    decoded = decode_actions({'eef_9d': pose_to_eef_9d(recorded(0))}, EMBODIMENT, recorded(0)[0])
    assert np.isnan(decoded.openings).all()


@pytest.mark.parametrize(
    ('action', 'reason'),
    [
        (
            {'delta_tcp_position': np.zeros((8, 3))},
            'the action delta_tcp_orientation is missing; the actions of the model are: delta_tcp_position',
        ),
        (
            {'delta_tcp_position': np.zeros((8, 3)), 'delta_tcp_orientation': np.zeros((7, 3))},
            'different numbers of steps',
        ),
        ({'eef_9d': np.zeros((8, 6))}, r'eef_9d has the shape \(8, 6\) where \(8, 9\)'),
        ({'eef_6d': np.full((8, 6), np.nan)}, 'eef_6d is NaN or infinite'),
    ],
)
def test_actions_that_must_not_be_executed_are_refused(action, reason):
    with pytest.raises(InvalidActionError, match=reason):
        decode_actions(action, EMBODIMENT, recorded(0)[0])


def test_a_robot_of_joints_gives_no_pose():
    joints = load_embodiment('so101_dualcam')
    assert gripper_key(joints) == 'gripper'
    with pytest.raises(InvalidActionError, match='has no delta actions of a TCP pose'):
        decode_actions({'single_arm': np.zeros((8, 5))}, joints, recorded(0)[0])


@pytest.mark.parametrize('spoil', ['zeros', 'one zero row', 'parallel rows', 'huge', 'text', 'no array'])
@pytest.mark.parametrize('key', ['eef_9d', 'eef_6d', 'delta_tcp_position', 'delta_tcp_orientation'])
def test_an_answer_that_is_no_motion_is_refused(key, spoil):
    """Numbers that are finite and yet no poses, such as those of an untrained model."""
    poses = recorded(0)
    size = {'eef_9d': 9, 'eef_6d': 6}.get(key, 3)
    action = {'delta_tcp_position': np.zeros((8, 3)), 'delta_tcp_orientation': np.zeros((8, 3))}
    action[key] = np.tile(pose_to_eef_9d(poses[:1])[0, :size], (8, 1)) / 10
    if spoil == 'zeros':
        action[key][:] = 0.0
    elif spoil == 'one zero row':
        action[key][3] = 0.0
    elif spoil == 'parallel rows':
        action[key][3, size // 3 :] = 1.0
    elif spoil == 'huge':
        action[key][3] = 1e160
    else:
        action[key] = np.array([['x'] * size] * 8) if spoil == 'text' else object()
    if size != 9 and spoil in ('zeros', 'one zero row', 'parallel rows'):
        assert np.isfinite(decode_actions(action, EMBODIMENT, poses[0]).poses).all()
        return
    with pytest.raises(InvalidActionError):
        decode_actions(action, EMBODIMENT, poses[0])


FINITE = st.sampled_from([0.0, 1.0, -1.0, 1e-300, 1e-160, 1e3, 1e160, 1e308, -1e308, 3.2])


@given(st.sampled_from(['eef_9d', 'eef_6d', 'deltas']), st.lists(FINITE, min_size=18, max_size=18))
def test_any_finite_answer_is_refused_or_gives_finite_poses(key, numbers):
    values = np.array(numbers)
    if key == 'deltas':
        deltas = values.reshape(3, 6)
        action = {'delta_tcp_position': deltas[:, :3], 'delta_tcp_orientation': deltas[:, 3:]}
    else:
        action = {key: values.reshape(-1, 9 if key == 'eef_9d' else 6)}
    try:
        decoded = decode_actions(action, EMBODIMENT, recorded(1)[0])
    except InvalidActionError:
        return
    assert np.isfinite(decoded.poses).all()
    np.testing.assert_allclose(np.linalg.norm(decoded.poses[:, 3:], axis=1), 1.0, atol=1e-9)
