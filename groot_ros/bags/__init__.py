# SPDX-License-Identifier: Apache-2.0
"""Reading and writing rosbags and their video. Imports no ROS."""
