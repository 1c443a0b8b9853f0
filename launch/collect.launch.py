# SPDX-License-Identifier: Apache-2.0
"""Drivers, recorder and teleoperation.

List the arguments with `ros2 launch groot_ros collect.launch.py --show-args`.
"""

from groot_ros.ros.launch_description import describe


def generate_launch_description():
    """Called by `ros2 launch`."""
    return describe('collect')
