# SPDX-License-Identifier: Apache-2.0
"""The simulated cell alone, for trying drivers against it: ros2 launch groot_ros sim.launch.py --show-args lists what can be chosen."""

from groot_ros.ros.launch_description import describe


def generate_launch_description():
    """Entry of ros2 launch."""
    return describe('sim', sim=True)
