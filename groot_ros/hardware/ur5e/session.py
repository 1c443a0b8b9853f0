# SPDX-License-Identifier: Apache-2.0
"""What ur5e_driver knows about the arm and decides: when it may move, and what stops it. Imports no ROS."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from groot_ros.control.command_gate import CommandGate, DeltaCommand, GateState, Waypoint
from groot_ros.control.limits import RefusedError
from groot_ros.control.tracking_monitor import TrackingMonitor
from groot_ros.geometry import Array, angle_between, pose_from_rotvec
from groot_ros.hardware.ur5e.arm import Ur5e
from groot_ros.hardware.ur5e.modes import stop_reason
from groot_ros.settings import setting

STILL_RAD_S = 0.05
_SETTLED_STATES = 3
_SETTLE_S = 3.0
_RECOVERED_S = 5.0
_MIN_SPEED_SCALING = 0.95
_MAX_REST_ERROR_M = 0.01
_MAX_REST_ERROR_RAD = 0.05
_SCRIPT_STOPPED = 'the control script on the robot stopped'
_INTERRUPTED = 'it was disabled or stopped meanwhile'
_IN_MOTION = (GateState.ENABLED, GateState.FREEDRIVE)


@dataclass
class SessionSettings:
    """Times in s after which an arm that nobody sees or commands is stopped: parameters of ur5e_driver."""

    state_timeout_s: float = setting(
        0.15, 'the arm stops if the newest state of the robot is older than this, s', 0.05, 0.6
    )
    tracking_margin_s: float = setting(
        0.1,
        'the arm stops if the robot lags behind its set-points by more than lookahead_s and this time, s',
        0.02,
        1.0,
    )
    idle_timeout_s: float = setting(
        600.0, 'the arm is disabled when no command was accepted for this time, s', 1.0, 86400.0
    )


class ArmSession:
    """The gate, the newest records of the worker processes, and the arm.

    `report` gets a sentence whenever the arm was stopped. The methods that return text return '' or, as one
    clause, what is wrong. All may be called from any thread; `enable`, `enter_freedrive` and `recover` wait
    for the robot, and `disable` interrupts them.
    """

    def __init__(
        self,
        gate: CommandGate,
        tracking: TrackingMonitor,
        settings: SessionSettings,
        report: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.gate = gate
        self.arm: Ur5e | None = None
        self.state: np.void | None = None
        self.beat: np.void | None = None
        self.progress = ''
        self.lock = threading.RLock()
        self._tracking = tracking
        self._settings = settings
        self._report = report
        self._clock = clock
        self._news = threading.Condition(self.lock)
        self._switching = threading.Lock()
        self._states = 0
        self._holds = 0
        self._interruptions = 0
        self._last_state_s = -np.inf
        self._last_command_s = -np.inf

    @property
    def state_age_s(self) -> float:
        """Time since the newest state of the robot, s; infinite before the first one."""
        return self._clock() - self._last_state_s

    @property
    def reason(self) -> str:
        """What the driver waits for, or why the arm is not enabled."""
        waiting = self.progress if self._switching.locked() else ''
        return waiting or self.gate.reason

    def take_state(self, state: np.void) -> None:
        """Takes a STATE record; stops the arm if it forbids motion."""
        with self._news:
            self.state = state.copy()
            self._last_state_s = self._clock()
            self._states += 1
            self._news.notify_all()
            if fault := self._mode_fault() or self._speed_fault():
                self._leave_motion(fault)
                if self.gate.reason == _SCRIPT_STOPPED:  # the state came later, and says why
                    self.gate.set_stop_reason(fault)
            elif self.gate.state is GateState.ENABLED and (fault := self._tracking_fault()):
                self._leave_motion(fault, halt=True)

    def take_beat(self, beat: np.void) -> Array | None:
        """Takes a BEAT record: what runs on the robot must be what the gate says.

        Returns, once after a release, the pose (7,) at which the arm comes to rest: it is the new target.
        """
        rest = None
        with self.lock:
            self.beat = beat.copy()
            if beat['servoing']:
                self._tracking.add_setpoint(self._clock(), beat['setpoint'])
            state = self.gate.state
            if state is GateState.ENABLED and not beat['servoing']:
                self._leave_motion(_SCRIPT_STOPPED)
            elif state is GateState.FREEDRIVE and not beat['freedriving']:
                self._leave_motion('freedrive ended on the robot')
            elif not self._switching.locked():
                self._end_what_nobody_wants(beat)
            if self.gate.braking and beat['holds'] == self._holds:
                rest = self._come_to_rest(beat)
        self.check()
        return rest

    def lose_state(self, reason: str) -> None:
        """Stops the arm, since nobody sees it."""
        with self.lock:
            self._leave_motion(f'no state from the robot: {reason}')

    def lose_control(self, reason: str) -> None:
        """The servo loop was lost; the watchdog on the robot stops the arm."""
        with self.lock:
            self.beat = None
            self._leave_motion(f'the servo loop was lost: {reason}')

    def show_progress(self, call: str) -> None:
        """Takes the name of a call that the servo process makes while somebody waits for it."""
        if self._switching.locked():
            self.progress = call

    def check(self) -> None:
        """Stops an arm whose source or state is silent, and disables one that nobody commands."""
        with self.lock:
            now_s = self._clock()
            if self.gate.check_timeout(now_s):
                self._stop_arm(self.gate.reason)
            if self.gate.state in _IN_MOTION and self.state_age_s > self._settings.state_timeout_s:
                self._leave_motion(f'no state from the robot for {self.state_age_s:.2f} s')
            idle_s = now_s - self._last_command_s
            if self.gate.state is GateState.ENABLED and idle_s > self._settings.idle_timeout_s:
                self.gate.disable(f'nobody commanded the arm for {self._settings.idle_timeout_s:.0f} s')
                self._stop_arm(self.gate.reason)

    def submit(self, command: DeltaCommand) -> Waypoint:
        """Sends an accepted command to the arm. Raises RefusedError for another one."""
        with self.lock:
            now_s = self._clock()
            waypoint = self.gate.submit(command, now_s)
            self._last_command_s = now_s
            if self.gate.state is GateState.ENABLED and self.arm is not None:
                self.arm.move(waypoint)
            return waypoint

    def release(self, source: str, sequence: int, alone: bool = True) -> bool:
        """A source lets go of the arm. Returns True if the arm brakes; the rest comes with a beat."""
        with self.lock:
            if not self.gate.release(source, sequence, self._clock(), alone):
                return False
            self._holds += 1
            if self.arm is not None:
                self.arm.hold()
            return True

    def limit(self, name: str, value: float) -> None:
        """Lowers a limit of the gate, or raises it again, for all commands from now on.

        Raises GrootRosError for one above what the limits began with.
        """
        with self.lock:
            self.gate.limits.lower(name, value)
            if self.arm is not None:
                self.arm.limit_speeds(self.gate.limits.max_speeds)

    def stop(self, reason: str) -> None:
        """Slows the arm down and refuses commands, because of something that the caller has seen."""
        with self.lock:
            self._leave_motion(reason)

    def disable(self) -> str:
        """Slows the arm down, ends freedrive, and refuses commands."""
        with self.lock:
            free = self.gate.state is GateState.FREEDRIVE
            free |= self.beat is not None and bool(self.beat['freedriving'])
            self._interruptions += 1
            self.gate.disable()
        if self.arm is None:
            return ''
        self.arm.brake()
        if free:
            return self.arm.end_freedrive()
        self.arm.request_end_of_freedrive()
        return ''

    def enable(self) -> str:
        """Takes control, and starts to servo at the pose that the robot then has as its target."""
        return self._switch(self._enable)

    def enter_freedrive(self) -> str:
        """Lets a person guide the arm by hand."""
        return self._switch(self._enter_freedrive)

    def recover(self) -> str:
        """Recovers from a stop; the arm holds afterwards."""
        return self._switch(self._recover)

    def _switch(self, work: Callable[[], str]) -> str:
        """Runs one of the calls that wait for the robot; only one at a time."""
        if not self._switching.acquire(blocking=False):
            return f'the driver is busy ({self.progress or "it waits for the robot"}): try again later'
        try:
            return work()
        finally:
            self.progress = ''
            self._switching.release()

    def _enable(self) -> str:
        if self.gate.state is GateState.ENABLED:
            return ''
        if problem := self._ready():
            return problem
        assert self.arm is not None
        began = self._interruptions
        if problem := self.arm.take_control() or self._settle() or self._ready() or self._at_rest():
            return problem
        with self.lock:
            assert self.state is not None
            pose = pose_from_rotvec(self.state['target_pose'])
            joints = self.state['target_joints']
        try:  # on a gate of its own, since the real one may open only after servoing has started
            CommandGate(self.gate.limits, self.gate.tcp_offset).enable(pose, joints)
        except RefusedError as error:
            return str(error)
        if problem := self.arm.start_servo(pose):
            return problem
        with self.lock:
            if problem := self._ready() or (_INTERRUPTED if self._interruptions != began else ''):
                self.arm.brake()
                return problem
            self._tracking.reset()
            self._holds = 0
            self._last_command_s = self._clock()
            self.gate.enable(pose, joints)
        return ''

    def _enter_freedrive(self) -> str:
        if self.gate.state is GateState.ENABLED:
            return 'commands move the arm: disable it first'
        if problem := self._ready():
            return problem
        assert self.arm is not None
        began = self._interruptions
        problem = self.arm.enter_freedrive()
        with self.lock:
            problem = problem or (_INTERRUPTED if self._interruptions != began else '')
            if problem:
                self.arm.request_end_of_freedrive()
                return problem
            self.gate.enter_freedrive()
        return ''

    def _recover(self) -> str:
        if self.gate.state is GateState.ENABLED:
            return 'there is nothing to recover from: the arm is enabled'
        if self.gate.state is GateState.FREEDRIVE:
            return 'a person guides the arm by hand: end ~/freedrive first'
        if self.arm is None:
            return 'the driver is not configured'
        self.progress = 'recovering'
        if problem := self.arm.recover():
            return problem
        with self._news:
            if not self._news.wait_for(
                lambda: self.state is not None and not self._mode_fault(), _RECOVERED_S
            ):
                return 'the robot is not ready after the recovery: see robot_status and the teach pendant'
            self.gate.disable('recovered: enable it to go on')
        return ''

    def _settle(self) -> str:
        """Waits for a state that the robot sent after it applied TCP and payload."""
        with self._news:
            wanted = self._states + _SETTLED_STATES
            arrived = self._news.wait_for(lambda: self._states >= wanted, _SETTLE_S)
        return '' if arrived else 'the robot stopped sending its state'

    def _ready(self) -> str:
        """Why the arm cannot be enabled or freed now, or ''."""
        with self.lock:
            if self.arm is None or self.state is None or self.state_age_s > self._settings.state_timeout_s:
                return 'no fresh data from the robot'
            if fault := self._mode_fault():
                return f'{fault}: call ~/recover'
            if not np.abs(self.state['joint_velocities']).max() <= STILL_RAD_S:
                return 'the arm still moves: try again when it is at rest'
            if self.gate.state is GateState.FREEDRIVE:
                return 'a person guides the arm by hand: end ~/freedrive first'
        return ''

    def _at_rest(self) -> str:
        """Why servoing may not start at the robot's target: it would move the arm, or lag; or ''."""
        with self.lock:
            assert self.state is not None
            target = pose_from_rotvec(self.state['target_pose'])
            measured = pose_from_rotvec(self.state['tcp_pose'])
            speed_scaling = float(self.state['speed_scaling'])
        distance_m = float(np.linalg.norm(target[:3] - measured[:3]))
        angle_rad = angle_between(target, measured)
        if not (distance_m <= _MAX_REST_ERROR_M and angle_rad <= _MAX_REST_ERROR_RAD):
            return (
                f'the arm is {1e3 * distance_m:.0f} mm and {angle_rad:.2f} rad from the target that the '
                'robot holds: stop the program on the teach pendant, then try again'
            )
        return _slider_fault(speed_scaling)

    def _may_move(self) -> bool:
        return self.state is not None and not self._mode_fault()

    def _mode_fault(self) -> str:
        assert self.state is not None
        return stop_reason(int(self.state['robot_mode']), int(self.state['safety_mode']))

    def _speed_fault(self) -> str:
        """servoL lags behind its set-points while the robot is slowed down, and catches up in a leap."""
        if self.gate.state is not GateState.ENABLED or self.state is None:
            return ''
        return _slider_fault(float(self.state['speed_scaling']))

    def _tracking_fault(self) -> str:
        assert self.state is not None
        target = pose_from_rotvec(self.state['target_pose'])
        return self._tracking.problem(target, pose_from_rotvec(self.state['tcp_pose']))

    def _end_what_nobody_wants(self, beat: np.void) -> None:
        """The robot must not be free, or follow set-points, while the gate says otherwise; needs the lock."""
        if self.arm is None:
            return
        if beat['freedriving'] and self.gate.state is not GateState.FREEDRIVE:
            self.arm.request_end_of_freedrive()
        if beat['servoing'] and self.gate.state is not GateState.ENABLED:
            self.arm.brake()

    def _come_to_rest(self, beat: np.void) -> Array | None:
        """Takes over where the arm comes to rest after a release; needs the lock."""
        rest = beat['rest'].copy()
        try:
            self.gate.come_to_rest(rest)
        except RefusedError as error:
            self._leave_motion(str(error))
            return None
        return rest

    def _leave_motion(self, reason: str, halt: bool = False) -> None:
        """Stops what moves the arm, because of a fault; needs the lock."""
        self._interruptions += 1
        if self.gate.state in _IN_MOTION:
            self.gate.stop(reason)
            self._stop_arm(reason, halt)

    def _stop_arm(self, reason: str, halt: bool = False) -> None:
        if self.arm is not None:
            if halt:
                self.arm.halt()
            else:
                self.arm.brake()
        self._report(f'Stopped: {reason}.')


def _slider_fault(speed_scaling: float) -> str:
    if speed_scaling >= _MIN_SPEED_SCALING:
        return ''
    return (
        f'the robot runs at {100 * speed_scaling:.0f} % of its speed: set the speed slider on the teach '
        'pendant to 100 %'
    )
