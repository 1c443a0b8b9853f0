# SPDX-License-Identifier: Apache-2.0
"""Helpers of the nodes. Besides nodes/ and sim/nodes/, the only folder that imports rclpy, messages and launch."""
