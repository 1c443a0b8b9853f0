# SPDX-License-Identifier: Apache-2.0
"""Drivers and recorder; episodes are started and stopped by services.

List the arguments with `ros2 launch groot_ros record.launch.py --show-args`.
"""

from groot_ros.ros.launch_description import describe


def generate_launch_description():
    """Called by `ros2 launch`."""
    return describe('record')
