"""Waypoints read at 500 Hz."""

import numpy as np
import pytest

from groot_ros.control.interpolation import PoseTrajectory
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
        trajectory.append(k * 0.05, (k + 1) * 0.05, apply_delta(START, np.array([0.01 * (k + 1), 0, 0, 0, 0, 0])))
    xs = np.array([trajectory.sample(t)[0] for t in np.arange(0, 0.26, 0.002)])
    assert np.diff(xs).max() == pytest.approx(0.0004, rel=1e-6)


def test_a_segment_that_ends_before_the_last_one_is_refused():
    trajectory = PoseTrajectory(0.0, START)
    trajectory.append(0.0, 1.0, START)
    with pytest.raises(ValueError, match='cannot end'):
        trajectory.append(0.0, 0.9, START)
