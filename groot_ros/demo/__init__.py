"""Figures and report of `groot-ros demo`. Imports no ROS; nodes/demo.py runs the loop."""
