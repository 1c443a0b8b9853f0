# SPDX-License-Identifier: Apache-2.0
"""The ROS side of the simulator: the scripted operator and the demo."""
