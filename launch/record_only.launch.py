"""Drivers and recorder, episodes by service: ros2 launch groot_ros record_only.launch.py --show-args lists what can be chosen."""

from groot_ros.nodes.launching import describe


def generate_launch_description():
    """Entry of ros2 launch."""
    return describe('record')
