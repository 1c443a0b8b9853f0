"""Devices behind plain classes: UR5e, Robotiq gripper, cameras. Imports no ROS."""
