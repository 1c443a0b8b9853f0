# SPDX-License-Identifier: Apache-2.0
"""Metrics and report of `groot-ros demo`, without ROS. sim/nodes/demo.py runs the demo."""
