# SPDX-License-Identifier: Apache-2.0
"""What runs between a command and the robot: gate, limits, set-points, clocks. No ROS, no device."""
