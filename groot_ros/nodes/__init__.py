# SPDX-License-Identifier: Apache-2.0
"""ROS 2 nodes: parameters, topics, services. The only folder that imports rclpy or messages."""
