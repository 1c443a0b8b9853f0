"""The ROS side of the simulator: the scripted operator and the demo."""
