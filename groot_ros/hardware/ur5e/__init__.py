# SPDX-License-Identifier: Apache-2.0
"""The UR5e: processes that own ur_rtde, dashboard, modes. Imports no ROS."""
