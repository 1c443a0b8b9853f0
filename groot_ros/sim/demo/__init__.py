# SPDX-License-Identifier: Apache-2.0
"""Figures and report of `groot-ros demo`. Imports no ROS; sim/nodes/demo.py runs the loop."""
