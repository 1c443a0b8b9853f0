"""Sources of teleoperation commands. Imports no ROS."""
