# SPDX-License-Identifier: Apache-2.0
"""ROS time stamps and nanoseconds."""

from builtin_interfaces.msg import Time


def to_time_msg(stamp_ns: int) -> Time:
    """The builtin_interfaces/Time of a time in nanoseconds."""
    return Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)
