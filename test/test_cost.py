# SPDX-License-Identifier: Apache-2.0
"""What is done at each message is bounded, counted in calls of functions: the same on every computer.

The robot's states come 125 times a second. When their checks had grown to several times of this, a computer
with two cores lost states, and the arm stopped.
"""

import sys

import numpy as np
import pytest

from benchmark.made_up_cell import Source, enabled, made_up_cell
from groot_ros.control.command_gate import TELEOP
from groot_ros.embodiment import load_embodiment
from groot_ros.hardware.ur5e.record_check import read_beat, read_state

VELOCITY = np.array([0.05, 0.02, 0.0, 0.0, 0.0, 0.1])
# A third more than there are now: 138, 67 and 93. A state took 297 when states were lost, a beat 138.
STATE_CALLS = 185
BEAT_CALLS = 90
TICK_CALLS = 125


def calls_of(work) -> int:
    """How many functions, of Python and of C, are called."""
    count = 0

    def look(frame, event, argument):
        nonlocal count
        count += event in ('call', 'c_call')

    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.fixture
def moving():
    """A cell whose arm has followed a source for a second."""
    with made_up_cell() as cell:
        enabled(cell)
        source = Source(cell, TELEOP, 20.0)
        source.move(VELOCITY, 1.0)
        yield cell, source


def take_state(cell) -> int:
    state = cell.robot.state().tobytes()
    cell.session.take_state(read_state(state))  # what is kept from set-point to set-point is made once
    return calls_of(lambda: cell.session.take_state(read_state(state)))


def test_a_state_of_a_moving_arm_is_checked_with_few_calls(moving):
    assert take_state(moving[0]) < STATE_CALLS


def test_the_check_of_a_state_does_not_grow_with_the_path():
    counts = []
    for seconds in (0.3, 1.0):
        with made_up_cell() as cell:
            enabled(cell)
            Source(cell, TELEOP, 20.0).move(VELOCITY, seconds)
            counts.append(take_state(cell))
    assert counts[0] == pytest.approx(counts[1], abs=10)


def test_a_beat_takes_few_calls(moving):
    cell, _ = moving
    beat = cell.servo.beat(cell._cycles)
    assert calls_of(lambda: cell.session.take_beat(read_beat(beat))) < BEAT_CALLS


def test_a_cycle_of_the_servo_loop_takes_few_calls(moving):
    assert calls_of(moving[0].tick) < TICK_CALLS


def test_what_an_embodiment_samples_is_found_once():
    embodiment = load_embodiment('ur5e_robotiq_zed')
    assert embodiment.sampled_topics is embodiment.sampled_topics
    assert embodiment.sampled_fields is embodiment.sampled_fields
    assert calls_of(lambda: embodiment.sampled_topics) <= 2
