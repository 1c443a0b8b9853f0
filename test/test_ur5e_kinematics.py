# SPDX-License-Identifier: Apache-2.0
"""The UR5e in closed form against UR's numbers, itself and finite differences."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from groot_ros.geometry import angle_between, deltas_between
from groot_ros.ur5e_kinematics import forward, inverse, jacobian

TCP = np.array([0, 0, 0.174, 0, 0, 0.0])
joints = st.lists(st.floats(-3, 3), min_size=6, max_size=6).map(np.array)
HOME = np.deg2rad([-90, -90, -90, -90, 90, 0.0])


def test_zero_angles_reach_where_the_dh_parameters_say():
    np.testing.assert_allclose(
        forward(np.zeros(6), np.zeros(6))[:3],
        [-0.425 - 0.3922, -0.1333 - 0.0996, 0.1625 - 0.0997],
        atol=1e-12,
    )


def test_home_is_found_again_though_several_wrist_solutions_meet_there():
    np.testing.assert_allclose(inverse(forward(HOME, TCP), HOME + 0.01, TCP), HOME, atol=1e-9)


@given(joints)
@example(np.array([-2.606997981559526, -2.606997981559526, 0.02, -1.5625, 0.0, 0.0]))  # a cosine of 1 - 7e-15
def test_inverse_reaches_the_pose_that_forward_gave(q):
    pose = forward(q, TCP)
    found = inverse(pose, q, TCP)
    assert found is not None
    reached = forward(found, TCP)
    assert np.linalg.norm(reached[:3] - pose[:3]) < 1e-7
    assert angle_between(reached, pose) < 1e-6


@given(joints)
def test_jacobian_is_the_derivative_of_forward(q):
    numeric = np.empty((6, 6))
    for joint in range(6):
        step = np.zeros(6)
        step[joint] = 1e-6
        numeric[:, joint] = (
            deltas_between(np.array([forward(q - step, TCP), forward(q + step, TCP)]))[0] / 2e-6
        )
    np.testing.assert_allclose(jacobian(q, TCP), numeric, atol=1e-6)


def test_a_pose_out_of_reach_has_no_solution():
    assert inverse(np.array([1.5, 0, 0.2, 0, 1, 0, 0.0]), HOME, TCP) is None
    assert inverse(np.array([0.01, 0.01, 0.3, 0, 1, 0, 0.0]), HOME, TCP) is None
