# SPDX-License-Identifier: Apache-2.0
"""What stops the arm, with made-up records of the robot and a made-up clock: no robot and no ROS."""

import threading

import numpy as np
import pytest

from groot_ros.control.command_gate import CommandGate, DeltaCommand, GateSettings, GateState
from groot_ros.control.limits import Limits, RefusedError
from groot_ros.control.tracking_monitor import TrackingMonitor
from groot_ros.errors import GrootRosError
from groot_ros.geometry import rotvec_from_pose
from groot_ros.hardware.ur5e.ipc import BEAT, STATE
from groot_ros.hardware.ur5e.modes import NORMAL, PROTECTIVE_STOP, RUNNING
from groot_ros.hardware.ur5e.session import ArmSession, SessionSettings
from groot_ros.ur5e_kinematics import DEFAULT_TCP_OFFSET, forward

HOME = np.array([0.0, -1.57, -1.57, -1.57, 1.57, 0.0])
POSE = forward(HOME, DEFAULT_TCP_OFFSET)


class FakeArm:
    """Notes what it is told, and reports its states to the session while it takes control."""

    def __init__(self, rig) -> None:
        self.rig = rig
        self.calls = []
        self.answers = {}
        self.during = {}

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append(name)
            self.during.get(name, lambda: None)()
            if name == 'take_control':
                threading.Timer(0.05, lambda: [self.rig.report() for _ in range(4)]).start()
            return self.answers.get(name, '')

        return call


class Rig:
    """A session whose clock, states and beats the test makes."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.warnings = []
        limits = Limits(workspace_min_m=np.full(3, -1.5), workspace_max_m=np.full(3, 1.5))
        self.session = ArmSession(
            CommandGate(limits, DEFAULT_TCP_OFFSET, GateSettings()),
            TrackingMonitor(0.1),
            SessionSettings(),
            self.warnings.append,
            lambda: self.now_s,
        )
        self.arm = self.session.arm = FakeArm(self)
        self.sequence = 0
        self.report()

    @property
    def gate(self) -> CommandGate:
        return self.session.gate

    def state(self, **values) -> np.void:
        state = np.zeros(1, STATE)
        state['joint_positions'] = state['target_joints'] = HOME
        state['tcp_pose'] = state['target_pose'] = rotvec_from_pose(POSE)
        state['speed_scaling'] = 1.0
        state['robot_mode'], state['safety_mode'] = RUNNING, NORMAL
        for name, value in values.items():
            state[name] = value
        return state[0]

    def report(self, **values) -> None:
        self.session.take_state(self.state(**values))

    def beat(self, servoing=False, freedriving=False, setpoint=POSE, holds=0, rest=POSE):
        record = (servoing, freedriving, setpoint, holds, rest, 1, 2.0, 2.0)
        return self.session.take_beat(np.array([record], BEAT)[0])

    def command(self) -> None:
        self.sequence += 1
        self.session.submit(DeltaCommand('policy', self.sequence, self.now_s, 0.05, np.full(6, 1e-4), np.nan))

    def release(self) -> bool:
        self.sequence += 1
        return self.session.release('policy', self.sequence)

    def enabled(self) -> 'Rig':
        assert self.session.enable() == ''
        assert self.gate.state is GateState.ENABLED
        self.arm.calls.clear()
        return self

    def freed(self) -> 'Rig':
        assert self.session.enter_freedrive() == ''
        assert self.gate.state is GateState.FREEDRIVE
        self.arm.calls.clear()
        return self


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_an_arm_whose_state_is_silent_stops_after_150_ms(rig):
    rig.enabled()
    rig.now_s += 0.14
    rig.beat(servoing=True)
    assert rig.gate.state is GateState.ENABLED
    rig.now_s += 0.02
    rig.beat(servoing=True)
    assert rig.gate.state is GateState.STOPPED
    assert 'no state from the robot for 0.16 s' in rig.gate.reason
    assert 'brake' in rig.arm.calls


def test_freedrive_ends_when_the_state_is_silent(rig):
    rig.freed()
    rig.now_s += 0.2
    rig.session.check()
    assert rig.gate.state is GateState.STOPPED
    assert rig.arm.calls == ['brake']  # which ends freedrive


def test_a_release_brakes_and_the_target_follows_to_where_the_arm_rests(rig):
    rig.enabled()
    rig.command()
    assert rig.release()
    assert rig.arm.calls == ['move', 'hold']
    assert rig.beat(servoing=True) is None  # a beat from before the order
    with pytest.raises(RefusedError, match='brakes'):
        rig.command()
    rest = moved(POSE, 0.0003)
    np.testing.assert_array_equal(rig.beat(servoing=True, holds=1, rest=rest), rest)
    np.testing.assert_array_equal(rig.gate.target, rest)
    assert rig.beat(servoing=True, holds=1, rest=rest) is None
    rig.command()
    assert not rig.session.release('teleop', 1)
    assert rig.release()
    assert rig.beat(servoing=True, holds=1, rest=rest) is None
    assert rig.beat(servoing=True, holds=2, rest=POSE) is not None


def test_an_arm_that_stops_while_it_brakes_does_not_take_over_where_it_would_have_rested(rig):
    rig.enabled()
    rig.command()
    rig.release()
    rig.session.stop('the test stops it')
    assert rig.beat(holds=1, rest=moved(POSE, 0.1)) is None
    assert rig.gate.state is GateState.STOPPED


def test_an_arm_that_nobody_commands_for_ten_minutes_is_disabled(rig):
    rig.enabled()
    for _ in range(2):
        rig.now_s += 599.0
        rig.report()
        rig.session.check()
        assert rig.gate.state is GateState.ENABLED
        rig.command()
        rig.release()
        rig.beat(servoing=True, holds=rig.session._holds)
    rig.now_s += 601.0
    rig.report()
    rig.session.check()
    assert rig.gate.state is GateState.DISABLED
    assert 'nobody commanded the arm for 600 s' in rig.gate.reason
    assert rig.arm.calls[-1] == 'brake'


@pytest.mark.parametrize('velocity', [np.nan, 0.1])
def test_an_arm_that_may_move_is_not_enabled(rig, velocity):
    rig.report(joint_velocities=velocity)
    assert 'still moves' in rig.session.enable()
    assert rig.gate.state is GateState.DISABLED


def test_disabling_ends_freedrive_whatever_the_state(rig):
    rig.session.disable()
    assert rig.arm.calls == ['brake', 'request_end_of_freedrive']
    rig.freed()
    rig.arm.answers['end_freedrive'] = 'no answer within 4 s'
    assert rig.session.disable() == 'no answer within 4 s'
    assert rig.arm.calls == ['brake', 'end_freedrive']


@pytest.mark.parametrize('prepare', [lambda rig: None, lambda rig: rig.enabled()])
def test_a_robot_that_is_free_against_the_gates_state_is_held_again(rig, prepare):
    prepare(rig)
    rig.beat(servoing=rig.gate.state is GateState.ENABLED, freedriving=True)
    assert 'request_end_of_freedrive' in rig.arm.calls


def test_a_robot_that_servoes_while_nobody_enabled_it_is_braked(rig):
    rig.beat(servoing=True)
    assert rig.arm.calls == ['brake']


def test_a_beat_during_the_start_of_freedrive_does_not_end_it(rig):
    rig.arm.during['enter_freedrive'] = lambda: rig.beat(freedriving=True)
    rig.freed()
    rig.beat(freedriving=True)
    assert rig.arm.calls == []


@pytest.mark.parametrize('call', ['take_control', 'start_servo'])
def test_disabling_interrupts_an_enable_that_waits_for_the_robot(rig, call):
    rig.arm.during[call] = rig.session.disable
    assert 'meanwhile' in rig.session.enable()
    assert rig.gate.state is GateState.DISABLED
    assert rig.arm.calls[-1] == 'brake'


def test_a_fault_while_servoing_starts_is_not_overwritten(rig):
    rig.arm.during['start_servo'] = lambda: rig.session.lose_state('killed')
    assert 'meanwhile' in rig.session.enable()
    assert rig.gate.state is GateState.DISABLED


def test_disabling_interrupts_freedrive_that_waits_for_the_robot(rig):
    rig.arm.during['enter_freedrive'] = rig.session.disable
    assert 'meanwhile' in rig.session.enter_freedrive()
    assert rig.arm.calls[-1] == 'request_end_of_freedrive'
    assert rig.gate.state is GateState.DISABLED


def test_while_the_arm_recovers_its_progress_is_told_and_disabling_is_obeyed(rig):
    seen = []

    def recovering():
        rig.session.show_progress('recovering: the robot says "POWER_OFF"')
        seen.append(rig.session.reason)
        seen.append(rig.session.enable())
        seen.append(rig.session.disable())

    rig.arm.during['recover'] = recovering
    assert rig.session.recover() == ''
    assert 'POWER_OFF' in seen[0]
    assert 'busy' in seen[1]
    assert seen[2] == ''
    assert rig.session.reason == 'recovered: enable it to go on'


def moved(pose, x_m) -> np.ndarray:
    return pose + np.array([x_m, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize('deaf', ['target_pose', 'tcp_pose'])
def test_a_robot_that_is_deaf_is_halted_before_its_lag_becomes_a_leap(rig, deaf):
    """Set-points go on at 0.5 m/s, along which the robot stands still."""
    rig.enabled()
    lag_m = 0.0
    while rig.gate.state is GateState.ENABLED:
        rig.now_s += 0.008
        lag_m += 0.5 * 0.008
        rig.beat(servoing=True, setpoint=moved(POSE, lag_m))
        follows = rotvec_from_pose(moved(POSE, max(lag_m - 0.05, 0.0)))
        rig.report(**{name: follows for name in ('target_pose', 'tcp_pose') if name != deaf})
    assert lag_m == pytest.approx(0.5 * 0.2 + 0.01, abs=0.01)
    assert 'behind its set-point' in rig.gate.reason
    assert rig.arm.calls[-1] == 'halt'


def test_a_robot_that_is_deaf_at_a_low_speed_is_halted_before_it_is_far_behind(rig):
    """At 0.1 m/s the ordinary lag is 10 mm, and the lag of the maximum speed would be noticed after 1 s."""
    rig.enabled()
    lag_m = 0.0
    while rig.gate.state is GateState.ENABLED:
        rig.now_s += 0.04
        lag_m += 0.1 * 0.04
        rig.beat(servoing=True, setpoint=moved(POSE, lag_m))
        rig.report()
    assert lag_m < 0.1 * 0.25 + 0.01 + 0.005
    assert rig.arm.calls[-1] == 'halt'


def test_an_ordinary_lag_at_full_speed_is_none(rig):
    rig.enabled()
    for step in range(100):
        rig.now_s += 0.008
        ahead_m = 0.5 * 0.008 * step
        rig.beat(servoing=True, setpoint=moved(POSE, ahead_m))
        behind = rotvec_from_pose(moved(POSE, max(ahead_m - 0.5 * 0.13, 0.0)))
        rig.report(target_pose=behind, tcp_pose=behind)
    assert rig.gate.state is GateState.ENABLED


def test_a_rotation_that_is_not_followed_is_noticed_too(rig):
    rig.enabled()
    turned = forward(HOME + np.array([0, 0, 0, 0, 0, 0.5]), DEFAULT_TCP_OFFSET)
    rig.beat(servoing=True, setpoint=turned)
    rig.report()
    assert '0.50 rad behind' in rig.gate.reason


def test_a_robot_that_left_the_path_is_halted_and_not_held_at_its_old_setpoints(rig):
    rig.enabled()
    rig.beat(servoing=True)
    rig.report(target_pose=rotvec_from_pose(moved(POSE, 0.03)))
    assert 'does not follow' in rig.gate.reason
    assert rig.arm.calls[-1] == 'halt'


def test_an_arm_that_is_not_where_the_robot_holds_it_is_not_enabled(rig):
    away = rotvec_from_pose(moved(POSE, 0.03))
    report = rig.report
    rig.report = lambda **values: report(tcp_pose=away)
    assert '30 mm' in rig.session.enable()
    assert 'start_servo' not in rig.arm.calls


def test_the_speed_slider_stops_an_enabled_arm_and_is_named(rig):
    rig.report(speed_scaling=0.5)
    rig.enabled()
    rig.report(speed_scaling=0.94)
    assert rig.gate.state is GateState.STOPPED
    assert 'speed slider' in rig.gate.reason
    report = rig.report
    rig.report = lambda **values: report(speed_scaling=0.5)
    assert 'speed slider' in rig.session.enable()


def test_a_stop_of_the_robot_stops_the_arm_and_says_why(rig):
    rig.enabled()
    rig.beat(servoing=False)
    assert 'script' in rig.gate.reason
    rig.report(safety_mode=PROTECTIVE_STOP)
    assert 'PROTECTIVE_STOP' in rig.gate.reason
    with pytest.raises(RefusedError):
        rig.command()


def test_enabling_an_enabled_arm_changes_nothing(rig):
    rig.enabled()
    assert rig.session.enable() == ''
    assert rig.arm.calls == []


def test_a_lowered_limit_holds_for_the_next_command_and_reaches_the_servo_process(rig):
    rig.enabled()
    rig.session.limit('max_linear_speed_m_s', 0.001)
    assert rig.arm.calls == ['limit_speeds']
    before = rig.gate.target.copy()
    rig.command()
    moved_m = np.linalg.norm(rig.gate.target[:3] - before[:3])
    assert 0.9 < moved_m / (0.001 * 0.05) < 1.0 + 1e-6
    with pytest.raises(GrootRosError, match=r'raised again to 0\.25'):
        rig.session.limit('max_linear_speed_m_s', 0.3)
    assert rig.gate.limits.max_linear_speed_m_s == 0.001
