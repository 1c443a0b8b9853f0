"""Camera sources. Imports no ROS."""
