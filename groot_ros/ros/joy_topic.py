# SPDX-License-Identifier: Apache-2.0
"""Teleoperation devices whose ROS drivers publish sensor_msgs/Joy: gamepads and the spacenav node."""

import time

from rclpy.node import Node
from sensor_msgs.msg import Joy

from groot_ros.ros.qos import STREAM_QOS
from groot_ros.teleop.device import DeviceState
from groot_ros.teleop.operator import OperatorContext


class JoyTopic:
    """The newest sensor_msgs/Joy. Keys are numbers; button 13 is also the axis 'button13'."""

    topic = 'joy'

    @classmethod
    def open(cls, context: OperatorContext) -> 'JoyTopic':
        """Subscribes to the parameter `joy_topic`, or to the usual topic of the driver if that is empty."""
        return cls(context.node, context.parameters['joy_topic'] or cls.topic)

    def __init__(self, node: Node, topic: str) -> None:
        self._state: DeviceState | None = None
        self._node = node
        self._subscription = node.create_subscription(Joy, topic, self._on_joy, STREAM_QOS)

    def read(self) -> DeviceState | None:
        """The newest message. The mapper ignores it once it is too old."""
        return self._state

    def close(self) -> None:
        """Ends the subscription to the Joy topic."""
        self._node.destroy_subscription(self._subscription)

    def _on_joy(self, message: Joy) -> None:
        axes = {str(index): float(value) for index, value in enumerate(message.axes)}
        axes |= {f'button{index}': float(value) for index, value in enumerate(message.buttons)}
        pressed = frozenset(str(index) for index, value in enumerate(message.buttons) if value)
        self._state = DeviceState(time.monotonic(), axes, pressed)


class SpacenavTopic(JoyTopic):
    """A SpaceMouse, read from the Joy messages of spacenav_node."""

    topic = 'spacenav/joy'
