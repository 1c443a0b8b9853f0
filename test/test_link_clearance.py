# SPDX-License-Identifier: Apache-2.0
"""Clearances of capsules, on numbers with a known truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groot_ros.control.link_clearance import LinkClearance, ToolCapsule, segment_distances
from groot_ros.ur5e_kinematics import DH_D_M, forward, joint_frames

HOME = np.deg2rad([-90, -90, -90, -90, 90, 0.0])
points = st.tuples(*[st.floats(-1, 1)] * 3).map(np.array)


@settings(deadline=None)
@given(points, points, points, points)
def test_the_distance_of_segments_is_that_of_their_nearest_points(a0, a1, b0, b1):
    shares = np.linspace(0, 1, 101)[:, None]
    first, second = a0 + shares * (a1 - a0), b0 + shares * (b1 - b0)
    sampled = np.linalg.norm(first[:, None] - second[None], axis=2).min()
    exact = segment_distances(a0[None], a1[None], b0[None], b1[None])[0]
    spacing = (np.linalg.norm(a1 - a0) + np.linalg.norm(b1 - b0)) / 100
    assert sampled - spacing - 1e-9 <= exact <= sampled + 1e-9


def test_the_last_joint_frame_leads_to_the_flange():
    for joints in np.random.default_rng(0).uniform(-3, 3, (50, 6)):
        frame = joint_frames(joints)[5]
        flange = frame[:3, :3] @ [0, 0, DH_D_M[5]] + frame[:3, 3]
        np.testing.assert_allclose(flange, forward(joints, np.zeros(6))[:3], atol=1e-12)


def with_floor(height_m):
    return np.array([-np.inf, -np.inf, height_m])


def test_the_clearance_from_the_floor_is_the_height_of_the_lowest_capsule():
    """The tool points down: its ball is lower than the flange by its distance from it and its radius."""
    joints = np.deg2rad([-90, -60, -120, -90, 90, 0.0])
    height_m = forward(joints, np.zeros(6))[2]
    ball = ToolCapsule('ball', (0.0, 0.0, 0.149), (0.0, 0.0, 0.15), 0.02)
    clearance_m, things = LinkClearance(with_floor(height_m - 0.2), tool=(ball,)).closest(joints)
    assert clearance_m == pytest.approx(0.2 - 0.15 - 0.02, abs=1e-9)
    assert things == 'ball and the floor'


def test_the_usual_home_pose_is_clear():
    assert LinkClearance().closest(HOME)[0] > 0.02


def test_the_elbow_keeps_from_a_wall_that_the_tcp_is_far_from():
    """Upright, the elbow is 0.425 m above the shoulder, and the upper arm has a radius of 0.065 m."""
    height_m = 0.1625 + 0.425
    ceiling = LinkClearance(max_m=np.array([np.inf, np.inf, height_m + 0.1]))
    clearance_m, things = ceiling.closest(HOME)
    assert clearance_m == pytest.approx(0.1 - 0.065, abs=1e-9)
    assert things == f'upper arm and the wall at z = {height_m + 0.1:g} m'


@pytest.mark.parametrize('plane', range(6))
def test_each_wall_is_kept_by_the_part_that_reaches_farthest_to_it(plane):
    """A wall at the bounding box of all parts that move leaves no clearance; the base does not count."""
    clearance = LinkClearance(np.full(3, -10.0), np.full(3, 10.0))
    distances_m = [
        value
        for index, value in enumerate(clearance.clearances(HOME)[: len(clearance._planes)])
        if clearance._planes[index][1] == plane
    ]
    walls = np.repeat([-10.0, 10.0], 3)
    walls[plane] += np.copysign(min(distances_m) - 0.001, -walls[plane])
    clearance_m, things = LinkClearance(walls[:3], walls[3:]).closest(HOME)
    assert clearance_m == pytest.approx(0.001, abs=1e-9)
    assert things.endswith('the floor' if plane == 2 else f'{"xyz"[plane % 3]} = {walls[plane]:g} m')
