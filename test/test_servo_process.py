# SPDX-License-Identifier: Apache-2.0
"""The process that owns ur_rtde's control interface, with a made-up interface in its place."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest

from groot_ros.hardware.ur5e import dashboard, servo_process
from groot_ros.hardware.ur5e.arm import RECOVER_S, TAKE_CONTROL_S
from groot_ros.hardware.ur5e.ipc import (
    BRAKE,
    END_FREEDRIVE,
    FREEDRIVE,
    HALT,
    HOLD,
    LIMIT_SPEEDS,
    RECOVER,
    START_SERVO,
    TAKE_CONTROL,
    WAYPOINT,
    order,
)
from groot_ros.hardware.ur5e.record_check import read_beat
from groot_ros.ur5e_kinematics import DEFAULT_TCP_OFFSET

SETTINGS = {
    'robot_ip': '127.0.0.1',
    'servo_rate_hz': 500.0,
    'lookahead_s': 0.1,
    'gain': 300.0,
    'smoothing_s': 0.05,
    'max_speeds': [0.5, 1.5],
    'tcp_offset': DEFAULT_TCP_OFFSET.tolist(),
    'payload_kg': 0.94,
    'payload_centre_m': [0.0, 0.0, 0.06],
}
POSE = np.array([0.1, -0.5, 0.3, 0, 1.0, 0, 0])
FAR = np.array([0.1, 0, 0, 0, 0, 0, 0])


class FakeRobot:
    """In place of RTDEControlInterface: notes its calls, and confirms none of those that it `refuses`."""

    def __init__(self) -> None:
        self.calls = []
        self.running = True
        self.refuses = set()
        self.polls_until_running = 0

    def isProgramRunning(self):
        if not self.running and self.polls_until_running:
            self.polls_until_running -= 1
            self.running = not self.polls_until_running
        return self.running

    def reuploadScript(self):
        self.calls.append('reuploadScript')
        self.polls_until_running = 5
        return True

    def getTCPOffset(self):
        if not self.running:
            raise RuntimeError('getTCPOffset() function did not succeed!')
        return SETTINGS['tcp_offset']

    def stopScript(self):
        self.calls.append('stopScript')
        self.running = False

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append(name)
            return self.running and name not in self.refuses

        return call

    def told(self, *names):
        """The calls among these names, in order."""
        return [name for name in self.calls if name in names]


class FakeEnd:
    """The worker's connection to the driver."""

    def __init__(self) -> None:
        self.settings = SETTINGS
        self.waiting = []
        self.answers = {}
        self.deadlines = []

    @contextlib.contextmanager
    def deadline(self, call, seconds):
        self.announce(call, seconds)
        yield

    def announce(self, call, seconds):
        self.deadlines.append((call, seconds))

    def orders(self):
        while self.waiting:
            yield self.waiting.pop(0)

    def answer(self, number, problem):
        self.answers[number] = problem


class Process:
    """The arm of a servo process, its connection, its robot and its clock."""

    def __init__(self, monkeypatch) -> None:
        self.robot = FakeRobot()
        self.end = FakeEnd()
        self.now_s = 100.0
        self.stopped_programs = 0
        monkeypatch.setattr(servo_process, 'RTDEControlInterface', lambda *arguments: self.robot)
        monkeypatch.setattr(servo_process, 'check_ready', lambda *arguments, **options: None)
        monkeypatch.setattr(servo_process, 'stop_program', self.stop_program)
        monkeypatch.setattr(
            servo_process, 'time', SimpleNamespace(monotonic=lambda: self.now_s, sleep=self.advance)
        )
        self.arm = servo_process.Arm(self.end)

    def advance(self, seconds):
        self.now_s += seconds

    def stop_program(self, host):
        self.stopped_programs += 1
        self.robot.running = False

    def obey(self, kind, **content) -> str:
        self.end.waiting.append(order(kind, 7, **content))
        self.arm.obey()
        return self.end.answers.pop(7)

    def servo(self, seconds) -> None:
        for _ in range(round(seconds * 500)):
            self.now_s += 0.002
            self.arm.servo(self.now_s)

    def servoing(self) -> 'Process':
        assert self.obey(TAKE_CONTROL) == ''
        assert self.obey(START_SERVO, pose=POSE) == ''
        self.servo(0.1)
        return self

    def freed(self) -> 'Process':
        assert self.obey(FREEDRIVE) == ''
        assert self.arm.freedriving
        self.robot.calls.clear()
        return self


@pytest.fixture
def process(monkeypatch) -> Process:
    return Process(monkeypatch)


def test_a_script_that_starts_late_is_waited_for(process):
    process.obey(TAKE_CONTROL)
    process.robot.running = False
    process.robot.calls.clear()
    assert process.obey(TAKE_CONTROL) == ''
    assert process.robot.told('reuploadScript', 'setTcp', 'setPayload', 'setWatchdog') == [
        'reuploadScript', 'setTcp', 'setPayload', 'setWatchdog',
    ]  # fmt: skip


@pytest.mark.parametrize('call', ['setTcp', 'setPayload', 'setWatchdog'])
def test_what_the_robot_does_not_confirm_is_an_error(process, call):
    process.robot.refuses.add(call)
    assert 'did not accept' in process.obey(TAKE_CONTROL)


@pytest.mark.parametrize('kind', [BRAKE, HALT, END_FREEDRIVE, TAKE_CONTROL, RECOVER])
def test_every_order_that_stops_or_takes_the_arm_ends_freedrive(process, monkeypatch, kind):
    monkeypatch.setattr(servo_process, 'recover', lambda host, show_step: None)
    process.freed()
    assert process.obey(kind) == ''
    assert process.robot.calls[0] == 'endFreedriveMode'
    assert not process.arm.freedriving


def test_freedrive_that_the_robot_does_not_end_ends_with_its_program(process):
    process.freed()
    process.robot.refuses.add('endFreedriveMode')
    assert process.obey(END_FREEDRIVE) == ''
    assert process.robot.told('endFreedriveMode', 'stopScript') == ['endFreedriveMode', 'stopScript']
    assert not process.arm.freedriving


@pytest.mark.parametrize('kind', [FREEDRIVE, TAKE_CONTROL])
def test_a_braking_arm_is_stopped_before_it_is_freed_or_taken_again(process, kind):
    process.servoing()
    process.obey(WAYPOINT, start_s=process.now_s, end_s=process.now_s + 0.25, pose=POSE + FAR)
    process.servo(0.1)
    process.obey(BRAKE)
    process.servo(0.02)
    process.robot.calls.clear()
    assert process.obey(kind) == ''
    assert process.robot.calls[0] == 'servoStop'
    process.servo(1.0)
    assert process.robot.told('servoL') == []


def test_braking_ends_in_servo_stop_as_soon_as_the_set_points_rest(process):
    """The arm lags behind them, and would creep for half a second more."""
    process.servoing()
    process.obey(WAYPOINT, start_s=process.now_s, end_s=process.now_s + 0.25, pose=POSE + FAR)
    process.servo(0.1)
    process.robot.calls.clear()
    process.obey(BRAKE)
    process.servo(1.0)
    cycles = round(SETTINGS['smoothing_s'] * SETTINGS['servo_rate_hz'])
    assert len(process.robot.told('servoL')) <= cycles + 1
    assert process.robot.told('servoL', 'servoStop')[-1] == 'servoStop'


def test_a_hold_brakes_tells_at_once_where_it_ends_and_goes_on_to_servo(process):
    process.servoing()
    process.obey(WAYPOINT, start_s=process.now_s, end_s=process.now_s + 0.25, pose=POSE + FAR)
    process.servo(0.1)
    assert not process.arm.beat_due()
    assert process.obey(HOLD) == ''
    assert process.arm.beat_due()
    assert not process.arm.beat_due()
    beat = read_beat(process.arm.beat(servo_process.CycleTimes(500.0)))
    assert beat['holds'] == 1
    process.servo(1.0)
    np.testing.assert_allclose(process.arm.setpoint, beat['rest'], atol=1e-12)
    assert 0.03 < beat['rest'][0] - POSE[0] < 0.06
    assert process.robot.calls[-1] == 'servoL'
    process.obey(WAYPOINT, start_s=process.now_s, end_s=process.now_s + 0.25, pose=beat['rest'] + FAR)
    process.servo(0.5)
    assert process.arm.setpoint[0] == pytest.approx(beat['rest'][0] + 0.1)
    assert process.obey(START_SERVO, pose=POSE) == ''
    assert process.arm.holds == 0


def test_a_halted_arm_gets_no_setpoints_any_more(process):
    process.servoing()
    process.obey(HALT)
    process.robot.calls.clear()
    process.obey(WAYPOINT, start_s=process.now_s, end_s=process.now_s + 0.1, pose=POSE)
    process.servo(0.5)
    assert process.robot.calls == []
    assert not process.arm.servoing


def test_a_program_that_is_paused_is_ended_so_that_play_goes_on_to_nothing(process):
    process.servoing()
    process.robot.running = False
    process.servo(0.002)
    assert process.stopped_programs == 1
    assert not process.arm.servoing
    process.robot.calls.clear()
    process.servo(0.5)
    assert process.robot.calls == []


def test_a_program_that_is_played_again_at_once_is_stopped(process, monkeypatch):
    process.servoing()
    process.robot.running = False

    def played(host):
        process.robot.running = True

    monkeypatch.setattr(servo_process, 'stop_program', played)
    process.servo(0.002)
    assert process.robot.calls[-1] == 'stopScript'


def test_freedrive_that_is_paused_on_the_pendant_is_over(process):
    process.freed()
    process.robot.running = False
    process.arm.keep_alive()
    assert process.stopped_programs == 1
    assert not process.arm.freedriving


def test_deadlines_nest(process):
    """The driver waits longer than the process may need, and that longer than its parts."""
    process.servoing()
    process.obey(BRAKE)
    process.end.deadlines.clear()
    process.robot.running = False
    process.obey(FREEDRIVE)
    assert sum(seconds for _, seconds in process.end.deadlines) < TAKE_CONTROL_S
    assert 2.0 + dashboard._UNLOCK_S + dashboard._POWER_S < servo_process._RECOVER_S < RECOVER_S


def test_the_steps_of_a_recovery_are_announced(process, monkeypatch):
    modes = iter(['Robotmode: POWER_OFF', 'Robotmode: POWER_OFF', 'Robotmode: IDLE', 'Robotmode: RUNNING'])
    client = SimpleNamespace(
        polyscopeVersion=lambda: '5.13.1', isInRemoteControl=lambda: True, stop=lambda: None,
        safetymode=lambda: 'Safetymode: PROTECTIVE_STOP', closeSafetyPopup=lambda: None,
        unlockProtectiveStop=lambda: None, robotmode=lambda: next(modes), powerOn=lambda: None,
        brakeRelease=lambda: None,
    )  # fmt: skip
    monkeypatch.setattr(dashboard, 'dashboard', lambda host: contextlib.nullcontext(client))
    monkeypatch.setattr(dashboard, 'time', SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda s: None))
    assert process.obey(RECOVER) == ''
    steps = [call for call, seconds in process.end.deadlines if seconds == servo_process._RECOVER_S]
    assert [step.removeprefix('recovering: ') for step in steps] == [
        'asking the dashboard',
        'unlocking the protective stop',
        'the robot says "Robotmode: POWER_OFF"',
        'the robot says "Robotmode: IDLE"',
    ]


def test_limits_of_speed_reach_the_set_points_at_once_and_after_the_next_start(process):
    process.servoing()
    assert process.arm._setpoints.max_speeds == (0.5, 1.5)
    assert process.obey(LIMIT_SPEEDS, pose=(0.1, 0.5, 0, 0, 0, 0, 1)) == ''
    assert process.arm._setpoints.max_speeds == (0.1, 0.5)
    assert process.arm.servoing
    process.obey(HALT)
    process.servoing()
    assert process.arm._setpoints.max_speeds == (0.1, 0.5)
