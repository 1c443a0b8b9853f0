# SPDX-License-Identifier: Apache-2.0
"""ur5e_driver: publishes the arm's state and passes accepted commands to the servo loop.

The rules are elsewhere: who may command in control/command_gate.py, limits in control/limits.py, recovery
from stops in hardware/ur5e/dashboard.py.
"""

import threading
import time

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger

from groot_ros.control.command_gate import CommandGate, DeltaCommand, GateSettings, GateState
from groot_ros.control.device_clock import DeviceClock
from groot_ros.control.limits import Limits, RefusedError
from groot_ros.control.tracking_monitor import TrackingMonitor
from groot_ros.geometry import pose_from_rotvec
from groot_ros.hardware.realtime import NODE_PRIORITY, set_realtime_priority
from groot_ros.hardware.ur5e.arm import Ur5e, Ur5eSettings
from groot_ros.hardware.ur5e.modes import (
    EMERGENCY_STOPS,
    PLAYING,
    PROTECTIVE_STOP,
    ROBOT_MODES,
    SAFETY_MODES,
    stop_reason,
)
from groot_ros.message_fields import stamp_to_ns
from groot_ros.msg import RobotStatus, TcpDelta
from groot_ros.ros.lifecycle_node import GrootNode
from groot_ros.ros.parameters import ParameterSpec, specs_from
from groot_ros.ros.qos import COMMAND_QOS, STATUS_QOS, STREAM_QOS
from groot_ros.ros.run import run_node
from groot_ros.ros.time import to_time_msg
from groot_ros.sampling.stream_monitor import Health, StreamMeter
from groot_ros.ur5e_kinematics import JOINT_NAMES

_STILL_RAD_S = 0.05
_FRESH_S = 0.5
_SETTLED_STATES = 3
_SETTLE_S = 3.0
_RECOVERED_S = 5.0
_WATCH_S = 0.05
_LATE_PERIODS = 2
_FRAME = 'base'
_SCRIPT_STOPPED = 'the control script on the robot stopped'
_NOT_ACTIVE = 'the driver is not active'

PARAMETERS = {
    'connect_timeout_s': ParameterSpec(
        15.0, 'end with an error if no data arrives from the robot within this time, s', 1.0, 600.0
    ),
    **specs_from(Ur5eSettings, Limits, GateSettings),
}


class Ur5eDriver(GrootNode):
    """Topics and services. CommandGate decides what passes, hardware/ur5e/arm.py moves the arm."""

    def __init__(self) -> None:
        super().__init__('ur5e_driver', PARAMETERS)
        self._joints = self.create_publisher(JointState, 'joint_states', STREAM_QOS)
        self._pose = self.create_publisher(PoseStamped, 'tcp_pose', STREAM_QOS)
        self._target = self.create_publisher(PoseStamped, 'tcp_target', STREAM_QOS)
        self._accepted = self.create_publisher(TcpDelta, 'command/tcp_delta', COMMAND_QOS)
        self._status = self.create_publisher(RobotStatus, 'robot_status', STATUS_QOS)
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._robot_clock = DeviceClock()
        self._meter = StreamMeter('joint_states', self.parameter('state_rate_hz'))
        limits = self.settings(Limits)
        tcp_offset = np.array(self.parameter('tcp_offset'))
        self._gate = CommandGate(limits, tcp_offset, self.settings(GateSettings))
        self._tracking = TrackingMonitor()
        self._newest: np.void | None = None
        self._beat: np.void | None = None
        self._states = 0
        self._began_s = time.monotonic()
        self._last_data_s = self._began_s
        self._published: tuple = ()
        for topic in ('teleop/tcp_delta', 'policy/tcp_delta'):
            self.create_subscription(TcpDelta, topic, self._on_delta, COMMAND_QOS)
        self.create_service(SetBool, '~/enable', self._on_enable)
        self.create_service(SetBool, '~/freedrive', self._on_freedrive)
        self.create_service(Trigger, '~/recover', self._on_recover)
        self.create_timer(_WATCH_S, self._watch)
        self._arm: Ur5e | None = None

    def configure(self) -> None:
        """Starts the processes that own ur_rtde. Nothing is uploaded to the robot, and nothing moves."""
        self._began_s = time.monotonic()
        limits = self._gate.limits
        settings = self.settings(
            Ur5eSettings,
            smoothing_s=limits.smoothing_s,
            max_speeds=(limits.max_linear_speed_m_s, limits.max_angular_speed_rad_s),
        )
        self._arm = Ur5e(settings, self._on_state, self._on_beat, self._on_state_loss, self._on_control_loss)

    def deactivate(self) -> None:
        """Slows the arm down and refuses commands."""
        with self._lock:
            self._leave_motion('the driver was deactivated')

    def cleanup(self) -> None:
        """Stops the script, which leaves the arm holding its position."""
        if self._arm is not None:
            self._arm.close()

    def diagnose(self) -> list[Health]:
        """The stream of states, the robot, the servo loop and the gate."""
        with self._lock:
            state = self._newest
            beat = self._beat
        found = [self._meter.health(self.now_ns())]
        if state is not None:
            found.append(_robot_health(state))
        if beat is not None:
            found.append(_servo_health(beat, self.parameter('servo_rate_hz')))
        found.append(_gate_health(self._gate))
        return found

    def _on_state(self, state: np.void) -> None:
        stamp_ns = self._robot_clock.stamp_ns(float(state['robot_time_s']), int(state['arrival_ns']))
        stamp = to_time_msg(stamp_ns)
        message = JointState(
            name=list(JOINT_NAMES),
            position=state['joint_positions'].tolist(),
            velocity=state['joint_velocities'].tolist(),
        )
        message.header.stamp = stamp
        message.header.frame_id = _FRAME
        self.publish(self._joints, message)
        self.publish(self._pose, _pose_message(stamp, state['tcp_pose']))
        self.publish(self._target, _pose_message(stamp, state['target_pose']))
        with self._lock:
            self._newest = state.copy()
            self._last_data_s = time.monotonic()
            self._states += 1
            self._news.notify_all()
            self._meter.add(stamp_ns, time.time_ns())
            if fault := self._fault():
                self._leave_motion(fault)
                if self._gate.reason == _SCRIPT_STOPPED:  # the state came later, and says why
                    self._gate.set_stop_reason(fault)
        self._publish_status()

    def _on_beat(self, beat: np.void) -> None:
        with self._lock:
            self._beat = beat.copy()
            if beat['servoing']:
                self._tracking.add_setpoint(time.monotonic(), beat['setpoint'][:3])
            if self._gate.state is GateState.ENABLED and not beat['servoing']:
                self._leave_motion(_SCRIPT_STOPPED)
            if self._gate.state is GateState.FREEDRIVE and not beat['freedriving']:
                self._leave_motion('freedrive ended on the robot')
        self._watch()

    def _on_state_loss(self, reason: str) -> None:
        with self._lock:
            self._leave_motion(f'no state from the robot: {reason}')
            never = self._newest is None
        if never and time.monotonic() - self._began_s > self.parameter('connect_timeout_s'):
            self.fail(
                f'No UR5e answers at {self.parameter("robot_ip")} ({reason}): check robot_ip, the cable and '
                'that the robot is on.'
            )
        self.warn(f'Lost the state of the arm at {self.parameter("robot_ip")}: {reason}. Connecting again.')

    def _on_control_loss(self, reason: str) -> None:
        with self._lock:
            self._beat = None
            self._leave_motion(f'the servo loop was lost: {reason}')
        self.warn(
            f'Lost the servo loop: {reason}. Starting it again; the watchdog on the robot stops the arm.'
        )

    def _fault(self) -> str:
        """Why the newest state forbids motion, or ''; needs the lock."""
        assert self._newest is not None
        if fault := stop_reason(int(self._newest['robot_mode']), int(self._newest['safety_mode'])):
            return fault
        if self._gate.state is GateState.ENABLED and self._tracking.has_diverged(
            self._newest['target_pose'][:3]
        ):
            return 'the robot does not follow its set-points: another program may run on it'
        return ''

    def _leave_motion(self, reason: str) -> None:
        """Stops what moves the arm, because of a fault; needs the lock."""
        if self._gate.state not in (GateState.ENABLED, GateState.FREEDRIVE):
            return
        self._gate.stop(reason)
        self.warn(f'Stopped: {reason}.')
        if self._arm is not None:
            self._arm.brake()

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data:
            problem = self._enable()
            done = 'enabled: commands move the arm'
        else:
            problem = self._disable()
            done = 'disabled: the arm holds'
        response.success = not problem
        response.message = problem or done
        self._publish_status()
        return response

    def _disable(self) -> str:
        with self._lock:
            freedriving = self._gate.state is GateState.FREEDRIVE
            self._gate.disable()
        if self._arm is None:
            return ''
        if freedriving:
            return self._arm.freedrive(False)
        self._arm.brake()
        return ''

    def _enable(self) -> str:
        """Takes control, and starts to servo at the pose that the robot then has as its target."""
        if problem := self._ready():
            return problem
        assert self._arm is not None
        if problem := self._arm.take_control() or self._settle() or self._ready():
            return problem
        with self._lock:
            assert self._newest is not None
            pose = pose_from_rotvec(self._newest['target_pose'])
            joints = self._newest['target_joints']
        try:  # on a gate of its own, since the real one may open only after servoing has started
            CommandGate(self._gate.limits, self._gate.tcp_offset).enable(pose, joints)
        except RefusedError as error:
            return str(error)
        if problem := self._arm.start_servo(pose):
            return problem
        with self._lock:
            self._tracking.reset()
            self._gate.enable(pose, joints)
        return ''

    def _settle(self) -> str:
        """Waits for a state that the robot sent after it applied TCP and payload."""
        with self._news:
            wanted = self._states + _SETTLED_STATES
            arrived = self._news.wait_for(lambda: self._states >= wanted, _SETTLE_S)
        return '' if arrived else 'the robot stopped sending its state'

    def _ready(self) -> str:
        """Why the arm cannot be enabled now, or ''."""
        with self._lock:
            if not self.active:
                return _NOT_ACTIVE
            if self._newest is None or time.monotonic() - self._last_data_s > _FRESH_S:
                return f'no fresh data from the robot at {self.parameter("robot_ip")}'
            if fault := stop_reason(int(self._newest['robot_mode']), int(self._newest['safety_mode'])):
                return f'{fault}: call ~/recover'
            if np.abs(self._newest['joint_velocities']).max() > _STILL_RAD_S:
                return 'the arm still moves: try again when it is at rest'
            if self._gate.state is GateState.FREEDRIVE:
                return 'a person guides the arm by hand: end ~/freedrive first'
        return ''

    def _on_freedrive(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        with self._lock:
            enabled = self._gate.state is GateState.ENABLED
        if not request.data:
            problem = self._disable()
        elif enabled:
            problem = 'commands move the arm: disable it first'
        else:
            problem = self._ready() or self._enter_freedrive()
        response.success = not problem
        response.message = problem or ('you can guide the arm by hand' if request.data else 'the arm holds')
        self._publish_status()
        return response

    def _enter_freedrive(self) -> str:
        assert self._arm is not None
        if problem := self._arm.freedrive(True):
            return problem
        with self._lock:
            self._gate.enter_freedrive()
        return ''

    def _on_recover(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        problem = self._recover()
        response.success = not problem
        response.message = problem or 'recovered: the arm holds until it is enabled'
        self._publish_status()
        return response

    def _recover(self) -> str:
        with self._lock:
            if self._gate.state is GateState.ENABLED:
                return 'there is nothing to recover from: the arm is enabled'
        if self._arm is None or not self.active:
            return _NOT_ACTIVE
        if problem := self._arm.recover():
            return problem
        with self._news:
            if not self._news.wait_for(lambda: self._newest is not None and not self._fault(), _RECOVERED_S):
                return 'the robot is not ready after the recovery: see robot_status and the teach pendant'
            self._gate.disable('recovered: enable it to go on')
        return ''

    def _on_delta(self, message: TcpDelta) -> None:
        now_s = time.monotonic()
        start_s = now_s + (stamp_to_ns(message.header.stamp) - self.now_ns()) / 1e9
        delta = np.concatenate([message.translation, message.rotation])
        command = DeltaCommand(
            message.source, message.sequence, start_s, message.duration, delta, message.opening
        )
        with self._lock:
            before = self._gate.source
            if message.released:
                self._gate.release(message.source)
            elif not self._pass_on(command, message, now_s):
                return
            source = self._gate.source
        if source != before:
            text = f'{source} commands the arm.' if source else f'{before} released the arm: it holds.'
            self.get_logger().info(text)
            self._publish_status()

    def _pass_on(self, command: DeltaCommand, message: TcpDelta, now_s: float) -> bool:
        """Sends an accepted command to the arm and publishes it; needs the lock."""
        try:
            waypoint = self._gate.submit(command, now_s)
        except RefusedError as error:
            self.get_logger().warning(
                f'Refused a command of {message.source}: {error}.', throttle_duration_sec=2.0
            )
            return False
        if self._gate.state is GateState.ENABLED and self._arm is not None:
            self._arm.move(waypoint)
        message.translation = waypoint.delta[:3]
        message.rotation = waypoint.delta[3:]
        message.target = waypoint.pose
        self.publish(self._accepted, message)
        return True

    def _watch(self) -> None:
        with self._lock:
            if self._gate.check_timeout(time.monotonic()):
                self.warn(f'Stopped: {self._gate.reason}.')
                if self._arm is not None:
                    self._arm.brake()
        self._publish_status()

    def _publish_status(self) -> None:
        """Publishes robot_status on every change, and once a second."""
        with self._lock:
            gate = self._gate
            fresh = time.monotonic() - self._last_data_s < _FRESH_S
            connected = self._newest is not None and fresh
            key = (gate.state, gate.source, gate.reason, connected, round(time.monotonic()), *self._modes())
            if key == self._published:
                return
            self._published = key
            message = self._status_message(connected)
        self.publish(self._status, message)

    def _modes(self) -> tuple[int, ...]:
        if self._newest is None:
            return ()
        return tuple(int(self._newest[name]) for name in ('safety_mode', 'robot_mode', 'runtime_state'))

    def _status_message(self, connected: bool) -> RobotStatus:
        gate = self._gate
        status = RobotStatus(
            connected=connected,
            state=int(gate.state),
            source=gate.source,
            reason=gate.reason,
            **vars(gate.counters),
        )
        status.header.stamp = self.get_clock().now().to_msg()
        status.header.frame_id = _FRAME
        if self._newest is None:
            return status
        status.safety_mode, status.robot_mode, status.runtime_state = self._modes()
        status.robot_mode_text = ROBOT_MODES.get(status.robot_mode, '')
        status.safety_mode_text = SAFETY_MODES.get(status.safety_mode, '')
        status.speed_scaling = float(self._newest['speed_scaling'])
        status.program_running = status.runtime_state == PLAYING
        status.protective_stopped = status.safety_mode == PROTECTIVE_STOP
        status.emergency_stopped = status.safety_mode in EMERGENCY_STOPS
        return status


def _robot_health(state: np.void) -> Health:
    fault = stop_reason(int(state['robot_mode']), int(state['safety_mode']))
    level = 2 if fault else 0
    return Health('robot', level, fault or 'ready', {'speed scaling': f'{state["speed_scaling"]:.2f}'})


def _servo_health(beat: np.void, rate_hz: float) -> Health:
    values = {
        'cycle p99 (ms)': f'{beat["cycle_ms_p99"]:.3f}',
        'max cycle (ms)': f'{beat["cycle_ms_max"]:.3f}',
    }
    late = bool(beat['cycle_ms_p99'] > _LATE_PERIODS * 1e3 / rate_hz)
    return Health('servo loop', int(late), 'late' if late else 'on time', values)


def _gate_health(gate: CommandGate) -> Health:
    counts = {key: str(value) for key, value in vars(gate.counters).items()}
    text = gate.reason or f'{gate.state.name.lower()}, {gate.source or "nobody"} commands'
    return Health('commands', int(gate.state is GateState.STOPPED), text, counts)


def _pose_message(stamp, pose6: np.ndarray) -> PoseStamped:
    x, y, z, qx, qy, qz, qw = pose_from_rotvec(pose6).tolist()
    message = PoseStamped(
        pose=Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))
    )
    message.header.stamp = stamp
    message.header.frame_id = _FRAME
    return message


def main() -> int:
    """Entry of `ros2 run groot_ros ur5e_driver`. Threads that start later inherit the real-time priority."""
    set_realtime_priority(NODE_PRIORITY, threads=True)
    return run_node(Ur5eDriver)


if __name__ == '__main__':
    raise SystemExit(main())
