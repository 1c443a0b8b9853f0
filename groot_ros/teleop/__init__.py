# SPDX-License-Identifier: Apache-2.0
"""Teleoperation: devices (device.py has the table), maps, and operators. Imports no ROS."""
