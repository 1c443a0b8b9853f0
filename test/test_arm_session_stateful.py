# SPDX-License-Identifier: Apache-2.0
"""Whatever happens in whatever order: the arm moves only by accepted commands, and within its limits.

hypothesis drives the real session, gate and servo loop, with the robot of benchmark/made_up_cell.py.
GROOT_ROS_LONG_TESTS=1 looks for longer: some minutes. GROOT_ROS_NO_SHRINKING=1 does not look for the shortest
way to a failure: scripts/mutation_check.py only asks whether there is one.
"""

import os

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from benchmark.made_up_cell import TICK_S, MadeUpCell, Source
from groot_ros.control.command_gate import POLICY, TELEOP, GateSettings, GateState
from groot_ros.control.setpoints import MAX_CATCH_UP
from groot_ros.geometry import deltas_between
from groot_ros.hardware.ur5e.modes import EMERGENCY_STOP, NORMAL, PROTECTIVE_STOP
from groot_ros.ur5e_kinematics import DEFAULT_TCP_OFFSET, inverse

LONG = bool(os.environ.get('GROOT_ROS_LONG_TESTS'))
NO_SHRINKING = bool(os.environ.get('GROOT_ROS_NO_SHRINKING'))
STILL_M_S = 1e-3
# Time from the end of a session to standstill: the robot's watchdog, the smoothing, and the lag of servoL.
STANDSTILL_S = 1.0
# After the time-out of a source: the watch of the driver, and one command that was refused.
SILENCE_MARGIN_S = 0.15
# Until a robot that nobody wants to be free holds again: its watchdog, where the servo process is dead.
FREE_S = 0.3
PATH_SHARE = 1.0 + 1e-6
JOINT_CHECK_TICKS = 5

components = st.sampled_from([0.0, 0.0, 0.05, -0.05, 0.25, -0.25, 0.6, -0.6])
turns = st.sampled_from([0.0, 0.0, 0.0, 0.5, -0.5, 2.0])
velocities = st.tuples(components, components, components, turns, turns, turns)
durations_s = st.sampled_from([0.05, 0.15, 0.3])
sources = st.sampled_from([TELEOP, POLICY])
# Most of the time somebody has enabled the arm before it is commanded.
readiness = st.sampled_from([True, True, True, False])


class Watch:
    """What the robot heard and did, tick by tick, and what the commands allowed."""

    def __init__(self, cell: MadeUpCell) -> None:
        self.cell = cell
        self.accepted_m = 0.0
        self.accepted_rad = 0.0
        self.holder = ''
        self._commanded_s = cell.now_s
        self._held_in = cell.gate.state
        self.enabling = False
        self._was_enabled = False
        self._after_stop = 0
        self._free_s = 0.0
        self._stopped_s = -np.inf
        self._stopped_at = cell.robot.pose
        self._checked = (0, 0)
        self._window = int(np.ceil(cell.limits.smoothing_s / TICK_S - 1e-9))
        self._joints = cell.robot.joints
        cell.after_tick = self.look

    def send(self, source: Source, velocity, age_s: float = 0.0) -> bool:
        """Sends one command, and notes what was accepted of it."""
        self._commanded_s = self.cell.now_s
        waypoint = self.cell.send(source.command(np.array(velocity) * source.period_s, age_s))
        if waypoint is None:
            return False
        if self.cell.gate.state is not self._held_in:
            self.holder = ''
            self._held_in = self.cell.gate.state
        if source.name == POLICY:
            assert self.holder != TELEOP, 'the policy took over, and nobody had let go'
        self.holder = source.name
        self.accepted_m += float(np.linalg.norm(waypoint.delta[:3]))
        self.accepted_rad += float(np.linalg.norm(waypoint.delta[3:]))
        return True

    def look(self) -> None:
        """After each tick: motion of a session that is not enabled ends in time and distance."""
        cell = self.cell
        is_enabled = cell.gate.state is GateState.ENABLED
        if is_enabled and not self._was_enabled:
            assert self.enabling, 'the session was enabled and nobody asked for it'
            self.holder = ''
            self.accepted_m = self.accepted_rad = 0.0
        if cell.gate.state in (GateState.ENABLED, GateState.FREEDRIVE):
            self._stopped_s = cell.now_s
            self._stopped_at = cell.robot.pose
        self._was_enabled = is_enabled
        if cell.now_s - self._stopped_s > STANDSTILL_S:
            speed_m_s = float(np.linalg.norm(cell.robot.velocity_m_s))
            assert speed_m_s < STILL_M_S, f'the robot moves at {speed_m_s:.3f} m/s: {cell.gate.reason}'
        unasked = cell.robot.freedriving and cell.gate.state is not GateState.FREEDRIVE
        self._free_s = self._free_s + TICK_S if unasked else 0.0
        assert self._free_s <= FREE_S, f'the robot is free: {cell.gate.reason}'
        silent_s = cell.now_s - self._commanded_s
        longest_s = cell.gate.settings.command_timeout_s + SILENCE_MARGIN_S
        assert not (is_enabled and cell.gate.source and silent_s > longest_s), 'silence does not stop the arm'
        self._look_at_set_points(is_enabled)

    def _look_at_set_points(self, is_enabled: bool) -> None:
        """A set-point that moves while nothing is enabled belongs to the braking, within the smoothing."""
        run = len(self.cell.robot.heard)
        count = len(self.cell.robot.heard[-1]) if run else 0
        if (run, count) == self._checked:
            return
        if is_enabled or run != self._checked[0]:
            self._after_stop = 0
        if not is_enabled and count > 1:
            last, newest = self.cell.robot.heard[-1][-2:]
            self._after_stop += not np.allclose(last, newest, rtol=0.0, atol=1e-9)
            assert self._after_stop <= self._window + 1, 'set-points move though nothing is enabled'
        self._checked = (run, count)

    def check_run(self) -> None:
        """The newest run of set-points keeps every limit, and is no longer than what was accepted."""
        robot = self.cell.robot
        assert not robot.broken_rules
        if not robot.heard or len(robot.heard[-1]) < 3:
            return
        path = np.array(robot.heard[-1])
        limits = self.cell.limits
        deltas = deltas_between(path)
        lengths_m = np.linalg.norm(deltas[:, :3], axis=1)
        lengths_rad = np.linalg.norm(deltas[:, 3:], axis=1)
        assert lengths_m.sum() <= self.accepted_m * PATH_SHARE + 1e-6
        assert lengths_rad.sum() <= self.accepted_rad * 1.01 + 1e-4
        assert lengths_m.max() / TICK_S <= limits.max_linear_speed_m_s * 1.001
        assert lengths_rad.max() / TICK_S <= limits.max_angular_speed_rad_s * 1.02
        changes = np.diff(deltas, axis=0) / TICK_S**2
        assert np.linalg.norm(changes[:, :3], axis=1).max() <= limits.max_linear_acceleration_m_s2 * 1.01
        assert np.linalg.norm(changes[:, 3:], axis=1).max() <= limits.max_angular_acceleration_rad_s2 * 1.02
        # An arm that stands up to 2 mm outside may be enabled; it can only come back.
        assert np.all(path[:, :3] >= limits.workspace_min_m - 0.0021)
        assert np.all(path[:, :3] <= limits.workspace_max_m + 0.0021)
        self._check_joints(path[::JOINT_CHECK_TICKS])

    def _check_joints(self, path) -> None:
        joints = self._joints_at_start = self.cell.robot.joints
        solved = []
        for pose in path[::-1]:  # from where the robot is now, backwards
            joints = inverse(pose, joints, DEFAULT_TCP_OFFSET)
            assert joints is not None, 'a set-point is out of reach'
            solved.append(joints)
        speeds = np.abs(np.diff(np.array(solved), axis=0)) / (JOINT_CHECK_TICKS * TICK_S)
        assert speeds.max(initial=0.0) <= MAX_CATCH_UP * self.cell.limits.max_joint_speed_rad_s * 1.02


class ArmMachine(RuleBasedStateMachine):
    """People, nodes, processes and the robot do what they like."""

    def __init__(self) -> None:
        super().__init__()
        self.rig: MadeUpCell | None = None

    @initialize(command_timeout_s=st.sampled_from([0.25, 1.0]))
    def begin(self, command_timeout_s):
        self.rig = MadeUpCell(settings=GateSettings(command_timeout_s=command_timeout_s))
        self.watch = Watch(self.rig)
        self.sources = {TELEOP: Source(self.rig, TELEOP, 40.0), POLICY: Source(self.rig, POLICY, 20.0)}
        self.wish_to_enable()

    def teardown(self):
        if self.rig is None:
            return
        self.rig.robot.push_m_s = np.zeros(3)
        try:
            self.rig.session.disable()
            self.rig.go_on(STANDSTILL_S + 0.3)
        finally:
            self.rig.close()

    @property
    def robot(self):
        return self.rig.robot

    def make_ready(self, wanted):
        """A person who knows what to do brings the arm back, if it is wanted and not enabled."""
        if not wanted or self.rig.gate.state is GateState.ENABLED:
            return
        self.robot.release_button()
        self.robot.speed_scaling = 1.0
        self.rig.go_on(0.3)
        self.rig.session.disable()
        self.rig.session.recover()
        self.rig.go_on(0.3)
        self.wish_to_enable()

    def move(self, name, velocity, seconds):
        """Commands a velocity at the rate of the source."""
        source = self.sources[name]
        end_s = self.rig.now_s + seconds
        while self.rig.now_s < end_s:
            self.watch.send(source, velocity)
            self.rig.go_on(source.period_s)

    # People.

    @rule()
    def wish_to_enable(self):
        self.watch.enabling = True
        before = len(self.robot.heard)
        self.rig.session.enable()
        self.rig.tick()
        self.watch.enabling = False
        self.rig.go_on(0.02)
        for run in self.robot.heard[before:]:
            assert np.linalg.norm(run[0][:3] - self.robot.pose[:3]) < 1e-3, 'servoing began elsewhere'

    @rule()
    def disable(self):
        self.rig.session.disable()
        assert self.rig.gate.state is GateState.DISABLED

    @rule()
    def enter_freedrive(self):
        self.rig.session.enter_freedrive()

    @rule(push=st.sampled_from([0.0, 0.1, -0.2]))
    def push_by_hand(self, push):
        self.robot.push_m_s = np.array([push, 0.0, 0.0])
        self.rig.go_on(0.1)
        self.robot.push_m_s = np.zeros(3)

    @rule()
    def recover(self):
        self.rig.session.recover()

    @rule(velocity=velocities, seconds=durations_s, ready=readiness)
    def operator_moves(self, velocity, seconds, ready):
        self.make_ready(ready)
        self.move(TELEOP, velocity, seconds)

    @rule(velocity=velocities, seconds=durations_s, ready=readiness)
    def policy_moves(self, velocity, seconds, ready):
        self.make_ready(ready)
        self.move(POLICY, velocity, seconds)

    @rule(name=sources, velocity=velocities, seconds=durations_s, ready=readiness)
    def a_source_reverses(self, name, velocity, seconds, ready):
        self.make_ready(ready)
        self.move(name, velocity, seconds)
        self.move(name, -np.array(velocity), seconds)

    @rule(velocity=velocities, ready=readiness)
    def operator_overrides_the_policy(self, velocity, ready):
        self.make_ready(ready)
        for _ in range(4):
            self.watch.send(self.sources[TELEOP], velocity)
            self.watch.send(self.sources[POLICY], velocity)
            self.rig.go_on(0.05)

    @rule(name=sources)
    def release(self, name):
        if self.sources[name].release() and self.watch.holder == name:
            self.watch.holder = ''

    @rule(name=sources, velocity=velocities, early_s=st.sampled_from([0.0, 0.1]), ready=readiness)
    def move_and_let_go(self, name, velocity, early_s, ready):
        """The arm comes to rest, whatever its source has scheduled for later."""
        self.make_ready(ready)
        self.move(name, velocity, 0.2)
        self.watch.send(self.sources[name], velocity, -early_s)
        self.release(name)
        if not self.rig.gate.braking:
            return
        assert not self.watch.send(self.sources[name], velocity), 'a command passed while the arm brakes'
        self.rig.go_on(self.rig.limits.smoothing_s + 0.1)
        if self.rig.gate.state is GateState.ENABLED and not self.rig.servo_stalled:
            last, newest = self.robot.heard[-1][-2:]
            assert np.allclose(last, newest, rtol=0.0, atol=1e-9), 'the arm does not rest after a release'

    @rule(speed_scaling=st.sampled_from([1.0, 1.0, 0.5, 0.0]))
    def turn_the_speed_slider(self, speed_scaling):
        self.robot.speed_scaling = speed_scaling
        self.rig.go_on(0.05)

    @rule()
    def pause_and_play_on_the_pendant(self):
        self.robot.pause()
        self.rig.go_on(0.1)
        self.robot.play()
        self.rig.go_on(0.1)

    # The robot.

    @rule(safety_mode=st.sampled_from([PROTECTIVE_STOP, EMERGENCY_STOP]))
    def the_robot_stops(self, safety_mode):
        self.robot.stop(safety_mode)
        self.rig.go_on(0.1)
        assert self.rig.gate.state is not GateState.ENABLED

    @precondition(lambda self: self.robot.safety_mode != NORMAL)
    @rule()
    def release_the_button(self):
        self.robot.release_button()
        self.rig.go_on(0.1)

    @rule(seconds=durations_s, velocity=velocities, ready=readiness)
    def the_robot_is_deaf(self, seconds, velocity, ready):
        self.make_ready(ready)
        self.robot.deaf = True
        self.move(TELEOP, velocity, seconds)
        self.robot.deaf = False

    @rule(name=st.sampled_from(['joint_positions', 'joint_velocities', 'target_pose', 'speed_scaling']))
    def a_number_of_the_state_is_not_finite(self, name):
        self.rig.spoil_state[name] = np.nan
        self.rig.go_on(0.02)
        assert self.rig.gate.state not in (GateState.ENABLED, GateState.FREEDRIVE)

    # Nodes and processes.

    @rule(seconds=st.sampled_from([0.1, 0.3, 0.9]), velocity=velocities, ready=readiness)
    def no_state_arrives(self, seconds, velocity, ready):
        self.make_ready(ready)
        self.rig.silence_state(seconds)
        self.move(TELEOP, velocity, seconds)
        assert seconds < 0.25 or self.rig.gate.state is not GateState.ENABLED

    @rule(seconds=st.sampled_from([0.03, 0.15, 0.4, 0.8]), velocity=velocities, ready=readiness)
    def the_servo_process_stalls(self, seconds, velocity, ready):
        self.make_ready(ready)
        self.rig.stall_servo(seconds)
        self.move(TELEOP, velocity, seconds)

    @rule()
    def the_servo_process_dies(self):
        self.rig.kill_servo()
        assert self.rig.gate.state not in (GateState.ENABLED, GateState.FREEDRIVE)
        self.rig.go_on(0.6)

    @rule()
    def the_connection_drops(self):
        self.robot.dropped = True
        self.rig.go_on(0.1)
        assert self.rig.gate.state is not GateState.ENABLED

    @rule(name=sources)
    def a_node_starts_again(self, name):
        self.sources[name].restart()

    @rule(
        name=sources,
        velocity=velocities,
        count=st.integers(2, 8),
        late_s=st.sampled_from([0.03, 0.15, 0.3]),
        ready=readiness,
    )
    def commands_arrive_late_and_together(self, name, velocity, count, late_s, ready):
        self.make_ready(ready)
        source = self.sources[name]
        for number in range(count):
            self.watch.send(source, velocity, late_s - number * source.period_s)
        self.rig.go_on(0.1)

    @rule(name=sources, velocity=velocities, back=st.integers(1, 5))
    def an_old_sequence_comes_again(self, name, velocity, back):
        source = self.sources[name]
        self.watch.send(source, velocity)
        newest = source.sequence
        source.sequence = newest - back
        assert not self.watch.send(source, velocity)
        source.sequence = newest

    @rule(seconds=st.sampled_from([0.02, 0.2, 0.6, 1.3]))
    def nothing_happens(self, seconds):
        self.rig.go_on(seconds)

    @invariant()
    def the_set_points_keep_their_limits(self):
        if self.rig is not None:
            self.watch.check_run()


TestArm = ArmMachine.TestCase
TestArm.settings = settings(
    max_examples=600 if LONG else 60 if NO_SHRINKING else 12,
    stateful_step_count=40 if LONG else 20,
    deadline=None,
    derandomize=not LONG,
    phases=[Phase.generate] if NO_SHRINKING else list(Phase),
)
