# SPDX-License-Identifier: Apache-2.0
"""Raw subscriptions that follow the publishers of the topics of an embodiment, with rate and age of each."""

import importlib
import time
from collections.abc import Callable
from functools import partial

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from groot_ros.bags.topic_types import has_header
from groot_ros.embodiment import Embodiment
from groot_ros.message_fields import cdr_stamp_ns
from groot_ros.sampling.stream_monitor import StreamMeter, StreamStats

_DEPTH = 200


class StreamWatch:
    """Subscribes to what an embodiment needs as soon as it is published.

    `on_message` gets topic, arrival in ns and bytes, `on_lost` topic and how many the middleware lost.
    """

    def __init__(
        self,
        node: Node,
        embodiment: Embodiment,
        on_message: Callable[[str, int, bytes], None],
        on_lost: Callable[[str, int], None],
    ) -> None:
        self._node, self._on_message, self._on_lost = node, on_message, on_lost
        self.needed = embodiment.required_topics
        self.wanted = list(dict.fromkeys([*self.needed, *embodiment.extra_topics]))
        self.types: dict[str, str] = {}
        self.unknown: dict[str, str] = {}
        self.changed: dict[str, str] = {}
        self._terms: dict[str, tuple] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._stamped: dict[str, bool] = {}
        self._meters = {topic: StreamMeter(topic, embodiment.expected_hz(topic)) for topic in self.wanted}

    def follow_publishers(self) -> None:
        """Subscribes to wanted topics that have a publisher, and again if its quality of service changes."""
        for topic in self.wanted:
            if publishers := self._node.get_publishers_info_by_topic(topic):
                msgtype, offered = publishers[0].topic_type, publishers[0].qos_profile
                terms = (offered.reliability, offered.durability)
                if self.types.get(topic, msgtype) == msgtype:
                    self.changed.pop(topic, None)
                    if self._terms.get(topic) != terms:
                        self._terms[topic] = terms
                        self._subscribe(topic, msgtype, offered)
                else:
                    self.changed[topic] = (
                        msgtype  # the middleware keeps a topic's type for the life of a process
                    )

    def publishers(self) -> dict[str, int]:
        """How many publishers each needed topic has."""
        return {topic: self._node.count_publishers(topic) for topic in self.needed}

    def meter(self, topic: str) -> StreamMeter:
        """The meter of a wanted topic."""
        return self._meters[topic]

    def figures(self, now_ns: int) -> dict[str, StreamStats]:
        """How each wanted stream flows."""
        return {topic: meter.stats(now_ns) for topic, meter in self._meters.items()}

    def _subscribe(self, topic: str, msgtype: str, offered: QoSProfile) -> None:
        if (old := self._subscriptions.pop(topic, None)) is not None:
            self._node.destroy_subscription(old)
        package, _, name = msgtype.split('/')
        try:
            message_class = getattr(importlib.import_module(f'{package}.msg'), name)
        except (ImportError, AttributeError):
            self.unknown[topic] = msgtype
            return
        # A subscription asks for what its publisher offers; asking for more would receive nothing.
        profile = QoSProfile(depth=_DEPTH, reliability=offered.reliability, durability=offered.durability)
        events = SubscriptionEventCallbacks(
            message_lost=lambda event: self._on_lost(topic, event.total_count_change)
        )
        take = partial(self._take, topic)
        self._subscriptions[topic] = self._node.create_subscription(
            message_class, topic, take, profile, raw=True, event_callbacks=events
        )
        self.types[topic], self._stamped[topic] = msgtype, has_header(msgtype)

    def _take(self, topic: str, cdr: bytes) -> None:
        arrival_ns = time.time_ns()
        self._meters[topic].add(cdr_stamp_ns(cdr) if self._stamped[topic] else arrival_ns, arrival_ns)
        self._on_message(topic, arrival_ns, cdr)
