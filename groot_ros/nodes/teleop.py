# SPDX-License-Identifier: Apache-2.0
"""teleop: publishes the operator's commands as teleop/tcp_delta, and calls the services of buttons."""

import time

import numpy as np
from geometry_msgs.msg import PoseStamped

from groot_ros.control.publisher_binding import first_sequence
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.message_fields import pose_from_msg
from groot_ros.msg import EpisodeStatus, RobotStatus, TcpDelta
from groot_ros.ros.lifecycle_node import GrootNode
from groot_ros.ros.parameters import ParameterSpec
from groot_ros.ros.qos import COMMAND_QOS, STATUS_QOS, STREAM_QOS
from groot_ros.ros.run import run_node
from groot_ros.ros.service_clients import ServiceClients
from groot_ros.ros.time import to_time_msg
from groot_ros.ros.transforms import BASE_FRAME, FRAME_PARAMETERS
from groot_ros.sampling.stream_monitor import Health
from groot_ros.teleop.device import TELEOP_DEVICES, check_device
from groot_ros.teleop.operator import Operator, OperatorContext, OperatorStep, open_operator
from groot_ros.teleop.status_line import CellState
from groot_ros.ur5e_kinematics import DEFAULT_TCP_OFFSET

_SHOW_S = 0.5
_ARM_STATES = {
    RobotStatus.DISABLED: 'disabled',
    RobotStatus.ENABLED: 'enabled',
    RobotStatus.STOPPED: 'stopped',
    RobotStatus.FREEDRIVE: 'guided by hand',
}
_EPISODE_STATES = {EpisodeStatus.RECORDING: 'recording', EpisodeStatus.PAUSED: 'paused'}

PARAMETERS = {
    'source': ParameterSpec('keyboard', f'what the operator commands with: {", ".join(TELEOP_DEVICES)}'),
    'map': ParameterSpec(
        '',
        "map of the device: a name in config/teleop, or a path; empty for the device's own; "
        "'game_controller' fits game_controller_node",
    ),
    'joy_topic': ParameterSpec(
        '', 'topic of sensor_msgs/Joy, for joy and spacenav; empty for joy and spacenav/joy'
    ),
    'rate_hz': ParameterSpec(40.0, 'rate of teleop/tcp_delta, Hz', 10.0, 125.0),
    'task': ParameterSpec(
        '', 'what the demonstrations show, in words; needed to start an episode with a button'
    ),
    'operator_name': ParameterSpec('', 'name of the operator, written into each episode'),
    'home_joints_rad': ParameterSpec(
        [-1.5708, -1.5708, -1.5708, -1.5708, 1.5708, 0.0],
        'joint positions of the home pose, to which the home button drives in a straight line, rad',
    ),
    'tcp_offset': ParameterSpec(
        DEFAULT_TCP_OFFSET.tolist(),
        'flange to TCP, UR x y z rx ry rz in m and rad; must be that of ur5e_driver',
    ),
    'phone_host': ParameterSpec(
        '127.0.0.1',
        "address to serve the phone's page at; a phone needs this machine's address in its network",
    ),
    'phone_port': ParameterSpec(4443, "port of the phone's page"),
    'sim_host': ParameterSpec('127.0.0.1', 'address of sim_cell, for scripted'),
    'episodes': ParameterSpec(3, 'number of demonstrations to record, for scripted'),
    'seed': ParameterSpec(0, 'seed of the cube poses and start poses, for scripted'),
    **FRAME_PARAMETERS,
}


class Teleop(GrootNode):
    """Publishes one step per tick while the deadman is held, and a release when it opens."""

    def __init__(self) -> None:
        super().__init__('teleop', PARAMETERS)
        self._base = self.parameter('tf_prefix') + BASE_FRAME
        check_device(self.parameter('source'))
        self._period_s = 1.0 / self.parameter('rate_hz')
        self._operator: Operator | None = None
        self._service_clients = ServiceClients(self)
        self._robot_state = RobotStatus.DISABLED
        self._episode_state = EpisodeStatus.IDLE
        self._cell = CellState()
        self._target: Array | None = None
        self._target_subscription = None
        self._sequence = first_sequence()
        self._stamp_ns = 0
        self._held = False
        self._deltas = self.create_publisher(TcpDelta, 'teleop/tcp_delta', COMMAND_QOS)
        self.create_subscription(RobotStatus, 'robot_status', self._on_robot_status, STATUS_QOS)
        self.create_subscription(EpisodeStatus, 'episode_status', self._on_episode_status, STATUS_QOS)
        self.create_timer(self._period_s, self._tick)
        self.create_timer(_SHOW_S, self._show)

    def configure(self) -> None:
        """Opens the device. Raises GrootRosError, with what to do, if that fails."""
        parameters = {name: self.parameter(name) for name in PARAMETERS}
        context = OperatorContext(self.parameter('source'), parameters, self, self._service_clients)
        self._operator = open_operator(context)
        if self._operator.description:
            self.get_logger().info(self._operator.description)

    def deactivate(self) -> None:
        """Gives up control of the arm, so that it stops following the operator."""
        self._release()

    def cleanup(self) -> None:
        """Closes the input device of the operator."""
        if self._operator is not None:
            self._operator.close()
            self._operator = None

    def on_fault(self, reason: str) -> None:
        """Gives up control of the arm, as `deactivate`."""
        self._release()

    def diagnose(self) -> list[Health]:
        """Reports whether the operator commands the arm, and from which device."""
        text = 'commands' if self._held else 'rests'
        return [Health('operator', 0, text, {'source': self.parameter('source')})]

    def _on_target(self, message: PoseStamped) -> None:
        self._target = pose_from_msg(message)

    def _on_episode_status(self, message: EpisodeStatus) -> None:
        self._episode_state = message.state
        self._cell.episode = message.episode
        self._cell.recording = _EPISODE_STATES.get(message.state, 'idle')
        self._cell.rows = message.rows
        self._cell.task = message.task or self.parameter('task')
        problems = [f'{stream.topic}: {stream.problem}' for stream in message.streams if stream.problem]
        self._cell.worst_stream = problems[0] if problems else ''

    def _show(self) -> None:
        if self.active and self._operator is not None:
            self._operator.show(self._cell)

    def _on_robot_status(self, message: RobotStatus) -> None:
        if message.state != self._robot_state:
            self._target = None
            self._held = False
        self._robot_state = message.state
        self._cell.arm = _ARM_STATES.get(message.state, 'unknown')
        enabled = message.state == RobotStatus.ENABLED
        self._subscribe_to_target(enabled and self._operator is not None and self._operator.needs_target)

    def _subscribe_to_target(self, needed: bool) -> None:
        if needed and self._target_subscription is None:
            self._target_subscription = self.create_subscription(
                PoseStamped, 'tcp_target', self._on_target, STREAM_QOS
            )
        elif not needed and self._target_subscription is not None:
            self.destroy_subscription(self._target_subscription)
            self._target_subscription = None

    def _tick(self) -> None:
        if not self.active or self._operator is None:
            return
        guided = self._robot_state == RobotStatus.FREEDRIVE
        try:
            step = self._operator.step(self._target, time.monotonic(), guided)
        except GrootRosError as error:
            self.fail(str(error))
            return
        for event in step.events:
            self._call_service(event)
        self._follow(step)

    def _follow(self, step: OperatorStep) -> None:
        if self._robot_state == RobotStatus.FREEDRIVE:
            if 'gripper' in step.events:
                self._publish_step(OperatorStep(np.zeros(6), step.opening, held=False))
        elif self._robot_state == RobotStatus.ENABLED and step.held:
            self._held = True
            self._publish_step(step)
        else:
            self._release()

    def _call_service(self, event: str) -> None:
        """Calls the service of a button; other events need none."""
        services = self._service_clients
        calls = {
            'start': lambda: services.start(self.parameter('task'), self.parameter('operator_name')),
            'stop_success': lambda: services.stop(True),
            'stop_failure': lambda: services.stop(False),
            'discard': services.discard,
            'redo': services.redo,
            'pause': lambda: services.pause(self._episode_state != EpisodeStatus.PAUSED),
            'next_task': services.next_task,
            'skip_task': services.skip_task,
            'enable': lambda: services.enable(True),
            'disable': lambda: services.enable(False),
            'recover': services.recover,
            'freedrive': lambda: services.freedrive(self._robot_state != RobotStatus.FREEDRIVE),
        }
        if event in calls:
            calls[event]()

    def _release(self) -> None:
        if self._held:
            self._held = False
            self._sequence += 1
            self.publish(self._deltas, TcpDelta(source='teleop', sequence=self._sequence, released=True))

    def _publish_step(self, step: OperatorStep) -> None:
        """Stamps are a whole number of periods apart while the timer keeps up, without its jitter."""
        now_ns = self.now_ns()
        period_ns = round(self._period_s * 1e9)
        next_ns = self._stamp_ns + period_ns
        self._stamp_ns = next_ns if abs(now_ns - next_ns) < period_ns else now_ns
        self._sequence += 1
        message = TcpDelta(
            source='teleop', sequence=self._sequence, opening=step.opening, duration=self._period_s
        )
        message.translation = step.delta[:3]
        message.rotation = step.delta[3:]
        message.header.stamp = to_time_msg(self._stamp_ns)
        message.header.frame_id = self._base
        self.publish(self._deltas, message)


def main() -> int:
    """Entry of `ros2 run groot_ros teleop`."""
    return run_node(Teleop)


if __name__ == '__main__':
    raise SystemExit(main())
