# SPDX-License-Identifier: Apache-2.0
"""Nothing reaches the robot unless it may: limits, staleness, order, silence and who commands."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groot_ros.control.command_gate import CommandGate, DeltaCommand, GateSettings, GateState
from groot_ros.control.limits import Limits, RefusedError, check_clearance, max_share, solve_joints
from groot_ros.control.publisher_binding import PublisherBinding, RivalError, first_sequence
from groot_ros.control.setpoints import SetpointGenerator
from groot_ros.errors import GrootRosError
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
    made.release('teleop', 2, 10.2)
    made.come_to_rest(made.target)
    made.submit(command(source='policy', sequence=3, start_s=10.5), 10.5)
    assert made.source == 'policy'


@pytest.mark.parametrize('command_timeout_s', [0.05, 0.25, 2.0])
def test_an_operator_whose_node_dies_while_it_overrides_stops_the_arm(command_timeout_s):
    """The policy goes on to command at 20 Hz, and gets nothing at any time."""
    made = CommandGate(Limits(), TCP, GateSettings(command_timeout_s=command_timeout_s))
    made.enable(forward(JOINTS, TCP), JOINTS)
    made.submit(command(source='policy', sequence=1), 10.0)
    made.submit(command(source='teleop', sequence=1), 10.0)
    at = made.target.copy()
    for sequence in range(2, 62):
        now_s = 10.0 + 0.05 * sequence
        with pytest.raises(RefusedError):
            made.submit(command(source='policy', sequence=sequence, start_s=now_s), now_s)
        made.check_timeout(now_s)
    assert made.state is GateState.STOPPED
    assert made.reason.startswith('teleop has been silent')
    np.testing.assert_array_equal(made.target, at)


def test_teleop_takes_over_even_if_the_limits_refuse_what_it_commands():
    made = gate()
    made.submit(command(source='policy', sequence=1), 10.0)
    with pytest.raises(RefusedError, match='finite'):
        made.submit(command((np.nan, 0, 0, 0, 0, 0)), 10.05)
    assert made.source == 'teleop'
    with pytest.raises(RefusedError, match='overrides'):
        made.submit(command(source='policy', sequence=2, start_s=10.1), 10.1)
    assert made.check_timeout(10.31)


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
    stretched = np.deg2rad([-90, -170, -5, -90, 90, 0.0])
    made.enable(forward(stretched, TCP), stretched)
    refused(made, command((0, -0.025, 0, 0, 0, 0)), 'reach|singularity|rad/s')


@pytest.mark.parametrize('opening', [-0.1, 85.0, 255.0, np.inf])
def test_an_opening_out_of_its_range_is_refused(opening):
    offered = command()
    offered.opening = opening
    refused(gate(), offered, 'opening')


def test_an_open_deadman_brakes_without_a_stop_and_then_lets_the_policy_in():
    made = gate()
    rest = made.target.copy()
    made.submit(command(), 10.0)
    assert made.release('teleop', 2, 10.01)
    assert made.source == ''
    refused(made, command(source='policy', start_s=10.02), 'brakes', 10.02)
    made.come_to_rest(rest)
    np.testing.assert_array_equal(made.target, rest)
    np.testing.assert_allclose(made.joints, JOINTS, atol=1e-9)
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


@pytest.mark.parametrize('late_s', [0.0, 0.05, 0.15, 0.19])
def test_a_late_command_keeps_its_duration_but_for_what_catching_up_takes(late_s):
    made = gate()
    waypoint = made.submit(command((0.001, 0, 0, 0, 0, 0), start_s=10.0 - late_s), 10.0)
    assert 0.04 - 1e-9 <= waypoint.end_s - waypoint.start_s <= 0.05 + 1e-9


@pytest.mark.parametrize('held_up_s', [0.06, 0.15, 0.19])
def test_commands_that_come_together_after_a_hold_up_are_at_most_a_quarter_faster(held_up_s):
    made, period_s, speed_m_s = gate(), 0.05, 0.02
    delta = (speed_m_s * period_s, 0, 0, 0, 0, 0)
    for sequence in range(1, 40):
        planned_s = 10.0 + sequence * period_s
        arrival_s = max(planned_s, 10.5 + held_up_s) if planned_s > 10.5 else planned_s
        waypoint = made.submit(command(delta, sequence, start_s=planned_s), arrival_s)
        assert np.linalg.norm(waypoint.delta[:3]) / (waypoint.end_s - waypoint.start_s) <= 1.2501 * speed_m_s
    assert waypoint.end_s == pytest.approx(planned_s + period_s + made.settings.command_delay_s)


def test_commands_that_come_faster_than_real_time_are_refused_in_the_end():
    made = gate()
    with pytest.raises(RefusedError, match='faster'):
        for sequence in range(1, 20):
            made.submit(command((0.02, 0, 0, 0, 0, 0), sequence), 10.0)
    assert made._end_s < 10.35


def test_a_reversal_at_full_speed_first_comes_to_rest():
    made = gate()
    made.submit(command((0.0125, 0, 0, 0, 0, 0), 1), 10.0)
    back = made.submit(command((-0.0125, 0, 0, 0, 0, 0), 2, start_s=10.05), 10.05)
    np.testing.assert_allclose(back.delta[:3], np.zeros(3), atol=1e-12)
    assert made.counters.clipped == 1


vectors = st.tuples(*[st.floats(-0.5, 0.5)] * 6).map(
    lambda v: np.array(v) / max(np.linalg.norm(v[:3]) / 0.25, np.linalg.norm(v[3:]) / 1.0, 1.0)
)


def rest(made, sequence, now_s, source='teleop'):
    """The source lets go, and the arm has come to rest."""
    made.release(source, sequence, now_s)
    made.come_to_rest(made.target)


def test_a_second_publisher_of_a_source_is_refused_and_cannot_release_it():
    made = gate()
    made.submit(command(sequence=100), 10.0)
    for alone in (True, False):
        rival = command(sequence=90_000)
        rival.alone = alone
        with pytest.raises(RivalError, match='second publisher'):
            made.submit(rival, 10.0)
        with pytest.raises(RivalError, match='second publisher'):
            made.release('teleop', 90_001, 10.0, alone)
    assert made.source == 'teleop'
    assert made.counters.refused == 4
    made.submit(command(sequence=101, start_s=10.05), 10.05)


def test_a_publisher_that_is_still_seen_stays_bound_while_the_arm_is_enabled():
    made = gate()
    made.submit(command(sequence=100), 10.0)
    rest(made, 101, 10.1)
    rival = command(sequence=90_000, start_s=30.0)
    rival.alone = False
    with pytest.raises(RivalError):
        made.submit(rival, 30.0)
    made.disable()
    made.enable(forward(JOINTS, TCP), JOINTS)
    made.submit(rival, 30.0)
    with pytest.raises(RivalError):
        made.submit(command(sequence=102, start_s=30.0), 30.0)


def test_a_node_that_was_started_again_commands_at_once_if_the_old_one_is_not_seen_any_more():
    made = gate()
    made.submit(command(sequence=100, source='policy'), 10.0)
    rest(made, 101, 10.1, 'policy')
    with pytest.raises(RivalError):
        made.submit(command(sequence=7, source='policy', start_s=11.0), 11.0)
    made.submit(command(sequence=7, source='policy', start_s=11.2), 11.2)


def test_the_successor_of_a_killed_node_commands_after_the_next_enable():
    """The middleware still shows the dead one for up to 20 s, so that it never is alone."""
    made = gate()
    made.submit(command(sequence=100), 10.0)
    assert made.check_timeout(10.3)
    made.enable(forward(JOINTS, TCP), JOINTS)
    successor = command(sequence=7, start_s=11.1)
    successor.alone = False
    made.submit(successor, 11.1)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 50), max_size=20))
def test_a_publisher_that_loses_some_messages_stays_the_same_also_where_the_number_wraps(first, gaps):
    binding = PublisherBinding()
    sequence = first
    binding.take(sequence, 0.0, True, False)
    for gap in gaps:
        sequence = (sequence + gap) % 2**32
        binding.take(sequence, 0.1, True, False)
    with pytest.raises(RefusedError, match='twice'):
        binding.take(sequence, 0.1, True, False)


def test_nodes_count_from_random_numbers():
    numbers = {first_sequence() for _ in range(100)}
    assert len(numbers) > 95
    assert max(numbers) < 2**31


def test_a_source_that_does_not_command_cannot_stop_the_arm_with_a_release():
    made = gate()
    made.submit(command(source='policy'), 10.0)
    made.submit(command(source='teleop'), 10.0)
    assert not made.release('policy', 2, 10.01)
    assert made.source == 'teleop'
    made.submit(command(sequence=2, start_s=10.05), 10.05)


class Servo:
    """The gate and the set-points of a servo loop at 500 Hz, `late_s` behind, in made-up time."""

    def __init__(self, late_s=0.0):
        self.gate = gate()
        limits = self.gate.limits
        speeds = (limits.max_linear_speed_m_s, limits.max_angular_speed_rad_s)
        self.now_s = 10.0
        self.late_s = late_s
        self.setpoints = SetpointGenerator(10.0, self.gate.target, limits.smoothing_s, DT_S, speeds)
        self.path = [self.gate.target]

    def send(self, delta, sequence, start_s, duration_s=0.05, source='teleop'):
        waypoint = self.gate.submit(command(delta, sequence, source, start_s, duration_s), self.now_s)
        self.setpoints.append(waypoint.start_s, waypoint.end_s, waypoint.pose)

    def release(self, sequence):
        if self.gate.release('teleop', sequence, self.now_s):
            self.gate.come_to_rest(self.setpoints.brake())

    def run(self, seconds):
        for _ in range(round(seconds / DT_S)):
            self.now_s += DT_S
            self.path.append(self.setpoints.advance(self.now_s - self.late_s))

    def assert_within_limits(self):
        limits = self.gate.limits
        path = np.array(self.path)
        velocities = deltas_between(path) / DT_S
        accelerations = np.diff(velocities, axis=0) / DT_S
        assert np.linalg.norm(velocities[:, :3], axis=1).max() <= limits.max_linear_speed_m_s * 1.001
        assert np.linalg.norm(velocities[:, 3:], axis=1).max() <= limits.max_angular_speed_rad_s * 1.01
        linear = np.linalg.norm(accelerations[:, :3], axis=1)
        assert linear.max(initial=0.0) <= limits.max_linear_acceleration_m_s2 * 1.001
        angular = np.linalg.norm(accelerations[:, 3:], axis=1)
        assert angular.max(initial=0.0) <= limits.max_angular_acceleration_rad_s2 * 1.02
        assert np.all(path[:, :3] >= limits.workspace_min_m - 1e-9)
        assert np.all(path[:, :3] <= limits.workspace_max_m + 1e-9)


DT_S = 0.002


@pytest.mark.parametrize('backlog', [1, 4])
def test_a_release_stops_along_the_path_within_the_smoothing_time(backlog):
    """However much is scheduled: long commands, and several that came at once."""
    servo = Servo()
    for sequence in range(1, 3):
        servo.send((0.075, 0, 0, 0, 0, 0), sequence, servo.now_s, 0.15)
        servo.run(0.15)
    for sequence in range(3, 3 + backlog):
        servo.send((0.025, 0, 0, 0, 0, 0), sequence, servo.now_s, 0.05)
    servo.run(0.02)
    at = servo.path[-1]
    scheduled_m = np.linalg.norm(servo.gate.target[:3] - at[:3])
    servo.release(3 + backlog)
    began = len(servo.path)
    servo.run(0.5)
    resting = next(n for n in range(began, len(servo.path)) if np.ptp(servo.path[n:], axis=0).max() < 1e-12)
    stopped_s = (resting - began) * DT_S
    distance_m = np.linalg.norm(servo.path[-1][:3] - at[:3])
    assert stopped_s <= servo.gate.limits.smoothing_s + 2 * DT_S
    assert distance_m <= 0.5 * servo.gate.limits.smoothing_s / 2 + 0.002
    assert scheduled_m > distance_m
    np.testing.assert_allclose(servo.path[-1], servo.gate.target, atol=1e-12)
    servo.assert_within_limits()


def test_a_command_right_after_a_release_goes_on_from_where_the_arm_rests():
    servo = Servo()
    servo.send((0.0, 0.0, 0.05, 0, 0, 0), 1, servo.now_s, 0.25)
    servo.run(0.1)
    servo.release(2)
    before = servo.gate.target.copy()
    servo.send((0.0, 0.0, -0.05, 0, 0, 0), 3, servo.now_s, 0.25)
    servo.run(0.5)
    assert servo.path[-1][2] < before[2]
    np.testing.assert_allclose(servo.path[-1], servo.gate.target, atol=1e-12)
    servo.assert_within_limits()


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
    st.floats(0.003, 0.25),
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


def follow(commands, period_s, changes=None, stall_ticks=0):
    """The set-points (n, 7) of commands, each with its lateness in s, and the gate.

    `changes` gives the share of the two maximum speeds from a command number on; the servo loop stalls once.
    """
    made, limits, dt_s = gate(), Limits(), 0.002
    setpoints = SetpointGenerator(10.0, made.target, limits.smoothing_s, dt_s, limits.max_speeds)
    made.limits = limits
    path, sequence, ticks = [], 0, round((len(commands) * period_s + 0.6) / dt_s)
    for tick in range(ticks):
        now_s = 10.0 + tick * dt_s
        while sequence < len(commands) and now_s >= 10.0 + sequence * period_s + commands[sequence][1]:
            for name, began in zip(SPEEDS, Limits().max_speeds, strict=True):
                if changes and sequence in changes:
                    limits.lower(name, began * changes[sequence])
                    setpoints.max_speeds = limits.max_speeds
            offered = command(
                commands[sequence][0], sequence + 1, start_s=10.0 + sequence * period_s, duration_s=period_s
            )
            sequence += 1
            try:
                waypoint = made.submit(offered, now_s)
            except RefusedError:
                continue
            setpoints.append(waypoint.start_s, waypoint.end_s, waypoint.pose)
        if not ticks // 2 <= tick < ticks // 2 + stall_ticks:
            path.append(setpoints.advance(now_s))
    return np.array(path), made


def assert_speed_and_acceleration(path, limits, dt_s=0.002):
    velocities = np.diff(path[:, :3], axis=0) / dt_s
    turns = deltas_between(path)[:, 3:] / dt_s
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


SPEEDS = ('max_linear_speed_m_s', 'max_angular_speed_rad_s')
COMMANDS = st.lists(
    st.tuples(st.tuples(*[st.floats(-0.2, 0.2)] * 6), st.floats(0.0, 0.03)), min_size=1, max_size=15
)
PERIODS_S = st.sampled_from([0.008, 0.025, 0.033, 0.05, 0.1])


@settings(deadline=None, max_examples=40)
@given(COMMANDS, PERIODS_S)
def test_whatever_is_commanded_the_set_points_keep_speed_and_acceleration_and_make_no_step(
    commands, period_s
):
    path, made = follow(commands, period_s)
    assert_speed_and_acceleration(path, Limits())
    np.testing.assert_allclose(path[-1][:3], made.target[:3], atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    COMMANDS,
    PERIODS_S,
    st.dictionaries(st.integers(0, 14), st.sampled_from([0.05, 0.2, 0.5, 0.9, 1.0]), max_size=6),
    st.sampled_from([0, 20]),
)
def test_speed_limits_that_change_while_the_arm_moves_make_no_step(commands, period_s, changes, stall_ticks):
    """Lowered and raised again in any order, also where the servo loop stalls."""
    path, made = follow(commands, period_s, changes, stall_ticks)
    assert_speed_and_acceleration(path, Limits())
    np.testing.assert_allclose(path[-1][:3], made.target[:3], atol=1e-9)


def test_a_lowered_speed_holds_half_a_second_later():
    there = [((0.0125, 0, 0, 0, 0, 0), 0.0)] * 10
    back = [((-0.0125 if number % 2 else 0.0125, 0, 0, 0, 0, 0), 0.0) for number in range(20)]
    path, _ = follow(there + back, 0.05, {10: 0.1})
    assert_speed_and_acceleration(path, Limits())
    speeds = np.linalg.norm(np.diff(path[:, :3], axis=0), axis=1) / 0.002
    assert speeds.max() > 0.24
    assert 0.01 < speeds[500:].max() <= 0.025 * 1.01


def test_reversals_at_a_lowered_speed_keep_the_acceleration():
    """With a pause between them, longer than the window of the lower speed, shorter than the real one."""
    deltas = [0.01, 0.0, -0.01, 0.0] * 6
    path, _ = follow([((delta, 0, 0, 0, 0, 0), 0.0) for delta in deltas], 0.055, {0: 0.68})
    assert_speed_and_acceleration(path, Limits())
    assert np.linalg.norm(np.diff(path[:, :3], axis=0), axis=1).max() / 0.002 > 0.12


def test_a_limit_is_lowered_and_raised_again_but_never_above_the_start():
    limits = Limits(max_linear_speed_m_s=0.2)
    window_s = limits.smoothing_s
    for value in (0.05, 0.2):
        limits.lower('max_linear_speed_m_s', value)
        assert limits.max_linear_speed_m_s == value
        assert limits.smoothing_s == window_s
    for value in (0.2001, 0.0, -1.0, float('nan'), float('inf')):
        with pytest.raises(GrootRosError, match=r'raised again to 0\.2, which the node started with'):
            limits.lower('max_linear_speed_m_s', value)
    assert limits.max_linear_speed_m_s == 0.2


@pytest.mark.parametrize('rotation_rad', [np.pi, 2 * np.pi + 0.01, 1e300])
def test_a_rotation_that_no_source_sends_is_refused_with_its_number(rotation_rad):
    refused(gate(), command((0, 0, 0, 0, 0, rotation_rad)), f'{rotation_rad:.3g} rad'.replace('+', '.'))


def test_a_translation_and_a_duration_that_no_source_sends_are_refused():
    refused(gate(), command((0, 0, 0.69, 0, 0, 0)), '0.69 m in one command')
    refused(gate(), command(duration_s=1.0), 'duration of 1.000 s')


WIDE = {'workspace_min_m': np.full(3, -2.0), 'workspace_max_m': np.full(3, 2.0)}


def test_a_line_through_the_wrist_singularity_is_refused_though_both_its_ends_are_good():
    limits = Limits(**WIDE, max_step_rad=1.0, max_angular_speed_rad_s=3.0, max_joint_speed_rad_s=3.1)
    start, end = np.deg2rad([-90, -80, -110, -80, 20, 0.0]), np.deg2rad([-90, -80, -110, -80, -20, 0.0])
    poses = np.array([forward(start, TCP), forward(end, TCP)])
    solve_joints(poses[1], end, 0.25, TCP, limits)
    made = CommandGate(limits, TCP)
    made.enable(poses[0], start)
    refused(made, command(deltas_between(poses)[0], duration_s=0.25), 'singularity|rad/s')


def test_an_arm_near_a_singularity_may_leave_it_but_not_come_nearer():
    limits = Limits(**WIDE)
    near, nearer, away = (np.deg2rad([-90, -80, -110, -80, wrist, 0.0]) for wrist in (2.0, 1.0, 3.0))
    assert np.allclose(solve_joints(forward(away, TCP), near, 0.2, TCP, limits), away, atol=1e-6)
    with pytest.raises(RefusedError, match='singularity'):
        solve_joints(forward(nearer, TCP), near, 0.2, TCP, limits)


def test_a_joint_that_is_out_of_its_range_may_come_back_but_not_go_on():
    limits = Limits(**WIDE, joint_upper_rad=np.array([6, 6, 6, 6, 1.5, 6.0]))
    outside, farther, back = (np.deg2rad([-90, -80, -110, -80, wrist, 0.0]) for wrist in (90, 91, 89))
    assert np.allclose(solve_joints(forward(back, TCP), outside, 0.2, TCP, limits), back, atol=1e-6)
    with pytest.raises(RefusedError, match='joint 5'):
        solve_joints(forward(farther, TCP), outside, 0.2, TCP, limits)


def test_an_arm_that_was_clipped_at_the_floor_can_be_enabled_again():
    made = CommandGate(Limits(workspace_min_m=forward(JOINTS, TCP)[:3] + np.array([-0.1, -0.1, 0.0019])), TCP)
    made.enable(forward(JOINTS, TCP), JOINTS)
    made = CommandGate(Limits(workspace_min_m=forward(JOINTS, TCP)[:3] + np.array([-0.1, -0.1, 0.003])), TCP)
    with pytest.raises(RefusedError, match='outside the workspace: z'):
        made.enable(forward(JOINTS, TCP), JOINTS)


def test_a_robot_whose_pose_is_not_that_of_a_ur5e_cannot_be_enabled():
    pose = forward(JOINTS, TCP)
    with pytest.raises(RefusedError, match='61 mm'):
        gate(enabled=False).enable(pose + np.array([0, 0.061, 0, 0, 0, 0, 0]), JOINTS)
    with pytest.raises(RefusedError, match='not finite'):
        gate(enabled=False).enable(pose, JOINTS * np.nan)


@pytest.mark.parametrize(
    ('values', 'name'),
    [
        ({'workspace_min_m': np.array([0.1])}, 'workspace_min_m'),
        ({'workspace_min_m': np.array([np.nan, -0.85, 0.0])}, 'workspace_min_m'),
        ({'workspace_min_m': np.array([0.7, -0.85, 0.0])}, 'workspace_min_m must be below'),
        ({'joint_upper_rad': np.full(6, 360.0)}, 'joint_upper_rad'),
        ({'link_walls_min_m': np.array([-0.5, -0.5])}, 'link_walls_min_m must be 3'),
        ({'link_walls_max_m': np.array([-11.0, 1, 1])}, 'link_walls_min_m must be below'),
        ({'tool_capsules': np.arange(5.0)}, 'tool_capsules'),
        ({'tool_capsules': np.array([0, 0, 0, 0, 0, 0.1, -1.0])}, 'tool_capsules'),
    ],
)
def test_limits_that_make_no_sense_are_refused_by_name(values, name):
    with pytest.raises(GrootRosError, match=name):
        Limits(**values)


def test_a_pose_whose_links_are_below_the_floor_or_in_each_other_is_refused():
    limits, good = Limits(), JOINTS
    low = np.deg2rad([-90, 30, -20, -80, 90, 0.0])
    with pytest.raises(RefusedError, match='floor'):
        check_clearance(good, low, limits)
    check_clearance(low, good, limits)
    folded = np.deg2rad([-90, -90, -165, -80, 90, 0.0])
    with pytest.raises(RefusedError, match='would touch'):
        check_clearance(good, folded, limits)


def walled(lower_y_m, upper_y_m=10.0):
    """A gate at JOINTS, where the gripper reaches to y = -0.467 m and the upper arm to y = 0.139 m."""
    limits = Limits(
        link_walls_min_m=np.array([-10, lower_y_m, -10]), link_walls_max_m=np.array([10, upper_y_m, 10])
    )
    made = CommandGate(limits, TCP)
    made.enable(forward(JOINTS, TCP), JOINTS)
    return made


def test_a_wall_holds_for_the_gripper_where_the_tcp_is_far_inside_the_workspace():
    made = walled(-0.47)
    made.submit(command((0, -0.002, 0, 0, 0, 0)), 10.0)
    refused(made, command((0, -0.002, 0, 0, 0, 0), sequence=2), r'tool part 1 and the wall at y = -0.47 m')


def test_a_gripper_that_is_in_a_wall_may_leave_it_but_not_go_on():
    made = walled(-0.45)
    refused(made, command((0, -0.002, 0, 0, 0, 0)), 'tool part 1 and the wall at y = -0.45 m')
    made.submit(command((0, 0.002, 0, 0, 0, 0), sequence=2), 10.0)


def test_a_gripper_that_leaves_a_wall_may_not_drive_the_upper_arm_deeper_into_another():
    made = walled(-0.45, 0.135)
    refused(made, command((0, 0.002, 0, 0, 0, 0)), 'upper arm and the wall at y = 0.135 m')


def test_a_turn_through_a_wall_is_refused_though_it_begins_and_ends_clear_of_it():
    """A stick of 0.3 m reaches to x = -0.443 m in the middle of the turn, and to -0.440 m at its ends."""
    last_joint = np.eye(6)[5]
    begin = JOINTS - 0.14 * last_joint
    end = JOINTS + 0.14 * last_joint
    limits = Limits(
        tool_capsules=np.array([0, 0, 0.03, 0.3, 0, 0.03, 0.01]),
        link_walls_min_m=np.array([-0.442, -10, -10]),
    )
    assert min(limits.clearance.closest(joints)[0] for joints in (begin, end)) > 0
    made = CommandGate(limits, TCP)
    made.enable(forward(begin, TCP), begin)
    turn = deltas_between(np.array([forward(begin, TCP), forward(end, TCP)]))[0]
    refused(made, command(turn, duration_s=0.25), 'tool part 1 and the wall at x = -0.442 m')


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(*[st.floats(-0.02, 0.02)] * 6), min_size=1, max_size=12),
    st.lists(st.integers(0, 150), min_size=12, max_size=12),
)
def test_a_servo_loop_that_stalls_keeps_speed_and_acceleration(commands, stalls):
    """Each set-point is 2 ms of motion for the robot, however long the loop was held up before it."""
    made, limits, dt_s = gate(), Limits(), 0.002
    speeds = (limits.max_linear_speed_m_s, limits.max_angular_speed_rad_s)
    setpoints = SetpointGenerator(10.0, made.target, limits.smoothing_s, dt_s, speeds)
    path, now_s = [], 10.0
    for sequence, (delta, stall) in enumerate(zip(commands, stalls, strict=False), 1):
        try:
            waypoint = made.submit(command(delta, sequence, start_s=now_s), now_s)
            setpoints.append(waypoint.start_s, waypoint.end_s, waypoint.pose)
        except RefusedError:
            pass
        for tick in range(25):
            now_s += dt_s + (stall * 1e-3 if tick == 12 else 0.0)
            path.append(setpoints.advance(now_s))
    velocities = np.diff(np.array(path)[:, :3], axis=0) / dt_s
    assert np.linalg.norm(velocities, axis=1).max() <= limits.max_linear_speed_m_s * 1.001
    accelerations = np.linalg.norm(np.diff(velocities, axis=0), axis=1) / dt_s
    assert accelerations.max(initial=0.0) <= limits.max_linear_acceleration_m_s2 * 1.001
