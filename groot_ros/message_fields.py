# SPDX-License-Identifier: Apache-2.0
"""Time stamps and poses of ROS messages as numbers, for messages of rclpy and of rosbags alike.

Imports neither.
"""

import struct
from typing import Any

import numpy as np

from groot_ros.geometry import Array

_NS_PER_S = 1_000_000_000


def stamp_to_ns(stamp: Any) -> int:
    """The nanoseconds of a builtin_interfaces/Time."""
    return stamp.sec * _NS_PER_S + stamp.nanosec


def header_stamp_ns(message: Any) -> int:
    """header.stamp of a message in ns."""
    return stamp_to_ns(message.header.stamp)


def cdr_stamp_ns(cdr: bytes) -> int:
    """header.stamp in ns of a serialized message that begins with a std_msgs/Header."""
    is_little_endian = cdr[1] & 1
    seconds, nanoseconds = struct.unpack_from('<iI' if is_little_endian else '>iI', cdr, 4)
    return seconds * _NS_PER_S + nanoseconds


def pose_from_msg(message: Any) -> Array:
    """Pose (7,) of a geometry_msgs/PoseStamped: x y z in m and the quaternion x y z w."""
    position = message.pose.position
    rotation = message.pose.orientation
    return np.array([position.x, position.y, position.z, rotation.x, rotation.y, rotation.z, rotation.w])
