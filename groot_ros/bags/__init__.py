"""Reading and writing rosbags and their video. Imports no ROS."""
