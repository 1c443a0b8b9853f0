# SPDX-License-Identifier: Apache-2.0
"""Pure numpy between commands and the robot: interpolation, limits, arbitration, clocks. Imports no ROS and no device."""
