# SPDX-License-Identifier: Apache-2.0
"""Devices as plain classes: UR5e, Robotiq gripper, cameras. Imports no ROS."""

DEFAULT_ROBOT_IP = '192.168.1.100'
