# SPDX-License-Identifier: Apache-2.0
"""Quality of service of our topics. All are reliable, so that the network makes no gaps in a recording."""

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

COMMAND_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
# A history of some seconds: after its next heartbeat (3 s in Fast DDS) the middleware resends what a busy
# receiver missed.
STREAM_QOS = QoSProfile(depth=2000, reliability=ReliabilityPolicy.RELIABLE)
IMAGE_QOS = QoSProfile(depth=30, reliability=ReliabilityPolicy.RELIABLE)
STATUS_QOS = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
