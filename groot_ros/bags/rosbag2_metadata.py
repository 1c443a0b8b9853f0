# SPDX-License-Identifier: Apache-2.0
"""What rosbag2 writes besides the messages: the distribution, and the quality of service of each topic.

`ros2 bag play` offers a topic as its `offered_qos_profiles` say. Without them it would offer a latched topic
(transient local) as volatile, and a subscriber that asks for latched messages would get none.
"""

import os
from collections.abc import Sequence
from importlib import metadata

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2.metadata import parse_qos

_INFINITE = QosTime(9_223_372_036, 854_775_807)
# Of the topics that our recorder adds, and of any topic whose publisher is not known: the default of rclcpp.
DEFAULT_QOS = Qos(
    history=QosHistory.KEEP_LAST,
    depth=10,
    reliability=QosReliability.RELIABLE,
    durability=QosDurability.VOLATILE,
    deadline=_INFINITE,
    lifespan=_INFINITE,
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=_INFINITE,
    avoid_ros_namespace_conventions=False,
)
# rclpy has a major version for each distribution.
_DISTRIBUTION_OF_RCLPY = {'3': 'humble', '4': 'iron', '7': 'jazzy', '9': 'kilted'}


def ros_distribution() -> str:
    """The name of the running ROS distribution, such as `jazzy`; empty where there is none.

    Like rosbag2 it is taken from ROS_DISTRO. ROS from Python wheels does not set that, but has an rclpy.
    """
    if name := os.environ.get('ROS_DISTRO'):
        return name
    try:
        version = metadata.version('rclpy')
    except metadata.PackageNotFoundError:
        return ''
    return _DISTRIBUTION_OF_RCLPY.get(version.split('.')[0], '')


def parse_profiles(text: str) -> Sequence[Qos]:
    """The profiles of the entry `offered_qos_profiles` of an MCAP channel.

    Gives DEFAULT_QOS where there is none, or where it cannot be read.
    """
    try:
        return parse_qos(text) or (DEFAULT_QOS,)
    except Exception:  # of ruamel or rosbags: a damaged entry must not keep a bag from being recovered
        return (DEFAULT_QOS,)
