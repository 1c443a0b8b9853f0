"""ur5e_driver: publishes the arm's state and lets commands through the gate to the servo loop."""

import threading
import time

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from groot_ros.control.clock import DeviceClock
from groot_ros.control.gate import CommandGate, DeltaCommand, GateSettings, GateState
from groot_ros.control.limits import Limits, RefusedError
from groot_ros.geometry import pose_from_rotvec
from groot_ros.hardware.ur5e import Ur5e, Ur5eSettings
from groot_ros.kinematics import JOINT_NAMES
from groot_ros.msg import RobotStatus, TcpDelta
from groot_ros.nodes.common import COMMAND_QOS, STATUS_QOS, STREAM_QOS, GrootNode, Parameter, ns_of, run_node, time_of

_RUNNING, _NORMAL, _REDUCED, _PROTECTIVE_STOP = 7, 1, 2, 3
_EMERGENCY_STOPS = (6, 7)
_SCRIPT_START_S = 7.0
_STILL_RAD_S = 0.05
_FRAME = 'base'

PARAMETERS = {
    'robot_ip': Parameter('192.168.1.100', 'address of the UR5e, or of sim_cell'),
    'connect_timeout_s': Parameter(15.0, 'how long to wait for the first data before giving up, s', 1.0, 600.0),
    'state_rate_hz': Parameter(125.0, 'rate of joint_states, tcp_pose and tcp_target, Hz', 10.0, 500.0),
    'servo_rate_hz': Parameter(500.0, 'rate of the servo loop, Hz: 500 for e-Series, 125 for CB3', 125.0, 500.0),
    'lookahead_s': Parameter(0.1, 'servoL lookahead time, s: longer is smoother and slower', 0.03, 0.2),
    'gain': Parameter(300.0, 'servoL gain', 100.0, 2000.0),
    'tcp_offset': Parameter([0.0, 0.0, 0.174, 0.0, 0.0, 0.0], 'flange to TCP, UR x y z rx ry rz in m and rad'),
    'payload_kg': Parameter(0.94, 'mass behind the flange, kg', 0.0, 5.0),
    'payload_centre_m': Parameter([0.0, 0.0, 0.06], 'centre of that mass in the flange frame, m'),
    'box_lower_m': Parameter([-0.6, -0.85, 0.005], 'lower corner of the TCP box in `base`, m; its z is the floor'),
    'box_upper_m': Parameter([0.6, -0.2, 0.6], 'upper corner of the TCP box in `base`, m'),
    'speed_m_s': Parameter(0.5, 'largest TCP speed, m/s', 0.01, 1.0),
    'rotation_speed_rad_s': Parameter(1.5, 'largest TCP rotation speed, rad/s', 0.01, 3.0),
    'joint_speed_rad_s': Parameter(2.0, 'largest joint speed that a command may ask for, rad/s', 0.1, 3.1),
    'step_m': Parameter(0.075, 'largest translation of one command, m', 0.001, 0.2),
    'step_rad': Parameter(0.3, 'largest rotation of one command, rad', 0.01, 1.0),
    'silence_s': Parameter(0.25, 'silence of the commanding source after which the arm stops, s', 0.05, 2.0),
    'stale_s': Parameter(0.2, 'age of a command above which it is refused, s', 0.02, 2.0),
    'playout_s': Parameter(0.02, 'delay of every command, so that arrival jitter does not show in the motion, s', 0.0, 0.2),
}  # fmt: skip


class Ur5eDriver(GrootNode):
    """Topics and the enable service; the gate decides, hardware/ur5e.py moves."""

    def __init__(self) -> None:
        super().__init__('ur5e_driver', PARAMETERS)
        self._joints = self.create_publisher(JointState, 'joint_states', STREAM_QOS)
        self._pose = self.create_publisher(PoseStamped, 'tcp_pose', STREAM_QOS)
        self._target = self.create_publisher(PoseStamped, 'tcp_target', STREAM_QOS)
        self._accepted = self.create_publisher(TcpDelta, 'command/tcp_delta', COMMAND_QOS)
        self._status = self.create_publisher(RobotStatus, 'robot_status', STATUS_QOS)
        self._lock = threading.Lock()
        self._robot_clock = DeviceClock()
        self._gate = self._make_gate()
        self._state: np.void | None = None
        self._last_data_s = self._began_s = time.monotonic()
        self._enabled_s = 0.0
        self._servoing_seen = False
        self._published: tuple = ()
        for topic in ('teleop/tcp_delta', 'policy/tcp_delta'):
            self.create_subscription(TcpDelta, topic, self._on_delta, COMMAND_QOS)
        self.create_service(SetBool, '~/enable', self._on_enable)
        self.create_timer(0.05, self._watch)
        self._arm = Ur5e(self._settings(), self._on_state, self._on_loss)

    def close(self) -> None:
        """Leaves the arm holding and the script stopped."""
        if hasattr(self, '_arm'):
            self._arm.close()

    def _settings(self) -> Ur5eSettings:
        keys = ('state_rate_hz', 'servo_rate_hz', 'lookahead_s', 'gain', 'payload_kg')
        return Ur5eSettings(
            host=self.parameter('robot_ip'),
            tcp_offset=list(self.parameter('tcp_offset')),
            payload_centre_m=list(self.parameter('payload_centre_m')),
            **{key: self.parameter(key) for key in keys},
        )

    def _make_gate(self) -> CommandGate:
        keys = ('speed_m_s', 'rotation_speed_rad_s', 'joint_speed_rad_s', 'step_m', 'step_rad')
        box = {key: np.array(self.parameter(key)) for key in ('box_lower_m', 'box_upper_m')}
        limits = Limits(**box, **{key: self.parameter(key) for key in keys})
        settings = GateSettings(**{key: self.parameter(key) for key in ('silence_s', 'stale_s', 'playout_s')})
        return CommandGate(limits, np.array(self.parameter('tcp_offset')), settings)

    def _on_state(self, state: np.void) -> None:
        stamp = time_of(self._robot_clock.stamp_ns(float(state['robot_time_s']), int(state['arrival_ns'])))
        message = JointState(name=list(JOINT_NAMES), position=state['joint_positions'].tolist(), velocity=state['joint_velocities'].tolist())
        message.header.stamp, message.header.frame_id = stamp, _FRAME
        self.publish(self._joints, message)
        self.publish(self._pose, _pose_message(stamp, state['tcp_pose']))
        self.publish(self._target, _pose_message(stamp, state['target_pose']))
        with self._lock:
            self._state, self._last_data_s = state.copy(), time.monotonic()
            if self._gate.state is GateState.ENABLED and (fault := self._fault(state)):
                self._gate.stop(fault)
                self._arm.stop()

    def _on_loss(self, reason: str) -> None:
        with self._lock:
            self._gate.stop(reason)
            never = self._state is None
        if never and time.monotonic() - self._began_s > self.parameter('connect_timeout_s'):
            self.fail(f'No UR5e answers at {self.parameter("robot_ip")} ({reason}): check robot_ip, the cable and that the robot is on.')
        self.warn(f'Lost the arm at {self.parameter("robot_ip")}: {reason}. Connecting again.')

    def _fault(self, state: np.void) -> str:
        """Why the arm must not be commanded, or ''."""
        if state['safety_mode'] not in (_NORMAL, _REDUCED):
            return f'safety mode {int(state["safety_mode"])} (3 is a protective stop, 6 and 7 are emergency stops)'
        if state['robot_mode'] != _RUNNING:
            return f'robot mode {int(state["robot_mode"])}, not RUNNING'
        self._servoing_seen = self._servoing_seen or bool(state['servoing'])
        if self._servoing_seen and not state['servoing']:
            return 'the control script on the robot stopped'
        if not self._servoing_seen and time.monotonic() - self._enabled_s > _SCRIPT_START_S:
            return 'the control script did not start on the robot'
        return ''

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        with self._lock:
            if not request.data:
                self._gate.disable()
                self._arm.stop()
                response.success, response.message = True, 'disabled: the arm holds'
            else:
                response.success, response.message = self._enable()
        self._publish_status()
        return response

    def _enable(self) -> tuple[bool, str]:
        if self._state is None or time.monotonic() - self._last_data_s > 0.5:
            return False, f'no fresh data from the robot at {self.parameter("robot_ip")}'
        self._enabled_s, self._servoing_seen = time.monotonic(), False
        if fault := self._fault(self._state):
            return False, f'the robot is not ready: {fault}'
        if np.abs(self._state['joint_velocities']).max() > _STILL_RAD_S:
            return False, 'the arm still moves: enable it when it stands'
        self._gate.enable(pose_from_rotvec(self._state['target_pose']), self._state['target_joints'], self._enabled_s)
        self._servoing_seen = False
        self._arm.start()
        return True, 'enabled: commands move the arm'

    def _on_delta(self, message: TcpDelta) -> None:
        now_s = time.monotonic()
        start_s = now_s + (ns_of(message.header.stamp) - self.now_ns()) / 1e9
        delta = np.concatenate([message.translation, message.rotation])
        command = DeltaCommand(message.source, message.sequence, start_s, message.duration, delta, message.opening)
        with self._lock:
            before = self._gate.source
            try:
                waypoint = self._gate.offer(command, now_s)
            except RefusedError as error:
                self.get_logger().warning(f'Refused a command of {message.source}: {error}.', throttle_duration_sec=2.0)
                return
            self._arm.move(waypoint)
            changed = self._gate.source != before
        message.translation, message.rotation = waypoint.delta[:3], waypoint.delta[3:]
        self._accepted.publish(message)
        if changed:
            self.get_logger().info(f'{message.source} commands the arm.')
            self._publish_status()

    def _watch(self) -> None:
        with self._lock:
            if self._gate.check_silence(time.monotonic()):
                self._arm.stop()
        self._publish_status()

    def _publish_status(self) -> None:
        """On every change, and once a second."""
        status = self._status_message()
        key = (status.state, status.source, status.reason, status.safety_mode, status.robot_mode, status.connected, round(time.monotonic()))
        if key != self._published:
            self._published = key
            self._status.publish(status)

    def _status_message(self) -> RobotStatus:
        status = RobotStatus()
        with self._lock:
            gate, state = self._gate, self._state
            status.header.stamp = self.get_clock().now().to_msg()
            status.connected = state is not None and time.monotonic() - self._last_data_s < 0.5
            status.state, status.source, status.reason = int(gate.state), gate.source, gate.reason
            status.accepted, status.clipped, status.refused = gate.counters.accepted, gate.counters.clipped, gate.counters.refused
        if state is not None:
            status.robot_mode, status.safety_mode = int(state['robot_mode']), int(state['safety_mode'])
            status.runtime_state, status.speed_scaling = int(state['runtime_state']), float(state['speed_scaling'])
            status.protective_stopped = status.safety_mode == _PROTECTIVE_STOP
            status.emergency_stopped = status.safety_mode in _EMERGENCY_STOPS
        return status


def _pose_message(stamp, pose6: np.ndarray) -> PoseStamped:
    x, y, z, qx, qy, qz, qw = pose_from_rotvec(pose6).tolist()
    message = PoseStamped(pose=Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw)))
    message.header.stamp, message.header.frame_id = stamp, _FRAME
    return message


def main() -> int:
    """Entry of `ros2 run groot_ros ur5e_driver`."""
    return run_node(Ur5eDriver)


if __name__ == '__main__':
    raise SystemExit(main())
