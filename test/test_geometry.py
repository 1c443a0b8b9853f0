# SPDX-License-Identifier: Apache-2.0
"""Poses and deltas: round trips, and the traps of rotations near pi."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from groot_ros.geometry import (
    angle_between,
    apply_delta,
    continuous_quaternions,
    deltas_between,
    integrate_deltas,
    interpolate_pose,
    matrix_from_pose,
    pose_from_matrix,
    pose_from_rotvec,
    rotvec_from_pose,
)

positions = st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(np.array)
rotvecs = st.lists(st.floats(-1.7, 1.7), min_size=3, max_size=3).map(np.array)
poses = st.tuples(positions, rotvecs).map(lambda pair: pose_from_rotvec(np.concatenate(pair)))
quaternions = poses.map(lambda pose: pose[3:])
quaternions = poses.map(lambda pose: pose[3:])
deltas = st.tuples(positions, rotvecs).map(lambda pair: np.concatenate([pair[0] * 0.1, pair[1] * 0.5]))


def same_attitude(a, b, tolerance=1e-9):
    return abs(abs(np.dot(a[3:], b[3:])) - 1) < tolerance


def test_delta_of_a_quarter_turn_about_base_z_is_applied_on_the_left():
    start = np.array([0.0, 0, 0, *Rotation.from_euler('x', 90, degrees=True).as_quat()])
    end = np.array(
        [
            0.1,
            0.2,
            0.3,
            *(
                Rotation.from_euler('z', 90, degrees=True) * Rotation.from_euler('x', 90, degrees=True)
            ).as_quat(),
        ]
    )
    np.testing.assert_allclose(
        deltas_between(np.array([start, end]))[0], [0.1, 0.2, 0.3, 0, 0, np.pi / 2], atol=1e-12
    )


@given(poses, st.lists(deltas, min_size=1, max_size=8))
def test_deltas_of_integrated_deltas_are_the_deltas(start, steps):
    path = integrate_deltas(start, np.array(steps))
    np.testing.assert_allclose(deltas_between(path), steps, atol=1e-9)


@given(poses, deltas)
def test_a_delta_and_its_inverse_lead_back(start, delta):
    there = apply_delta(start, delta)
    back = apply_delta(there, -delta)
    np.testing.assert_allclose(back[:3], start[:3], atol=1e-12)
    assert same_attitude(back, start)


@given(poses)
def test_rotation_vector_and_matrix_give_the_pose_back(pose):
    np.testing.assert_allclose(pose_from_rotvec(rotvec_from_pose(pose))[:3], pose[:3])
    assert same_attitude(pose_from_rotvec(rotvec_from_pose(pose)), pose)
    assert same_attitude(pose_from_matrix(matrix_from_pose(pose)), pose)


@given(poses, poses, st.floats(0, 1))
def test_interpolation_keeps_to_the_shorter_arc(start, end, share):
    between = interpolate_pose(start, end, share)
    total = angle_between(start, end)
    assert abs(angle_between(start, between) - share * total) < 1e-6
    np.testing.assert_allclose(between[:3], start[:3] + share * (end[:3] - start[:3]), atol=1e-12)


def test_noise_at_a_downward_tool_makes_small_deltas_and_no_sign_jumps():
    rng = np.random.default_rng(1)
    # As a controller reports them: no longer than pi, so that they jump between v and -v.
    rotvecs_near_pi = Rotation.from_rotvec(
        np.array([np.pi, 0, 0]) + rng.normal(0, 2e-4, (500, 3))
    ).as_rotvec()
    path = np.array([pose_from_rotvec([0, 0, 0, *vector]) for vector in rotvecs_near_pi])
    assert np.sum(np.sum(path[1:, 3:] * path[:-1, 3:], axis=1) < 0) > 50  # the trap is really there
    smooth = continuous_quaternions(path)
    assert np.all(np.sum(smooth[1:, 3:] * smooth[:-1, 3:], axis=1) > 0.99)
    assert np.abs(deltas_between(smooth)[:, 3:]).max() < 3e-3


@given(st.lists(poses, min_size=1, max_size=10))
def test_continuous_quaternions_change_nothing_but_signs(path):
    path = np.array(path)
    smooth = continuous_quaternions(path)
    np.testing.assert_array_equal(smooth[0], path[0])
    np.testing.assert_allclose(np.abs(smooth), np.abs(path))


@given(quaternions, quaternions)
def test_the_angle_between_two_poses_is_that_of_scipy(first, second):
    start = np.array([0.0, 0.0, 0.0, *first])
    end = np.array([1.0, 2.0, 3.0, *second])
    expected = (Rotation.from_quat(second) * Rotation.from_quat(first).inv()).magnitude()
    assert angle_between(start, end) == pytest.approx(expected, abs=1e-7)
    assert angle_between(start, np.array([*end[:3], *-end[3:]])) == pytest.approx(expected, abs=1e-7)


def test_a_quaternion_of_zeros_has_no_angle():
    with pytest.raises(ValueError, match='zeros'):
        angle_between(np.zeros(7), np.array([0, 0, 0, 0, 0, 0, 1.0]))
