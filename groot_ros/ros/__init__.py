# SPDX-License-Identifier: Apache-2.0
"""Helpers of the nodes. Only this folder, nodes/ and sim/nodes/ import rclpy, messages and launch."""
