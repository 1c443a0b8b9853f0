# SPDX-License-Identifier: Apache-2.0
"""Sources of teleoperation commands. Imports no ROS."""
