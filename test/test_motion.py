# SPDX-License-Identifier: Apache-2.0
"""The definition of idle: noise of an arm at rest is not motion, slow deliberate motion is."""

import numpy as np
import pytest

from groot_ros.quality.motion import command_changes, moves_linearly, turns

FPS = [10.0, 20.0, 30.0, 50.0]


@pytest.mark.parametrize('fps', FPS)
def test_speed_decides_whatever_the_frame_rate(fps):
    speeds = np.array([0.0, 0.9, 1.1])
    steps_m = np.outer(speeds * 0.005 / fps, [0.6, 0.0, 0.8])
    assert moves_linearly(steps_m, fps).tolist() == [False, False, True]
    steps_rad = np.outer(speeds * 0.02 / fps, [0.1, 0.0, -1.0])
    assert turns(steps_rad, fps).tolist() == [False, False, True]


@pytest.mark.parametrize('fps', FPS)
def test_one_count_of_gripper_noise_is_idle_and_its_slowest_stroke_is_not(fps):
    slowest_s = 0.020 / 0.085
    assert not command_changes(np.array([[1 / 255], [-1 / 255]]), fps).any()
    assert command_changes(np.array([[slowest_s / fps]]), fps).all()


def test_several_values_of_a_command_are_joints():
    assert command_changes(np.array([[0.0, 0.03 / 20]]), 20.0).all()


def test_missing_values_are_not_motion():
    missing = np.full((2, 3), np.nan)
    assert not moves_linearly(missing, 20.0).any()
    assert not turns(missing, 20.0).any()
    assert not command_changes(missing[:, :1], 20.0).any()
