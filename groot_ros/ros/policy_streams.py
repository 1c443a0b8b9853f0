# SPDX-License-Identifier: Apache-2.0
"""The streams that a policy sees: subscriptions that feed an ObservationBuilder until they are closed."""

from rclpy.node import Node

from groot_ros.bags.message_types import typestore
from groot_ros.message_fields import cdr_stamp_ns
from groot_ros.policies.observation_builder import ObservationBuilder
from groot_ros.ros.topic_subscriber import StreamWatch

_FOLLOW_PUBLISHERS_S = 0.5


class PolicyStreams:
    """Subscribes to the topics that the rows of an embodiment need, and gives their messages to a builder."""

    def __init__(self, node: Node, builder: ObservationBuilder) -> None:
        self._node = node
        self._builder = builder
        needed = builder.embodiment.model_copy(update={'extra_topics': ()})
        self._watch = StreamWatch(node, needed, self._add, lambda topic, count: None)
        self._timer = node.create_timer(_FOLLOW_PUBLISHERS_S, self._watch.follow_publishers)

    def close(self) -> None:
        """Ends the subscriptions; no message is taken any more."""
        self._node.destroy_timer(self._timer)
        self._watch.close()

    def _add(self, topic: str, arrival_ns: int, cdr: bytes) -> None:
        message = typestore().deserialize_cdr(cdr, self._watch.types[topic])
        self._builder.add(topic, cdr_stamp_ns(cdr), message)
