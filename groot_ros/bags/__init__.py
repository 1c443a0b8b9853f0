# SPDX-License-Identifier: Apache-2.0
"""Bags of episodes: message types and topics, reading, writing and recovering. Imports no ROS."""
