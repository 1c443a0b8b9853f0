# SPDX-License-Identifier: Apache-2.0
"""Drivers, recorder and policy server: ros2 launch groot_ros deploy.launch.py --show-args lists what can be chosen."""

from groot_ros.ros.launch_description import describe


def generate_launch_description():
    """Entry of ros2 launch."""
    return describe('deploy')
