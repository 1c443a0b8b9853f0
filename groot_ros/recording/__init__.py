"""Records one episode: messages in, bag and verdict out. Imports no ROS."""
