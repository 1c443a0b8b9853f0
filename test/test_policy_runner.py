# SPDX-License-Identifier: Apache-2.0
"""The policy runner in made-up time: faults, limits, pauses and swaps of the policy."""

import numpy as np
import pytest

from groot_ros.control.command_gate import CommandGate, DeltaCommand
from groot_ros.control.limits import Limits, RefusedError
from groot_ros.embodiment import load_embodiment
from groot_ros.errors import PolicyError
from groot_ros.geometry import angle_between, apply_delta, interpolate_pose, pose_to_eef_9d
from groot_ros.policies.builtin_policies import FAULTS, HoldPolicy, ScriptedPolicy
from groot_ros.policies.chunk_scheduler import ScheduleSettings
from groot_ros.policies.commanded_pose import ArmTarget, CommandedPose
from groot_ros.policies.inference_worker import InferenceResult
from groot_ros.policies.observation_builder import ObservationBuilder
from groot_ros.policies.pause import CONFIRM_REASON, Pause
from groot_ros.policies.policy_runner import PolicyRunner
from groot_ros.policies.replay_policy import ReplayPolicy
from groot_ros.policies.runner_settings import RunnerSettings
from groot_ros.ur5e_kinematics import forward

EMBODIMENT = load_embodiment('ur5e_robotiq_zed')
ROW_NS = round(1e9 / EMBODIMENT.fps)
START = np.array([0.3, -0.4, 0.2, 0.0, 1.0, 0.0, 0.0])
TIMEOUT_NS = 300_000_000


class MadeUpWorker:
    """An InferenceWorker whose results arrive a fixed latency after the request, in the time of the test."""

    def __init__(self, policy, latency_ns: int = 60_000_000) -> None:
        self.policy = policy
        self.latency_ns = latency_ns
        self.now_ns = 0
        self.asked = []
        self._due_ns = 0
        self._answer = None
        self.busy_until_ns = 0

    @property
    def busy(self):
        return self._answer is not None or self.now_ns < self.busy_until_ns

    def submit(self, observation, reset=False):
        if reset:
            self.policy.reset()
        self.asked.append(observation)
        hangs = self.policy.spec.name in ('scripted hanging', 'scripted late') and len(self.asked) > 5
        action = {}
        problem = f'{self.policy.spec.name} gave no answer' if hangs else ''
        try:
            action = {} if hangs else self.policy.infer(observation)
        except PolicyError as error:
            problem = str(error)
        self._answer = InferenceResult(observation, self.now_ns / 1e9, 0.0, action, problem)
        self._due_ns = self.now_ns + (TIMEOUT_NS if hangs else self.latency_ns)
        if hangs:
            self.busy_until_ns = self.now_ns + 30_000_000_000

    def poll(self):
        if self._answer is None or self.now_ns < self._due_ns:
            return None
        answer, self._answer = self._answer, None
        return answer

    def discard(self):
        self._answer = None


class Run:
    """A runner, its clock, and the pose that its commands lead to."""

    def __init__(
        self, policy, latency_ns=60_000_000, command_ns=ROW_NS, start=START, settings=None, **schedule
    ) -> None:
        self.worker = MadeUpWorker(policy, latency_ns)
        self.chunks = []
        self.commands = []
        schedule = ScheduleSettings(ROW_NS / 1e9, **{'stop_distance_m': 0.01, **schedule})
        self.runner = PolicyRunner(
            self.worker,
            ObservationBuilder(EMBODIMENT),
            schedule,
            RunnerSettings(command_ns, **(settings or {})),
            self.chunks.append,
        )
        self.now_ns = 1_000_000_000
        self.pose = start
        self.runner.begin(start, self.now_ns)

    def go_on(self, seconds, until=lambda: False):
        for _ in range(round(seconds / 0.002)):
            self.worker.now_ns = self.now_ns
            self.before_poll()
            for command in self.runner.tick(self.now_ns, None):
                self.commands.append(command)
                self.execute(command)
            self.runner.poll(self.now_ns, 'go on')
            if self.runner.end_reason is not None or until():
                break
            self.now_ns += 2_000_000
        return self

    def before_poll(self):
        pass

    def execute(self, command):
        self.pose = apply_delta(self.pose, command.delta)
        self.runner.apply_echo(command.sequence, self.pose)

    @property
    def steps_m(self):
        return np.linalg.norm([command.delta[:3] for command in self.commands], axis=1)


def test_commands_are_on_the_time_grid_whenever_it_is_polled():
    run = Run(ScriptedPolicy(EMBODIMENT)).go_on(2.0)
    ticks = np.array([command.tick_ns for command in run.commands])
    np.testing.assert_array_equal(np.diff(ticks), ROW_NS)
    first = run.commands[0].sequence
    assert [command.sequence for command in run.commands] == list(range(first, first + len(ticks)))
    # 2 mm a row, from the first chunk on.
    assert run.pose[0] - START[0] == pytest.approx(0.002 * (2.0 - 0.06) / (ROW_NS / 1e9), abs=0.004)


REASONS = {
    'late': 'gave no answer',
    'hanging': 'gave no answer',
    'empty': 'it gave no step',
    'not_a_number': 'is NaN or infinite',
    'jumping': 'moves at',
    'shape': 'has the shape',
    'crashing': 'crashed, as it was asked to',
}


@pytest.mark.parametrize('fault', [fault for fault in FAULTS if fault])
def test_every_fault_ends_at_rest_with_its_reason(fault):
    run = Run(ScriptedPolicy(EMBODIMENT, fault)).go_on(10.0)
    assert run.runner.end_reason is not None
    assert run.runner.end_reason.startswith('no chunk came in time: ')
    assert REASONS[fault] in run.runner.end_reason
    assert not run.runner.done
    assert all(chunk.decoded is None or np.isfinite(chunk.decoded.poses).all() for chunk in run.chunks)
    # No step is longer than one of the policy's, and the last ones become shorter: it runs out.
    assert run.steps_m.max() <= 0.002 + 1e-9
    assert run.steps_m[-1] < 0.001 < run.steps_m[len(run.steps_m) // 2]
    run.runner.halt()
    busy = f'scripted {fault} still works on an earlier request' if fault in ('late', 'hanging') else ''
    assert run.runner.blocking_reason(run.now_ns) == busy


def test_an_unavailable_policy_may_not_begin():
    policy = HoldPolicy(EMBODIMENT)
    policy.unavailable_reason = lambda: 'the model is being started again'
    assert Run(policy).runner.blocking_reason(0) == 'the model is being started again'


def test_what_a_limit_takes_away_is_not_asked_for_again():
    """If half of each command passes, the next one starts from the pose that was reached."""
    whole = Run(ScriptedPolicy(EMBODIMENT))
    halved = Run(ScriptedPolicy(EMBODIMENT))

    def execute_half(command):
        halved.pose = apply_delta(halved.pose, command.delta / 2)
        halved.runner.apply_echo(command.sequence, halved.pose)

    halved.execute = execute_half
    moved = whole.go_on(2.0).pose[0] - START[0]
    half = halved.go_on(2.0).pose[0] - START[0]
    assert moved > 0.05
    # The target moves at the pace of the policy, so each command adds what is still missing.
    assert half == pytest.approx(moved, abs=0.01)


TURN = np.array([0, 0, 0, 0, 0, 0.2])
STEP = np.array([0.01, 0, 0, 0, 0, 0])


def test_a_refused_command_drops_out_when_a_later_one_is_echoed():
    commanded = CommandedPose()
    commanded.start(START, 0)
    for sequence, delta in enumerate((TURN, STEP, STEP), start=1):
        commanded.send(sequence, apply_delta(commanded.pose, delta))
    # The gate refused the turn, and accepted the second command; the third is under way.
    commanded.apply_echo(2, apply_delta(START, STEP))
    np.testing.assert_allclose(commanded.pose, apply_delta(START, 2 * STEP), atol=1e-12)


def test_an_echo_of_an_earlier_run_is_ignored():
    commanded = CommandedPose()
    commanded.start(START, 0)
    commanded.send(7, apply_delta(START, STEP))
    commanded.apply_echo(6, apply_delta(START, TURN))
    np.testing.assert_allclose(commanded.pose, apply_delta(START, STEP), atol=1e-12)


def test_a_run_whose_commands_are_all_refused_ends_with_the_reason():
    run = Run(ScriptedPolicy(EMBODIMENT)).go_on(1.0)
    run.execute = lambda command: None
    refused_ns = run.now_ns
    run.go_on(2.0)
    assert run.runner.end_reason.startswith("the arm's driver refuses the commands: it accepted none for 0.3")
    assert 0.3 < (run.now_ns - refused_ns) / 1e9 < 0.3 + 2 * ROW_NS / 1e9


def test_a_node_that_was_held_up_does_not_take_it_for_a_silent_driver():
    run = Run(ScriptedPolicy(EMBODIMENT)).go_on(1.0)
    run.execute = lambda command: None
    run.go_on(ROW_NS / 1e9)
    del run.execute
    run.now_ns += 400_000_000
    run.go_on(0.5)
    assert run.runner.end_reason is None


LAG_NS = 125_000_000
HOME = np.deg2rad([-90, -80, -110, -80, 90, 0.0])
TOOL = np.array([0, 0, 0.174, 0, 0, 0.0])


class SeenPosePolicy(HoldPolicy):
    """Answers absolute poses: where the arm is seen, moved by `offset` (6,)."""

    def __init__(self, see) -> None:
        super().__init__(EMBODIMENT)
        self._see = see
        self.offset = np.zeros(6)

    def infer(self, observation):
        pose = apply_delta(self._see(), self.offset)
        return {'eef_9d': pose_to_eef_9d(np.tile(pose, (self.spec.horizon, 1)))}


class GatedRun(Run):
    """A run whose commands pass the real gate; the arm is seen where the gate's target was 125 ms ago."""

    def __init__(self, make_policy=SeenPosePolicy) -> None:
        self.gate = CommandGate(Limits(), TOOL)
        self.gate.enable(forward(HOME, TOOL), HOME)
        self.targets = []
        self.arm = ArmTarget()
        super().__init__(make_policy(self.seen), start=self.gate.target)

    def seen(self):
        past = [target for stamp_ns, target in self.targets[-100:] if stamp_ns <= self.now_ns - LAG_NS]
        return past[-1] if past else self.gate.target

    def before_poll(self):
        self.targets.append((self.now_ns, self.gate.target))
        self.arm.add_tcp_target(self.seen(), self.now_ns)

    def submit(self, source, sequence, tick_ns, delta):
        try:
            command = DeltaCommand(source, sequence, tick_ns / 1e9, ROW_NS / 1e9, delta, np.nan)
            self.gate.submit(command, self.now_ns / 1e9)
        except RefusedError:
            return False
        self.arm.add_echo(self.gate.target)
        return True

    def execute(self, command):
        if self.submit('policy', command.sequence, command.tick_ns, command.delta):
            self.runner.apply_echo(command.sequence, self.gate.target)

    def override(self, velocity_m_s, seconds):
        """An operator moves the arm at a velocity (3,) and releases it."""
        self.release('policy', self.runner.halt())
        for number in range(round(seconds * 1e9 / ROW_NS)):
            delta = np.array([*velocity_m_s, 0, 0, 0]) * ROW_NS / 1e9
            assert self.submit('teleop', number + 1, self.now_ns, delta)
            self.wait(ROW_NS // 2_000_000)
        self.release('teleop', number + 2)

    def release(self, source, sequence):
        """The arm brakes 0.03 s along its way before the end of what was commanded."""
        if self.gate.release(source, sequence, self.now_ns / 1e9):
            before = self.targets[-15][1] if self.targets else self.gate.target
            self.gate.come_to_rest(interpolate_pose(before, self.gate.target, 0.4))
            self.arm.add_echo(self.gate.target)

    def wait(self, polls):
        for _ in range(polls):
            self.now_ns += 2_000_000
            self.before_poll()

    def resume(self):
        while self.arm.moving_reason(self.now_ns):
            self.wait(1)
        self.runner.resume(self.arm.pose, self.now_ns)


@pytest.mark.parametrize('velocity_m_s', [(0, 0, -0.15), (0.06, 0, 0), (0, 0.2, 0.1)])
def test_a_policy_that_answers_the_seen_pose_does_not_drift_after_an_override(velocity_m_s):
    run = GatedRun().go_on(1.0)
    run.override(velocity_m_s, 0.5)
    released = run.gate.target
    run.resume()
    run.go_on(6.0)
    assert run.runner.end_reason is None
    assert np.linalg.norm(run.gate.target[:3] - released[:3]) < 0.002
    assert angle_between(run.gate.target, released) < 0.002


def test_a_policy_does_not_continue_while_the_arm_still_moves():
    run = GatedRun().go_on(1.0)
    run.override((0, 0, -0.15), 0.5)
    assert run.arm.moving_reason(run.now_ns) == 'the arm still moves: try again when it is at rest'
    released_ns = run.now_ns
    run.resume()
    assert 0.3 < (run.now_ns - released_ns) / 1e9 < 0.3 + LAG_NS / 1e9 + 0.01


def test_after_enable_the_pose_of_the_robot_counts_and_not_an_old_echo():
    arm = ArmTarget()
    arm.add_tcp_target(START, 0)
    arm.add_echo(apply_delta(START, 0.1 * STEP))
    np.testing.assert_array_equal(arm.pose, apply_delta(START, 0.1 * STEP))
    arm.forget_echo()
    np.testing.assert_array_equal(arm.pose, START)


@pytest.mark.parametrize('stall_s', [0.3, 0.35, 0.4])
def test_commands_that_were_refused_as_too_old_leave_no_error(stall_s):
    """The node is held up while it lifts the arm to an absolute pose at 0.1 m/s."""
    goal = apply_delta(forward(HOME, TOOL), np.array([0, 0, 0.15, 0, 0, 0]))
    policy = HoldPolicy(EMBODIMENT)
    run = GatedRun(lambda seen: policy)
    began_s = run.now_ns / 1e9

    def lift(observation):
        ahead_s = run.now_ns / 1e9 - began_s + np.arange(1, 17) * ROW_NS / 1e9
        poses = np.tile(forward(HOME, TOOL), (16, 1))
        poses[:, 2] = np.minimum(poses[:, 2] + 0.1 * ahead_s, goal[2])
        return {'eef_9d': pose_to_eef_9d(poses)}

    policy.infer = lift
    run.go_on(0.8)
    run.now_ns += round(stall_s * 1e9)
    run.go_on(3.0)
    assert run.runner.end_reason is None
    np.testing.assert_allclose(run.gate.target[:3], goal[:3], atol=2e-4)


def test_after_a_pause_it_goes_on_from_where_the_arm_was_left():
    run = Run(ScriptedPolicy(EMBODIMENT)).go_on(1.0)
    run.runner.halt()
    elsewhere = START + np.array([0, 0.1, 0, 0, 0, 0, 0])
    run.now_ns += 5_000_000_000
    before = len(run.commands)
    resumed_ns = run.now_ns
    run.runner.resume(elsewhere, resumed_ns)
    run.pose = elsewhere
    run.go_on(1.0)
    resumed = run.commands[before:]
    assert resumed[0].tick_ns == resumed_ns
    assert max(np.linalg.norm(command.delta[:3]) for command in resumed) <= 0.002 + 1e-9
    assert run.pose[1] == pytest.approx(elsewhere[1], abs=1e-9)
    assert run.pose[0] > elsewhere[0] + 0.02


def test_another_policy_takes_over_between_two_chunks_without_a_stop():
    run = Run(ScriptedPolicy(EMBODIMENT)).go_on(1.0)
    first = run.worker
    other = MadeUpWorker(ScriptedPolicy(EMBODIMENT))
    other.policy._moving_key = 'delta_tcp_orientation'
    other.now_ns = run.now_ns
    assert run.runner.swap_policy(other) is first
    run.worker = other
    run.go_on(1.5)
    assert run.runner.end_reason is None
    assert len(other.asked) >= 2
    assert angle_between(run.pose, START) > 0.02
    assert run.steps_m.max() <= 1.1 * 0.002


def test_a_policy_that_continues_receives_the_number_of_executed_steps():
    policy = ScriptedPolicy(EMBODIMENT)
    policy.spec.continues = True
    run = Run(policy, latency_ns=100_000_000).go_on(3.0)
    first, *others = run.worker.asked
    assert first.follows_ns is None
    assert len(others) > 2
    for before, after in zip(run.worker.asked, others, strict=False):
        assert after.follows_ns == before.tick_ns
        assert 2 <= after.frozen_steps <= 1 + np.ceil(0.1 / (ROW_NS / 1e9))


def replayed_from(policy):
    """The pose in which a replay must end."""
    expected = policy.start_state[EMBODIMENT.pose_part]
    for action in policy.actions:
        expected = apply_delta(expected, action[:6])
    return expected


def paused(run, seconds, moved=(0, 0, 0, 0, 0, 0)):
    """The run after a pause in which the arm was moved by a delta (6,)."""
    run.runner.halt()
    run.now_ns += round(seconds * 1e9)
    run.pose = apply_delta(run.pose, np.array(moved, float))
    run.runner.resume(run.pose, run.now_ns)
    return run


@pytest.mark.parametrize('after_s', [0.03, 0.4, 0.77])
def test_a_replay_continues_where_the_speed_slider_stopped_it(converted, after_s):
    policy = ReplayPolicy(converted, 0, EMBODIMENT)
    run = Run(policy)
    run.go_on(20.0, until=lambda: not run.runner.approaching)
    run.go_on(after_s)
    assert run.runner.pause_note() == 'the replay continues where it stopped'
    paused(run, 3.0).go_on(30.0)
    assert (run.runner.end_reason, run.runner.done) == ('', True)
    np.testing.assert_allclose(run.pose[:3], replayed_from(policy)[:3], atol=1e-5)


def test_an_approach_that_was_interrupted_is_repeated(converted):
    policy = ReplayPolicy(converted, 0, EMBODIMENT)
    run = Run(policy).go_on(0.5)
    assert run.runner.approaching
    assert run.runner.pause_note() == 'the approach is repeated then'
    paused(run, 3.0, (0, 0, -0.1, 0, 0, 0.1)).go_on(30.0)
    assert (run.runner.end_reason, run.runner.done) == ('', True)
    np.testing.assert_allclose(run.pose[:3], replayed_from(policy)[:3], atol=1e-5)


def test_a_replay_that_was_stopped_in_the_middle_begins_again(converted):
    policy = ReplayPolicy(converted, 0, EMBODIMENT)
    run = Run(policy)
    run.go_on(20.0, until=lambda: not run.runner.approaching)
    run.go_on(0.4)
    run.runner.halt()
    run.runner.begin(run.pose, run.now_ns)
    run.go_on(30.0)
    assert (run.runner.end_reason, run.runner.done) == ('', True)
    np.testing.assert_allclose(run.pose[:3], replayed_from(policy)[:3], atol=1e-5)


def test_a_replay_whose_arm_was_moved_meanwhile_ends_with_the_distance(converted):
    policy = ReplayPolicy(converted, 0, EMBODIMENT)
    run = Run(policy)
    run.go_on(20.0, until=lambda: not run.runner.approaching)
    paused(run.go_on(0.4), 3.0, (0, 0, -0.12, 0, 0, 0)).go_on(1.0)
    assert run.runner.end_reason.endswith('during the pause: start the replay again')
    assert 'moved by 0.1' in run.runner.end_reason
    assert not run.runner.done


@pytest.mark.parametrize(('by_itself', 'afterwards'), [(False, CONFIRM_REASON), (True, '')])
def test_after_an_override_a_policy_waits_for_a_confirmation(by_itself, afterwards):
    pause = Pause(resume_after_override=by_itself)
    assert pause.reason('', '') == ''
    assert pause.reason('teleop commands the arm', 'slider') == 'teleop commands the arm'
    assert pause.reason('', 'slider') == 'slider'
    assert pause.reason('', '') == afterwards
    pause.confirm()
    assert pause.reason('', '') == ''


def test_a_pause_of_the_speed_slider_needs_no_confirmation():
    pause = Pause()
    assert pause.reason('', 'slider') == 'slider'
    assert pause.reason('', '') == ''


class TravellingPolicy(HoldPolicy):
    """Answers absolute poses along x at 0.25 m/s, as many as asked for; `change` may alter a chunk."""

    def __init__(self, horizon=16) -> None:
        super().__init__(EMBODIMENT, horizon)
        self.began_ns = None
        self.asked = 0
        self.change = lambda number, poses: poses

    def infer(self, observation):
        if self.began_ns is None:
            self.began_ns = observation.tick_ns
        steps = (observation.tick_ns - self.began_ns) / ROW_NS + np.arange(1, self.spec.horizon + 1)
        poses = np.tile(START, (self.spec.horizon, 1))
        poses[:, 0] += 0.25 * ROW_NS / 1e9 * steps
        self.asked += 1
        return {'eef_9d': pose_to_eef_9d(self.change(self.asked, poses))}


@pytest.mark.parametrize(
    ('delta', 'text'),
    [((0.0, 0.69, 0, 0, 0, 0), '0.690 m and 0.00 rad'), ((0, 0, 0, 3.0, 0, 0), '0.000 m and 3.00 rad')],
)
def test_chunks_that_start_far_away_are_refused_and_the_third_ends_the_run(delta, text):
    """A checkpoint that was trained in another frame or with another TCP."""
    policy = SeenPosePolicy(lambda: START)
    policy.offset = np.array(delta, float)
    run = Run(policy).go_on(5.0)
    assert run.runner.end_reason.startswith(f'3 chunks in a row were refused: its first pose is {text}')
    assert not any(chunk.taken for chunk in run.chunks)
    np.testing.assert_allclose(run.pose, START, atol=1e-9)


def test_one_outlier_among_good_chunks_makes_no_excursion():
    policy = TravellingPolicy()
    away = np.array([0, 0.3, 0, 0, 0, 0])
    policy.change = lambda number, poses: poses + np.append(away, 0) if number == 4 else poses
    run = Run(policy, settings={'max_speed_m_s': 3.0}).go_on(4.0)
    assert run.runner.end_reason is None
    assert [chunk.taken for chunk in run.chunks].count(False) == 1
    assert run.pose[1] == pytest.approx(START[1], abs=1e-6)
    assert run.steps_m.max() < 1.2 * 0.25 * ROW_NS / 1e9


def test_a_chunk_that_turns_too_fast_is_refused():
    policy = TravellingPolicy()
    turning = np.array([apply_delta(START, np.array([0, 0, 0, 0, 0, 0.2 * step])) for step in range(16)])
    policy.change = lambda number, poses: turning
    run = Run(policy).go_on(1.0)
    assert 'turns at' in run.chunks[0].problem
    assert 'max_rotation_speed_rad_s is 3' in run.chunks[0].problem


@pytest.mark.parametrize('horizon', [50, 100])
def test_a_long_chunk_is_not_executed_blindly_after_the_model_has_died(horizon):
    run = Run(TravellingPolicy(horizon), stop_distance_m=0.02).go_on(2.0)
    assert run.runner.end_reason is None
    run.worker.submit = lambda observation, reset=False: None
    died_ns = run.now_ns
    died = run.pose
    run.go_on(10.0)
    assert run.runner.end_reason == 'no fresh chunk came within 0.5 s of its time'
    # The interval of 0.4 s, two latencies with their margin, 0.5 s, and the deceleration.
    assert (run.now_ns - died_ns) / 1e9 < 0.4 + 2 * 0.11 + 0.5 + 0.25
    assert np.linalg.norm(run.pose - died) < 0.25 * 1.3
    np.testing.assert_allclose(run.pose[1:3], START[1:3], atol=1e-9)
    assert np.all(np.diff(run.steps_m[-3:]) < 0)


def test_slow_but_steady_answers_are_not_taken_for_blindness():
    run = Run(TravellingPolicy(50), latency_ns=900_000_000).go_on(8.0)
    assert run.runner.end_reason is None


@pytest.mark.parametrize('latency_ns', [0, 60_000_000, 250_000_000])
@pytest.mark.parametrize('command_hz', [0, 100])
def test_a_replay_comes_to_where_the_recording_ended(converted, latency_ns, command_hz):
    policy = ReplayPolicy(converted, 0, EMBODIMENT)
    run = Run(policy, latency_ns, round(1e9 / command_hz) if command_hz else ROW_NS)
    run.go_on(30.0)
    assert (run.runner.end_reason, run.runner.done) == ('', True)
    expected = replayed_from(policy)
    np.testing.assert_allclose(run.pose[:3], expected[:3], atol=1e-5)
    assert angle_between(run.pose, expected) < 1e-4
