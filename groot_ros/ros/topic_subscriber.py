# SPDX-License-Identifier: Apache-2.0
"""Raw subscriptions that follow the publishers of the topics of an embodiment, with rate and age of each."""

import importlib
import time
from collections.abc import Callable
from functools import partial

from rclpy.event_handler import QoSMessageLostInfo, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.subscription import Subscription
from rosbags.interfaces import Qos

from groot_ros.bags.topic_types import has_header
from groot_ros.embodiment import Embodiment
from groot_ros.message_fields import cdr_stamp_ns
from groot_ros.ros.qos import bag_qos
from groot_ros.sampling.stream_monitor import StreamMeter, StreamStats

_DEPTH = 200


class StreamWatch:
    """Subscribes to each topic of an embodiment as soon as it is published.

    `on_message` gets the topic, the arrival in ns and the serialized message. `on_lost` gets the topic and
    the number of messages that the middleware lost. `types` has the subscribed topics, `unknown` those whose
    message type is not installed, and `changed` those that are now published with another type than before.
    `offered` is the quality of service of all publishers of a topic, as bags keep it.
    """

    def __init__(
        self,
        node: Node,
        embodiment: Embodiment,
        on_message: Callable[[str, int, bytes], None],
        on_lost: Callable[[str, int], None],
    ) -> None:
        self._node = node
        self._on_message = on_message
        self._on_lost = on_lost
        self.needed = embodiment.required_topics
        self.wanted = list(dict.fromkeys([*self.needed, *embodiment.extra_topics]))
        self.types: dict[str, str] = {}
        self.unknown: dict[str, str] = {}
        self.changed: dict[str, str] = {}
        self.offered: dict[str, list[Qos]] = {}
        self._followed: dict[str, tuple] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._stamped: dict[str, bool] = {}
        self._meters = {topic: StreamMeter(topic, embodiment.expected_hz(topic)) for topic in self.wanted}

    def follow_publishers(self) -> None:
        """Subscribes to wanted topics that have a publisher, and again if its quality of service changes."""
        for topic in self.wanted:
            publishers = self._node.get_publishers_info_by_topic(topic)
            if publishers:
                self.offered[topic] = [bag_qos(publisher.qos_profile) for publisher in publishers]
                self._follow(topic, publishers[0].topic_type, publishers[0].qos_profile)

    def ask_latched_again(self) -> None:
        """Subscribes again to latched topics that no row needs: their newest messages come again."""
        for topic in set(self._subscriptions) - set(self.needed):
            profile = self._subscriptions[topic].qos_profile
            if profile.durability == DurabilityPolicy.TRANSIENT_LOCAL:
                self._subscribe(topic, self.types[topic], profile)

    def close(self) -> None:
        """Ends all subscriptions; `follow_publishers` makes them again."""
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self._followed.clear()

    def publishers(self) -> dict[str, int]:
        """The number of publishers of each needed topic."""
        return {topic: self._node.count_publishers(topic) for topic in self.needed}

    def meter(self, topic: str) -> StreamMeter:
        """The meter of a wanted topic."""
        return self._meters[topic]

    def stats(self, now_ns: int) -> dict[str, StreamStats]:
        """Rate, age and gaps of each wanted stream in the two seconds before `now_ns`."""
        return {topic: meter.stats(now_ns) for topic, meter in self._meters.items()}

    def _follow(self, topic: str, msgtype: str, offered: QoSProfile) -> None:
        if self.types.get(topic, msgtype) != msgtype:
            # The middleware keeps a topic's type for the life of a process.
            self.changed[topic] = msgtype
            return
        self.changed.pop(topic, None)
        policies = (offered.reliability, offered.durability)
        if self._followed.get(topic) != policies:
            self._followed[topic] = policies
            self._subscribe(topic, msgtype, offered)

    def _subscribe(self, topic: str, msgtype: str, offered: QoSProfile) -> None:
        old = self._subscriptions.pop(topic, None)
        if old is not None:
            self._node.destroy_subscription(old)
        package, _, name = msgtype.split('/')
        try:
            message_class = getattr(importlib.import_module(f'{package}.msg'), name)
        except (ImportError, AttributeError):
            self.unknown[topic] = msgtype
            return
        # A subscription asks for what its publisher offers; asking for more would receive nothing.
        profile = QoSProfile(depth=_DEPTH, reliability=offered.reliability, durability=offered.durability)
        events = SubscriptionEventCallbacks(message_lost=partial(self._count_lost, topic))
        take = partial(self._take, topic)
        self._subscriptions[topic] = self._node.create_subscription(
            message_class, topic, take, profile, raw=True, event_callbacks=events
        )
        self.types[topic] = msgtype
        self._stamped[topic] = has_header(msgtype)

    def _count_lost(self, topic: str, event: QoSMessageLostInfo) -> None:
        if event.total_count_change > 0:  # the middleware reports a change of 0 too
            self._on_lost(topic, event.total_count_change)

    def _take(self, topic: str, cdr: bytes) -> None:
        arrival_ns = time.time_ns()
        stamp_ns = cdr_stamp_ns(cdr) if self._stamped[topic] else arrival_ns
        self._meters[topic].add(stamp_ns, arrival_ns)
        self._on_message(topic, arrival_ns, cdr)
