# SPDX-License-Identifier: Apache-2.0
"""Waypoints read at 500 Hz."""

import numpy as np
import pytest

from groot_ros.control.setpoints import PoseTrajectory, SetpointGenerator
from groot_ros.geometry import angle_between, apply_delta

START = np.array([0.1, 0.2, 0.3, 0, 1, 0, 0.0])


def test_holds_before_and_after_and_moves_evenly_between():
    trajectory = PoseTrajectory(0.0, START)
    end = apply_delta(START, np.array([0.1, 0, 0, 0, 0, 0.2]))
    trajectory.append(1.0, 2.0, end)
    assert trajectory.sample(0.5) == pytest.approx(START)
    middle = trajectory.sample(1.5)
    assert middle[0] == pytest.approx(0.15)
    assert angle_between(START, middle) == pytest.approx(0.1)
    assert trajectory.sample(9.0) == pytest.approx(end)


def test_segments_that_touch_make_no_step():
    trajectory = PoseTrajectory(0.0, START)
    for k in range(5):
        trajectory.append(
            k * 0.05, (k + 1) * 0.05, apply_delta(START, np.array([0.01 * (k + 1), 0, 0, 0, 0, 0]))
        )
    xs = np.array([trajectory.sample(t)[0] for t in np.arange(0, 0.26, 0.002)])
    assert np.diff(xs).max() == pytest.approx(0.0004, rel=1e-6)


def test_a_segment_that_ends_before_the_last_one_is_refused():
    trajectory = PoseTrajectory(0.0, START)
    trajectory.append(0.0, 1.0, START)
    with pytest.raises(ValueError, match='cannot end'):
        trajectory.append(0.0, 0.9, START)


def test_set_points_are_the_trajectory_half_a_window_later():
    generator = SetpointGenerator(0.0, START, window_s=0.05, period_s=0.002)
    generator.append(0.0, 1.0, apply_delta(START, np.array([0.1, 0, 0, 0, 0, 0.4])))
    path = np.array([generator.advance(t) for t in np.arange(0, 1.2, 0.002)])
    assert path[250, 0] == pytest.approx(0.1 + 0.1 * (0.5 - 0.024), abs=1e-9)
    assert angle_between(START, path[250]) == pytest.approx(0.4 * (0.5 - 0.024), abs=1e-6)
    assert generator.resting


def test_a_stalled_loop_goes_on_where_it_stood_and_catches_up_within_reason():
    generator = SetpointGenerator(0.0, START, window_s=0.02, period_s=0.002)
    generator.append(0.0, 1.0, apply_delta(START, np.array([0.1, 0, 0, 0, 0, 0])))
    times = np.concatenate([np.arange(0, 0.3, 0.002), np.arange(0.4, 1.5, 0.002)])
    xs = np.array([generator.advance(t)[0] for t in times])
    assert np.diff(xs).max() <= 0.1 * 0.002 * 1.25 + 1e-12
    assert xs[-1] == pytest.approx(0.2)


def test_braking_ends_on_the_path_within_the_window():
    generator = SetpointGenerator(0.0, START, window_s=0.05, period_s=0.002)
    generator.append(0.0, 1.0, apply_delta(START, np.array([0.5, 0, 0, 0, 0, 0])))
    for t in np.arange(0, 0.5, 0.002):
        moving = generator.advance(t)
    rest = generator.brake()
    still = np.array([generator.advance(0.5 + t) for t in np.arange(0, 0.06, 0.002)])
    assert generator.resting
    np.testing.assert_allclose(still[-1], rest, atol=1e-12)
    assert moving[0] < still[-1, 0] < moving[0] + 0.5 * 0.05
    assert np.abs(np.diff(still[:, 0], 2)).max() / 0.002**2 <= 0.5 / 0.05 * 1.01


def test_quaternion_signs_do_not_matter():
    generator = SetpointGenerator(0.0, START, window_s=0.05, period_s=0.002)
    generator.append(0.0, 0.1, START * np.array([1, 1, 1, -1, -1, -1, -1]))
    for t in np.arange(0, 0.2, 0.002):
        assert angle_between(START, generator.advance(t)) < 1e-9
