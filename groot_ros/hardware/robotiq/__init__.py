# SPDX-License-Identifier: Apache-2.0
"""The Robotiq gripper, through the URCap socket or Modbus. Imports no ROS."""
