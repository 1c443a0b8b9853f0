# SPDX-License-Identifier: Apache-2.0
"""Records one episode: messages in, bag and verdict out. Imports no ROS."""
