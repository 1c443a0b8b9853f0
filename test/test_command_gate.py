# SPDX-License-Identifier: Apache-2.0
"""Nothing reaches the robot unless it may: limits, staleness, order, silence and who commands."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groot_ros.control.command_gate import CommandGate, DeltaCommand, GateState
from groot_ros.control.limits import Limits, RefusedError, max_share
from groot_ros.control.setpoints import SetpointGenerator
from groot_ros.geometry import angle_between, deltas_between
from groot_ros.ur5e_kinematics import forward

TCP = np.array([0, 0, 0.174, 0, 0, 0.0])
JOINTS = np.deg2rad([-90, -80, -110, -80, 90, 0.0])


def gate(enabled=True):
    made = CommandGate(Limits(), TCP)
    if enabled:
        made.enable(forward(JOINTS, TCP), JOINTS)
    return made


def command(delta=(0.001, 0, 0, 0, 0, 0), sequence=1, source='teleop', start_s=10.0, duration_s=0.05):
    return DeltaCommand(source, sequence, start_s, duration_s, np.array(delta, float), 1.0)


def refused(made, offered, match, now_s=10.0):
    before = made.target.copy()
    with pytest.raises(RefusedError, match=match):
        made.submit(offered, now_s)
    np.testing.assert_array_equal(made.target, before)
    assert made.counters.refused == 1


def test_a_command_moves_the_target_by_its_delta():
    made = gate()
    before = made.target.copy()
    waypoint = made.submit(command((0.002, -0.001, 0.003, 0, 0, 0.01)), 10.0)
    np.testing.assert_allclose(waypoint.pose[:3] - before[:3], [0.002, -0.001, 0.003], atol=1e-12)
    assert angle_between(before, waypoint.pose) == pytest.approx(0.01)
    np.testing.assert_allclose(waypoint.delta, [0.002, -0.001, 0.003, 0, 0, 0.01], atol=1e-12)
    assert (waypoint.start_s, waypoint.end_s) == (pytest.approx(10.002), pytest.approx(10.052))


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
    made.submit(command(sequence=5), 10.0)
    refused(made, command(sequence=5), 'twice')


def test_an_unknown_source_is_refused():
    refused(gate(), command(source='somebody'), 'neither')


def test_teleop_overrides_the_policy_until_it_lets_go():
    made = gate()
    made.submit(command(source='policy', sequence=1), 10.0)
    made.submit(command(source='teleop', sequence=1), 10.05)
    refused(made, command(source='policy', sequence=2, start_s=10.1), 'overrides', 10.1)
    made.submit(command(source='policy', sequence=3, start_s=10.5), 10.5)
    assert made.source == 'policy'


def test_silence_stops_and_needs_a_new_enable():
    made = gate()
    made.submit(command(), 10.0)
    assert not made.check_timeout(10.2)
    assert made.check_timeout(10.3)
    assert made.state is GateState.STOPPED
    refused(made, command(sequence=2, start_s=10.3), 'silent', 10.3)
    made.enable(forward(JOINTS, TCP), JOINTS)
    made.submit(command(sequence=3, start_s=11.0), 11.0)


def test_a_pose_out_of_reach_is_refused():
    made = CommandGate(
        Limits(workspace_min_m=np.array([-2, -2, -2.0]), workspace_max_m=np.array([2, 2, 2.0])), TCP
    )
    made.enable(np.array([-0.13, -0.85, 0.1, 0, 1, 0, 0]), JOINTS)
    refused(made, command((0, -0.025, 0, 0, 0, 0)), 'reach|singularity|rad/s')


@pytest.mark.parametrize('opening', [-0.1, 85.0, 255.0, np.inf])
def test_an_opening_out_of_its_range_is_refused(opening):
    offered = command()
    offered.opening = opening
    refused(gate(), offered, 'opening')


def test_an_open_deadman_holds_without_a_stop_and_lets_the_policy_in():
    made = gate()
    made.submit(command(), 10.0)
    made.release('teleop')
    assert made.source == ''
    assert not made.check_timeout(20.0)
    made.submit(command(source='policy', start_s=20.0), 20.0)
    assert made.source == 'policy'


def test_an_invalid_pose_or_one_outside_the_workspace_cannot_be_enabled():
    made, pose = gate(enabled=False), forward(JOINTS, TCP)
    for bad in (pose * [1, 1, 1, 2, 2, 2, 2], pose * np.nan):
        with pytest.raises(RefusedError, match='invalid TCP pose'):
            made.enable(bad, JOINTS)
    with pytest.raises(RefusedError, match='outside the workspace: z'):
        made.enable(pose - [0, 0, 0.5, 0, 0, 0, 0], JOINTS)
    assert made.state is GateState.DISABLED


def test_a_hand_that_guides_lets_only_the_gripper_be_commanded():
    made = gate()
    made.disable()
    made.enter_freedrive()
    waypoint = made.submit(command((0.01, 0, 0, 0, 0, 0)), 10.0)
    np.testing.assert_array_equal(waypoint.delta, np.zeros(6))
    assert not made.check_timeout(20.0)


def test_a_joint_out_of_its_range_is_refused():
    made = gate()
    made.limits.joint_upper_rad = JOINTS + 0.001
    refused(made, command((0.02, 0, 0, 0, 0, 0)), 'out of its range')


def test_a_late_command_takes_as_long_as_it_was_to_take():
    made = gate()
    waypoint = made.submit(command((0.02, 0, 0, 0, 0, 0), start_s=9.9), 10.0)
    assert waypoint.start_s == 10.0
    assert waypoint.end_s - waypoint.start_s == pytest.approx(0.04)  # 0.02 m at 0.5 m/s


def test_commands_that_come_faster_than_real_time_are_refused_in_the_end():
    made = gate()
    with pytest.raises(RefusedError, match='faster'):
        for sequence in range(1, 20):
            made.submit(command((0.02, 0, 0, 0, 0, 0), sequence), 10.0)
    assert made._end_s < 10.35


def test_a_reversal_at_full_speed_first_comes_to_rest():
    made = gate()
    made.submit(command((0.025, 0, 0, 0, 0, 0), 1), 10.0)
    back = made.submit(command((-0.025, 0, 0, 0, 0, 0), 2, start_s=10.05), 10.05)
    np.testing.assert_allclose(back.delta[:3], np.zeros(3), atol=1e-12)
    assert made.counters.clipped == 1


vectors = st.tuples(*[st.floats(-0.5, 0.5)] * 6).map(
    lambda v: np.array(v) / max(np.linalg.norm(v[:3]) / 0.5, np.linalg.norm(v[3:]) / 1.5, 1.0)
)


def test_a_source_that_let_go_may_count_from_one_again():
    """Its node was started again; a number that comes twice without that is refused."""
    made = gate()
    made.submit(command(sequence=7, source='policy'), 10.0)
    with pytest.raises(RefusedError, match='came twice or late'):
        made.submit(command(sequence=1, source='policy'), 10.0)
    made.release('policy')
    made.submit(command(sequence=1, source='policy'), 10.0)


@given(vectors, st.lists(vectors, max_size=4))
def test_the_share_keeps_every_change_of_velocity_within_the_full_speed(velocity, recent):
    limits = Limits()
    share = max_share(velocity, recent, limits)
    assert 0.0 <= share <= 1.0
    for earlier in recent:
        assert np.linalg.norm(share * velocity[:3] - earlier[:3]) <= limits.max_linear_speed_m_s + 1e-9
        assert np.linalg.norm(share * velocity[3:] - earlier[3:]) <= limits.max_angular_speed_rad_s + 1e-9


numbers = st.floats(-10, 10)


@settings(deadline=None)
@given(
    st.lists(st.tuples(numbers, numbers, numbers, numbers, numbers, numbers), min_size=1, max_size=25),
    st.floats(0.003, 0.9),
)
def test_no_sequence_of_commands_leaves_the_workspace_or_breaks_a_speed(commands, duration_s):
    made, limits = gate(), Limits()
    now_s = 10.0
    for sequence, delta in enumerate(commands, 1):
        before = made.target.copy()
        try:
            after = made.submit(command(delta, sequence, start_s=now_s, duration_s=duration_s), now_s).pose
        except RefusedError:
            after = made.target
        assert np.all(after[:3] >= limits.workspace_min_m - 1e-12)
        assert np.all(after[:3] <= limits.workspace_max_m + 1e-12)
        assert (
            np.linalg.norm(after[:3] - before[:3])
            <= min(limits.max_step_m, limits.max_linear_speed_m_s * duration_s) + 1e-9
        )
        assert (
            angle_between(before, after)
            <= min(limits.max_step_rad, limits.max_angular_speed_rad_s * duration_s) + 1e-9
        )
        now_s += 0.01


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.tuples(*[st.floats(-0.2, 0.2)] * 6), st.floats(0.0, 0.03)), min_size=1, max_size=15
    ),
    st.sampled_from([0.008, 0.025, 0.033, 0.05, 0.1]),
)
def test_whatever_is_commanded_the_set_points_keep_speed_and_acceleration_and_make_no_step(
    commands, period_s
):
    made, limits, dt_s = gate(), Limits(), 0.002
    setpoints = SetpointGenerator(10.0, made.target, limits.smoothing_s, dt_s)
    path, sequence, ticks = [], 0, round((len(commands) * period_s + 0.3) / dt_s)
    for tick in range(ticks):
        now_s = 10.0 + tick * dt_s
        while sequence < len(commands) and now_s >= 10.0 + sequence * period_s + commands[sequence][1]:
            offered = command(
                commands[sequence][0], sequence + 1, start_s=10.0 + sequence * period_s, duration_s=period_s
            )
            sequence += 1
            try:
                waypoint = made.submit(offered, now_s)
            except RefusedError:
                continue
            setpoints.append(waypoint.start_s, waypoint.end_s, waypoint.pose)
        path.append(setpoints.advance(now_s))
    velocities = np.diff(np.array(path)[:, :3], axis=0) / dt_s
    turns = deltas_between(np.array(path))[:, 3:] / dt_s
    assert np.linalg.norm(velocities, axis=1).max() <= limits.max_linear_speed_m_s * 1.01
    assert np.linalg.norm(turns, axis=1).max() <= limits.max_angular_speed_rad_s * 1.02
    assert (
        np.linalg.norm(np.diff(velocities, axis=0), axis=1).max() / dt_s
        <= limits.max_linear_acceleration_m_s2 * 1.01
    )
    assert (
        np.linalg.norm(np.diff(turns, axis=0), axis=1).max() / dt_s
        <= limits.max_angular_acceleration_rad_s2 * 1.02
    )
    np.testing.assert_allclose(path[-1][:3], made.target[:3], atol=1e-9)
