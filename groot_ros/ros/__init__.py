# SPDX-License-Identifier: Apache-2.0
"""Helpers of the nodes. Beside nodes/ the only folder that imports rclpy, messages and launch."""
