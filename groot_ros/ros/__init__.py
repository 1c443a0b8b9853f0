"""Helpers of the nodes. Beside nodes/ the only folder that imports rclpy, messages and launch."""
