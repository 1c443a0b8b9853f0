"""Nothing reaches the robot unless it may: limits, staleness, order, silence and who commands."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groot_ros.control.gate import CommandGate, DeltaCommand, GateState
from groot_ros.control.limits import Limits, RefusedError
from groot_ros.geometry import angle_between
from groot_ros.kinematics import forward

TCP = np.array([0, 0, 0.174, 0, 0, 0.0])
JOINTS = np.deg2rad([-90, -80, -110, -80, 90, 0.0])


def gate(enabled=True):
    made = CommandGate(Limits(), TCP)
    if enabled:
        made.enable(forward(JOINTS, TCP), JOINTS, now_s=10.0)
    return made


def command(delta=(0.001, 0, 0, 0, 0, 0), sequence=1, source='teleop', start_s=10.0, duration_s=0.05):
    return DeltaCommand(source, sequence, start_s, duration_s, np.array(delta, float), 1.0)


def refused(made, offered, match, now_s=10.0):
    before = made.target.copy()
    with pytest.raises(RefusedError, match=match):
        made.offer(offered, now_s)
    np.testing.assert_array_equal(made.target, before)
    assert made.counters.refused == 1


def test_a_command_moves_the_target_by_its_delta():
    made = gate()
    before = made.target.copy()
    waypoint = made.offer(command((0.002, -0.001, 0.003, 0, 0, 0.01)), 10.0)
    np.testing.assert_allclose(waypoint.pose[:3] - before[:3], [0.002, -0.001, 0.003], atol=1e-12)
    assert angle_between(before, waypoint.pose) == pytest.approx(0.01)
    np.testing.assert_allclose(waypoint.delta, [0.002, -0.001, 0.003, 0, 0, 0.01], atol=1e-12)
    assert (waypoint.start_s, waypoint.end_s) == (pytest.approx(10.02), pytest.approx(10.07))


def test_nothing_passes_before_enable():
    refused(gate(enabled=False), command(), 'not enabled')


@pytest.mark.parametrize('number', [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(number):
    refused(gate(), command((0, number, 0, 0, 0, 0)), 'finite')


@pytest.mark.parametrize(('start_s', 'now_s'), [(9.5, 10.0), (10.5, 10.0), (np.nan, 10.0)])
def test_stale_and_future_commands_are_refused(start_s, now_s):
    refused(gate(), command(start_s=start_s), 'old', now_s)


def test_a_command_that_comes_twice_is_refused():
    made = gate()
    made.offer(command(sequence=5), 10.0)
    refused(made, command(sequence=5), 'twice')


def test_an_unknown_source_is_refused():
    refused(gate(), command(source='somebody'), 'neither')


def test_teleop_overrides_the_policy_until_it_lets_go():
    made = gate()
    made.offer(command(source='policy', sequence=1), 10.0)
    made.offer(command(source='teleop', sequence=1), 10.05)
    refused(made, command(source='policy', sequence=2, start_s=10.1), 'overrides', 10.1)
    made.offer(command(source='policy', sequence=3, start_s=10.5), 10.5)
    assert made.source == 'policy'


def test_silence_stops_and_needs_a_new_enable():
    made = gate()
    made.offer(command(), 10.0)
    assert not made.check_silence(10.2)
    assert made.check_silence(10.3)
    assert made.state is GateState.STOPPED
    refused(made, command(sequence=2, start_s=10.3), 'silent', 10.3)
    made.enable(forward(JOINTS, TCP), JOINTS, 11.0)
    made.offer(command(sequence=3, start_s=11.0), 11.0)


def test_a_pose_out_of_reach_is_refused():
    made = CommandGate(Limits(box_lower_m=np.array([-2, -2, -2.0]), box_upper_m=np.array([2, 2, 2.0])), TCP)
    made.enable(np.array([-0.13, -0.85, 0.1, 0, 1, 0, 0]), JOINTS, 10.0)
    refused(made, command((0, -0.025, 0, 0, 0, 0)), 'reach|singularity|rad/s')


numbers = st.floats(-10, 10)


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, numbers, numbers, numbers, numbers, numbers), min_size=1, max_size=25), st.floats(0.003, 0.9))
def test_no_sequence_of_commands_leaves_the_box_or_breaks_a_speed(commands, duration_s):
    made, limits = gate(), Limits()
    now_s = 10.0
    for sequence, delta in enumerate(commands, 1):
        before = made.target.copy()
        try:
            after = made.offer(command(delta, sequence, start_s=now_s, duration_s=duration_s), now_s).pose
        except RefusedError:
            after = made.target
        assert np.all(after[:3] >= limits.box_lower_m - 1e-12)
        assert np.all(after[:3] <= limits.box_upper_m + 1e-12)
        assert np.linalg.norm(after[:3] - before[:3]) <= min(limits.step_m, limits.speed_m_s * duration_s) + 1e-9
        assert angle_between(before, after) <= min(limits.step_rad, limits.rotation_speed_rad_s * duration_s) + 1e-9
        now_s += 0.01
