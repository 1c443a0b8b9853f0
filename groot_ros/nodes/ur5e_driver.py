# SPDX-License-Identifier: Apache-2.0
"""ur5e_driver: publishes the arm's state and passes accepted commands to the servo loop.

The rules are elsewhere: when the arm may move and what stops it in hardware/ur5e/session.py, who may command
in control/command_gate.py, limits in control/limits.py, recovery from stops in hardware/ur5e/dashboard.py.
"""

import math
import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger

from groot_ros.control.command_gate import POLICY, TELEOP, CommandGate, DeltaCommand, GateSettings, GateState
from groot_ros.control.device_clock import DeviceClock
from groot_ros.control.limits import LOWERABLE, Limits, RefusedError
from groot_ros.control.publisher_binding import RivalError
from groot_ros.control.tracking_monitor import TrackingMonitor
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array, pose_from_rotvec
from groot_ros.hardware.realtime import priority_problem, raise_node_priority
from groot_ros.hardware.ur5e.arm import Ur5e, Ur5eSettings
from groot_ros.hardware.ur5e.installation import differences
from groot_ros.hardware.ur5e.modes import stop_reason
from groot_ros.hardware.ur5e.session import ArmSession, SessionSettings
from groot_ros.message_fields import stamp_to_ns
from groot_ros.msg import RobotStatus, TcpDelta
from groot_ros.nodes.arm_messages import (
    gate_health,
    joint_state_message,
    modes_of,
    pose_message,
    robot_health,
    servo_health,
    status_message,
)
from groot_ros.ros.lifecycle_node import GrootNode
from groot_ros.ros.parameters import ParameterSpec, specs_from
from groot_ros.ros.qos import COMMAND_QOS, STATUS_QOS, STREAM_QOS
from groot_ros.ros.run import run_node
from groot_ros.ros.services import create_waiting_service
from groot_ros.ros.time import to_time_msg
from groot_ros.ros.transforms import (
    BASE_FRAME,
    FRAME_PARAMETERS,
    TOOL_FRAME,
    TransformPublisher,
    make_transform,
)
from groot_ros.sampling.stream_monitor import Health, StreamMeter

_FRESH_S = 0.5
_WATCH_S = 0.05
_DISCOVERY_S = 0.5
_RIVAL_S = 3.0
_TELL_S = 60.0
# A page says within a second that the driver has fallen silent.
_STATUS_HZ = 4
_NOT_ACTIVE = 'the driver is not active'
_SOURCES = {'teleop/tcp_delta': TELEOP, 'policy/tcp_delta': POLICY}

PARAMETERS = {
    'connect_timeout_s': ParameterSpec(
        15.0, 'end with an error if no data arrives from the robot within this time, s', 1.0, 600.0
    ),
    **FRAME_PARAMETERS,
    **specs_from(Ur5eSettings, Limits, GateSettings, SessionSettings),
}
PARAMETERS |= {
    name: replace(
        PARAMETERS[name],
        description=f'{PARAMETERS[name].description}; it may not be raised above its value at the start',
        may_change=True,
    )
    for name in LOWERABLE
}


class Ur5eDriver(GrootNode):
    """Topics and services around ArmSession. Each topic of commands belongs to one source."""

    def __init__(self) -> None:
        super().__init__('ur5e_driver', PARAMETERS)
        self._base = self.parameter('tf_prefix') + BASE_FRAME
        self._tool = self.parameter('tf_prefix') + TOOL_FRAME
        self._transforms = TransformPublisher(self)
        self._joints = self.create_publisher(JointState, 'joint_states', STREAM_QOS)
        self._pose = self.create_publisher(PoseStamped, 'tcp_pose', STREAM_QOS)
        self._target = self.create_publisher(PoseStamped, 'tcp_target', STREAM_QOS)
        self._accepted = self.create_publisher(TcpDelta, 'command/tcp_delta', COMMAND_QOS)
        self._status = self.create_publisher(RobotStatus, 'robot_status', STATUS_QOS)
        self._robot_clock = DeviceClock()
        self._meter = StreamMeter('joint_states', self.parameter('state_rate_hz'))
        self._began_with = {name: self.parameter(name) for name in LOWERABLE}
        self._session = self._make_session()
        self._began_s = time.monotonic()
        self._published: tuple = ()
        self._compared = False
        self._told_s = -math.inf
        self._last_release = TcpDelta()
        self._rival = ''
        self._rival_s = -math.inf
        for topic, source in _SOURCES.items():
            self.create_subscription(TcpDelta, topic, partial(self._on_delta, source), COMMAND_QOS)
        create_waiting_service(self, SetBool, '~/enable', self._on_enable)
        create_waiting_service(self, SetBool, '~/freedrive', self._on_freedrive)
        create_waiting_service(self, Trigger, '~/recover', self._on_recover)
        self.create_timer(_WATCH_S, self._watch)

    def _make_session(self) -> ArmSession:
        limits = self.settings(Limits, **self._began_with)
        for name in LOWERABLE:
            limits.lower(name, self.parameter(name))
        tcp_offset = np.array(self.parameter('tcp_offset'))
        gate = CommandGate(limits, tcp_offset, self.settings(GateSettings))
        settings = self.settings(SessionSettings)
        tracking = TrackingMonitor(self.parameter('lookahead_s'), settings.tracking_margin_s)
        return ArmSession(gate, tracking, settings, self.warn)

    def configure(self) -> None:
        """Starts the processes that own ur_rtde. Nothing is uploaded to the robot, and nothing moves.

        Raises GrootRosError if another driver of this name runs: one call would enable both arms.
        """
        deadline_s = time.monotonic() + _DISCOVERY_S
        while not (twin := self._twin()) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        if twin:
            raise GrootRosError(twin)
        if problem := priority_problem():
            self.warn(f'On a busy computer the arm may move unevenly and stop: {problem}.')
        self._began_s = time.monotonic()
        self._session = self._make_session()  # nothing of an earlier connection is taken for the present
        limits = self._session.gate.limits
        settings = self.settings(Ur5eSettings, smoothing_s=limits.smoothing_s, max_speeds=limits.max_speeds)
        self._session.arm = Ur5e(
            settings,
            self._on_state,
            self._on_beat,
            self._on_state_loss,
            self._on_control_loss,
            self._on_call,
        )

    def change_parameter(self, name: str, value: Any) -> None:
        """Lowers a limit, or raises it again up to what the node started with, also while the arm moves."""
        self._session.limit(name, value)
        self.get_logger().info(f'{name} is {value:g} for all commands from now on.')

    def deactivate(self) -> None:
        """Slows the arm down and refuses commands."""
        self._session.stop('the driver was deactivated')

    def cleanup(self) -> None:
        """Stops the script, which leaves the arm holding its position."""
        if self._session.arm is not None:
            self._session.arm.close()
            self._session.arm = None

    def on_fault(self, reason: str) -> None:
        """Slows the arm down and refuses commands until it is enabled again."""
        self._session.stop(reason)

    def diagnose(self) -> list[Health]:
        """The stream of states, the robot, the servo loop and the gate."""
        with self._session.lock:
            state = self._session.state
            beat = self._session.beat
        found = [self._meter.health(self.now_ns())]
        if state is not None:
            found.append(robot_health(state))
        if beat is not None:
            found.append(servo_health(beat, self.parameter('servo_rate_hz')))
        found.append(gate_health(self._session.gate, self._reason()))
        return found

    def _on_state(self, state: np.void) -> None:
        self._session.take_state(state)  # first, since it may have to stop the arm
        stamp_ns = self._robot_clock.stamp_ns(float(state['robot_time_s']), int(state['arrival_ns']))
        stamp = to_time_msg(stamp_ns)
        pose = pose_from_rotvec(state['tcp_pose'])
        target = pose_from_rotvec(state['target_pose'])
        self.publish(self._joints, joint_state_message(stamp, self._base, state))
        self.publish(self._pose, pose_message(stamp, self._base, pose))
        self.publish(self._target, pose_message(stamp, self._base, target))
        self._transforms.publish([make_transform(stamp, self._base, self._tool, pose)])
        self._meter.add(stamp_ns, time.time_ns())
        self._compare_installation(state)
        self._publish_status()

    def _compare_installation(self, state: np.void) -> None:
        """Warns once, before the first enable can replace tool and payload; a robot without power waits."""
        if self._compared or stop_reason(int(state['robot_mode']), int(state['safety_mode'])):
            return
        self._compared = True
        for sentence in differences(state, self.parameter('tcp_offset'), self.parameter('payload_kg')):
            self.warn(sentence)

    def _say_what_is_awaited(self) -> None:
        """Tells at once, and then each minute, that nothing moves before somebody enables the arm."""
        waits = self.active and self._compared and self._session.gate.state is GateState.DISABLED
        now_s = time.monotonic()
        if not waits:
            self._told_s = -math.inf
        elif now_s - self._told_s >= _TELL_S:
            self._told_s = now_s
            service = f'{self.get_fully_qualified_name()}/enable'.lstrip('/')
            self.get_logger().info(
                f'waiting for {service}: groot-ros call enable{_namespace_option(self)} '
                f'(or: ros2 service call /{service} std_srvs/srv/SetBool "{{data: true}}")'
            )

    def _on_beat(self, beat: np.void) -> None:
        rest = self._session.take_beat(beat)
        if rest is not None:
            self._publish_rest(rest)
        self._publish_status()

    def _on_call(self, call: str) -> None:
        self._session.show_progress(call)
        self._publish_status()

    def _on_state_loss(self, reason: str) -> None:
        self._session.lose_state(reason)
        waited_s = time.monotonic() - self._began_s
        if self._session.state is None and waited_s > self.parameter('connect_timeout_s'):
            self.fail(
                f'No UR5e answers at {self.parameter("robot_ip")} ({reason}): check robot_ip, the cable and '
                'that the robot is on.'
            )
        self.warn(f'Lost the state of the arm at {self.parameter("robot_ip")}: {reason}. Connecting again.')

    def _on_control_loss(self, reason: str) -> None:
        self._session.lose_control(reason)
        self.warn(
            f'Lost the servo loop: {reason}. Starting it again; the watchdog on the robot stops the arm.'
        )

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if not request.data:
            return self._answer(response, self._session.disable(), 'disabled: the arm holds')
        problem = self._obstacle() or self._session.enable()
        return self._answer(response, problem, 'enabled: commands move the arm')

    def _on_freedrive(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if not request.data:
            return self._answer(response, self._session.disable(), 'the arm holds')
        problem = self._obstacle() or self._session.enter_freedrive()
        return self._answer(response, problem, 'you can guide the arm by hand')

    def _on_recover(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        problem = '' if self.active else _NOT_ACTIVE
        problem = problem or self._session.recover()
        return self._answer(response, problem, 'recovered: the arm holds until it is enabled')

    def _answer(self, response, problem: str, done: str):
        response.success = not problem
        response.message = problem or done
        self._publish_status()
        return response

    def _obstacle(self) -> str:
        """Why nothing may be enabled, apart from the arm itself; or ''."""
        if not self.active:
            return _NOT_ACTIVE
        return self._twin()

    def _twin(self) -> str:
        """Names another driver of this name, which obeys the same services; or ''."""
        service = f'{self.get_fully_qualified_name()}/enable'
        if self.count_services(service) < 2:
            return ''
        return (
            f'Another node serves {service}: stop it, or give each cell a namespace or a ROS_DOMAIN_ID of '
            'its own. A driver that was killed is seen for up to 20 s.'
        )

    def _note_rival(self, source: str) -> None:
        """Shows in the status for some seconds that a second publisher commands in vain."""
        topic = f'{source}/tcp_delta'
        found = self.get_publishers_info_by_topic(self.resolve_topic_name(topic))
        names = ', '.join(f'{info.node_namespace.rstrip("/")}/{info.node_name}' for info in found)
        self._rival = (
            f'a second publisher of {topic} is refused (seen: {names}): stop all but one, or disable and '
            'enable the arm if the first one has died'
        )
        self._rival_s = time.monotonic()
        self._publish_status()

    def _reason(self) -> str:
        """Why the arm is not enabled, or which publishers compete."""
        recent = time.monotonic() - self._rival_s < _RIVAL_S
        return '; '.join(filter(None, [self._session.reason, self._rival if recent else '']))

    def _on_delta(self, source: str, message: TcpDelta) -> None:
        gate = self._session.gate
        before = gate.source
        try:
            self._check_origin(source, message)
            alone = self.count_publishers(f'{source}/tcp_delta') < 2
            if message.released:
                self._release(message, alone)
            else:
                self._pass_on(message, alone)
        except RefusedError as error:
            if isinstance(error, RivalError):
                self._note_rival(source)
            self.get_logger().warning(f'Refused a command of {source}: {error}.', throttle_duration_sec=2.0)
            return
        if gate.source != before:
            text = f'{source} commands the arm.' if gate.source else f'{before} released the arm: it holds.'
            self.get_logger().info(text)
            self._publish_status()

    def _check_origin(self, source: str, message: TcpDelta) -> None:
        """Refuses, and counts, a source of another topic and for a frame other than that of the base."""
        if message.source != source:
            problem = f'it claims to come from {message.source!r}, whose commands have another topic'
        elif message.header.frame_id not in ('', self._base) and not message.released:
            problem = f'its frame_id is {message.header.frame_id!r}, not {self._base!r}'
        else:
            return
        self._session.gate.counters.refused += 1
        raise RefusedError(problem)

    def _pass_on(self, message: TcpDelta, alone: bool) -> None:
        """Sends an accepted command to the arm and publishes it; raises RefusedError for another one."""
        age_s = (self.now_ns() - stamp_to_ns(message.header.stamp)) / 1e9
        command = DeltaCommand(
            message.source,
            message.sequence,
            time.monotonic() - age_s,
            message.duration,
            np.concatenate([message.translation, message.rotation]),
            message.opening,
            alone,
        )
        waypoint = self._session.submit(command)
        message.translation = waypoint.delta[:3]
        message.rotation = waypoint.delta[3:]
        message.target = waypoint.pose
        self.publish(self._accepted, message)

    def _release(self, message: TcpDelta, alone: bool) -> None:
        with self._session.lock:
            if self._session.release(message.source, message.sequence, alone):
                self._last_release = message

    def _publish_rest(self, rest: Array) -> None:
        """Publishes the release again, with the target at which the arm comes to rest."""
        echo = self._last_release
        echo.header.stamp = self.get_clock().now().to_msg()
        echo.header.frame_id = self._base
        echo.opening = math.nan
        echo.target = rest
        self.publish(self._accepted, echo)

    def _watch(self) -> None:
        moving = self._session.gate.state in (GateState.ENABLED, GateState.FREEDRIVE)
        if moving and (problem := self._twin()):
            self._session.stop(problem)
        self._session.check()
        self._say_what_is_awaited()
        self._publish_status()

    def _publish_status(self) -> None:
        """Publishes robot_status on every change, and four times a second."""
        session = self._session
        with session.lock:
            gate = session.gate
            connected = session.state_age_s < _FRESH_S
            reason = self._reason()
            modes = modes_of(session.state)
            key = (gate.state, gate.source, reason, connected, round(_STATUS_HZ * time.monotonic()), *modes)
            if key == self._published:
                return
            self._published = key
            stamp = self.get_clock().now().to_msg()
            message = status_message(stamp, self._base, gate, reason, connected, session.state)
        self.publish(self._status, message)


def _namespace_option(node: GrootNode) -> str:
    namespace = node.get_namespace()
    return '' if namespace == '/' else f' --namespace {namespace}'


def main() -> int:
    """Entry of `ros2 run groot_ros ur5e_driver`. Threads that start later inherit the priority."""
    raise_node_priority()
    return run_node(Ur5eDriver)


if __name__ == '__main__':
    raise SystemExit(main())
