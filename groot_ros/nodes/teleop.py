# SPDX-License-Identifier: Apache-2.0
"""teleop: turns an operator's input into teleop/tcp_delta, and buttons into calls of the recorder and the arm's driver."""

import time

import numpy as np
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Joy

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
from groot_ros.sampling.stream_monitor import Health
from groot_ros.sim.nodes.scripted_operator import ScriptedOperator
from groot_ros.teleop.mapping import DeviceState, TeleopMap, TeleopMapper, load_map
from groot_ros.teleop.operator import InputDevice, ManualOperator, OperatorStep
from groot_ros.ur5e_kinematics import DEFAULT_TCP_OFFSET, forward

MAPS = {
    'joy': 'joy', 'spacenav': 'spacenav', 'spacemouse': 'spacemouse', 'keyboard': 'keyboard', 'hand_guiding': 'hand_guiding', 'phone': 'phone',
}  # fmt: skip
TOPICS = {'joy': 'joy', 'spacenav': 'spacenav/joy'}

PARAMETERS = {
    'source': ParameterSpec('keyboard', f"'scripted' (sim_cell's own operator) or one of {', '.join(MAPS)}"),
    'map': ParameterSpec(
        '',
        "name in config/teleop, or path, of the map; empty takes the source's; 'game_controller' fits game_controller_node",
    ),
    'joy_topic': ParameterSpec('', 'topic of sensor_msgs/Joy; empty takes joy, or spacenav/joy'),
    'rate_hz': ParameterSpec(40.0, 'rate of teleop/tcp_delta, Hz', 10.0, 125.0),
    'task': ParameterSpec(
        '', 'what the demonstrations show, in words; needed to start an episode by a button'
    ),
    'operator_name': ParameterSpec('', 'name written into each episode'),
    'home_joints_rad': ParameterSpec(
        [-1.5708, -1.5708, -1.5708, -1.5708, 1.5708, 0.0],
        'where the home button drives to, in a straight line, rad',
    ),
    'tcp_offset': ParameterSpec(
        DEFAULT_TCP_OFFSET.tolist(), 'flange to TCP as in ur5e_driver, UR x y z rx ry rz in m and rad'
    ),
    'phone_host': ParameterSpec(
        '127.0.0.1',
        "address to serve the phone's page on; a phone needs this machine's address in its network",
    ),
    'phone_port': ParameterSpec(4443, "port of the phone's page"),
    'sim_host': ParameterSpec('127.0.0.1', 'address of sim_cell, for source scripted'),
    'episodes': ParameterSpec(3, 'how many demonstrations the scripted operator records before it rests'),
    'seed': ParameterSpec(0, 'seed of cube places and starts, for source scripted'),
}


class JoyTopic:
    """The newest sensor_msgs/Joy as an input device: axes and buttons by number; button 13 is the axis 'button13' too."""

    def __init__(self, node: GrootNode, topic: str) -> None:
        self._raw: DeviceState | None = None
        self._node = node
        self._subscription = node.create_subscription(Joy, topic, self._on_joy, STREAM_QOS)

    def read(self) -> DeviceState | None:
        """The newest message; it goes stale by itself."""
        return self._raw

    def close(self) -> None:
        """Ends the subscription."""
        self._node.destroy_subscription(self._subscription)

    def _on_joy(self, message: Joy) -> None:
        axes = {str(i): float(value) for i, value in enumerate(message.axes)}
        axes |= {f'button{i}': float(value) for i, value in enumerate(message.buttons)}
        self._raw = DeviceState(
            time.monotonic(), axes, frozenset(str(i) for i, down in enumerate(message.buttons) if down)
        )


class Teleop(GrootNode):
    """Publishes a step on every tick while the operator commands, and lets go when the dead-man opens."""

    def __init__(self) -> None:
        super().__init__('teleop', PARAMETERS)
        if self.parameter('source') not in (*MAPS, 'scripted'):
            raise GrootRosError(
                f"The teleop source {self.parameter('source')!r} is not known: use 'scripted', {', '.join(MAPS)}."
            )
        self._period_s = 1.0 / self.parameter('rate_hz')
        self._operator: ManualOperator | ScriptedOperator | None = None
        self._map: TeleopMap | None = None
        self._client = ServiceClients(self)
        self._state = RobotStatus.DISABLED
        self._target: Array | None = None
        self._sequence, self._stamp_ns = 0, 0
        self._held = False
        self._deltas = self.create_publisher(TcpDelta, 'teleop/tcp_delta', COMMAND_QOS)
        self._targets = None
        self._episode = EpisodeStatus.IDLE
        self.create_subscription(RobotStatus, 'robot_status', self._on_status, STATUS_QOS)
        self.create_subscription(
            EpisodeStatus,
            'episode_status',
            lambda message: setattr(self, '_episode', message.state),
            STATUS_QOS,
        )
        self.create_timer(self._period_s, self._tick)

    def configure(self) -> None:
        """Opens the device. Raises GrootRosError, with the mending, where that fails."""
        if self.parameter('source') == 'scripted':
            self._operator = ScriptedOperator(
                self._client, self.parameter('sim_host'), self.parameter('episodes'), self.parameter('seed'),
                self.parameter('operator_name') or 'scripted', self._period_s,
            )  # fmt: skip
            return
        self._map = load_map(self.parameter('map') or MAPS[self.parameter('source')])
        home = forward(np.array(self.parameter('home_joints_rad')), np.array(self.parameter('tcp_offset')))
        self._operator = ManualOperator(
            self._device(self._map), TeleopMapper(self._map), self._period_s, home
        )
        self.get_logger().info(f'{self._map.name}: {self._map.help}')

    def deactivate(self) -> None:
        """Lets go of the arm."""
        self._let_go()

    def cleanup(self) -> None:
        """Releases the device."""
        if self._operator is not None:
            self._operator.close()

    def diagnose(self) -> list[Health]:
        """Whether the operator commands."""
        return [
            Health('operator', 0, 'commands' if self._held else 'rests', {'source': self.parameter('source')})
        ]

    def _device(self, chosen: TeleopMap) -> InputDevice:
        source = self.parameter('source')
        # Each device needs a library or a terminal that the others do without.
        if source in TOPICS:
            return JoyTopic(self, self.parameter('joy_topic') or TOPICS[source])
        if source == 'spacemouse':
            from groot_ros.teleop.spacemouse import SpaceMouse

            return SpaceMouse()
        if source == 'phone':
            from groot_ros.teleop.phone import Phone

            return Phone(
                self.parameter('phone_host'),
                self.parameter('phone_port'),
                chosen.linear_speed_m_s,
                chosen.angular_speed_rad_s,
            )
        from groot_ros.teleop.keyboard import Keyboard

        return Keyboard()

    def _on_target(self, message: PoseStamped) -> None:
        self._target = pose_from_msg(message)

    def _on_status(self, message: RobotStatus) -> None:
        if message.state != RobotStatus.ENABLED and isinstance(self._operator, ScriptedOperator):
            self._operator.reset()
        if message.state != self._state:
            self._target, self._held = None, False
        self._state = message.state
        self._listen(self._state == RobotStatus.ENABLED and self._needs_target())

    def _needs_target(self) -> bool:
        """The scripted operator needs the first one only: 125 messages a second cost a Python node much."""
        if self._map is None:
            return self._target is None
        return self._map.frame == 'tool' or 'home' in self._map.buttons

    def _listen(self, on: bool) -> None:
        if on and self._targets is None:
            self._targets = self.create_subscription(PoseStamped, 'tcp_target', self._on_target, STREAM_QOS)
        elif not on and self._targets is not None:
            self.destroy_subscription(self._targets)
            self._targets = None

    def _tick(self) -> None:
        if not self.active or self._operator is None:
            return
        if isinstance(self._operator, ManualOperator):
            self._obey(
                self._operator.step(self._target, time.monotonic(), self._state == RobotStatus.FREEDRIVE)
            )
        elif self._state == RobotStatus.ENABLED and self._target is not None:
            try:
                self._publish(self._operator.step(self._target))
            except GrootRosError as error:
                self.fail(str(error))

    def _obey(self, step: OperatorStep) -> None:
        for event in step.events:
            self._answer(event)
        if self._state == RobotStatus.FREEDRIVE:
            if 'gripper' in step.events:
                self._publish(OperatorStep(np.zeros(6), step.opening, held=False))
        elif self._state == RobotStatus.ENABLED and step.held:
            self._held = True
            self._publish(step)
        else:
            self._let_go()

    def _answer(self, event: str) -> None:
        """Calls the service that a button stands for."""
        calls = {
            'start': lambda: self._client.start(self.parameter('task'), self.parameter('operator_name')),
            'save': lambda: self._client.stop(True),
            'fail': lambda: self._client.stop(False),
            'discard': self._client.discard,
            'redo': self._client.redo,
            'pause': lambda: self._client.pause(self._episode != EpisodeStatus.PAUSED),
            'enable': lambda: self._client.enable(True),
            'stop': lambda: self._client.enable(False),
            'recover': self._client.recover,
            'freedrive': lambda: self._client.freedrive(self._state != RobotStatus.FREEDRIVE),
        }
        if event in calls:
            calls[event]()

    def _let_go(self) -> None:
        if self._held:
            self._held = False
            self._sequence += 1
            self.publish(self._deltas, TcpDelta(source='teleop', sequence=self._sequence, released=True))

    def _publish(self, step: OperatorStep) -> None:
        """Stamps lie on the grid of the period while the timer keeps it: jitter of the timer is not jitter of the motion."""
        now_ns, period_ns = self.now_ns(), round(self._period_s * 1e9)
        following_ns = self._stamp_ns + period_ns
        self._stamp_ns = following_ns if abs(now_ns - following_ns) < period_ns else now_ns
        self._sequence += 1
        message = TcpDelta(
            source='teleop', sequence=self._sequence, opening=step.opening, duration=self._period_s
        )
        message.translation, message.rotation = step.delta[:3], step.delta[3:]
        message.header.stamp, message.header.frame_id = to_time_msg(self._stamp_ns), 'base'
        self.publish(self._deltas, message)


def main() -> int:
    """Entry of `ros2 run groot_ros teleop`."""
    return run_node(Teleop)


if __name__ == '__main__':
    raise SystemExit(main())
