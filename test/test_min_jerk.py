# SPDX-License-Identifier: Apache-2.0
"""Minimum-jerk motions as deltas: they arrive, and never exceed their speed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groot_ros.control.limits import Limits
from groot_ros.control.min_jerk import MinJerkMove, MinJerkTrajectory
from groot_ros.geometry import angle_between, apply_delta
from groot_ros.sim.scripted_operator import PEAK_ROTATION_SPEED_RAD_S, PEAK_SPEED_M_S

START = np.array([0.0, -0.5, 0.3, 0, 1, 0, 0.0])
numbers = st.floats(-0.4, 0.4)


@given(st.tuples(numbers, numbers, numbers, numbers, numbers, numbers), st.floats(0, 0.3))
def test_deltas_add_up_to_the_pose_within_the_speed(delta, hold_s):
    end = apply_delta(START, np.array(delta))
    follower, pose, longest, period_s = MinJerkTrajectory(START, 0.025), START, 0.0, 0.025
    follower.follow([MinJerkMove(end, 0.3, hold_s)])
    for _ in range(1000):
        if follower.done:
            break
        step = follower.step()
        longest = max(longest, float(np.linalg.norm(step[:3])))
        pose = apply_delta(pose, step)
    assert follower.done
    assert follower.opening == 0.3
    np.testing.assert_allclose(pose[:3], end[:3], atol=1e-9)
    assert angle_between(pose, end) < 1e-6
    assert longest <= 0.15 * period_s * 1.01


def test_the_scripted_operator_is_faster_and_still_within_the_limits_of_the_driver():
    limits = Limits()
    assert limits.max_linear_speed_m_s > PEAK_SPEED_M_S
    assert limits.max_angular_speed_rad_s > PEAK_ROTATION_SPEED_RAD_S
    follower = MinJerkTrajectory(START, 0.025, PEAK_SPEED_M_S, PEAK_ROTATION_SPEED_RAD_S)
    follower.follow([MinJerkMove(apply_delta(START, np.array([0.3, 0, 0, 0, 0, 0.2])), 1.0)])
    steps = []
    while not follower.done:
        steps.append(follower.step())
    assert np.linalg.norm(np.array(steps)[:, :3], axis=1).max() / 0.025 == pytest.approx(0.24, rel=0.01)


def test_it_rests_when_done():
    follower = MinJerkTrajectory(START, 0.025)
    np.testing.assert_allclose(follower.step(), np.zeros(6), atol=1e-12)
