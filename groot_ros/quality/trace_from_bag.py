# SPDX-License-Identifier: Apache-2.0
"""Makes the trace of a bag: from the rows of our recorder, or from the messages of any other recorder."""

from typing import Any

from groot_ros.bags.message_types import (
    COMPRESSED_TOPIC,
    EPISODE_EVENT_TOPIC,
    EPISODE_INFO_TOPIC,
    FRAME_STAMP_TOPIC,
    HEADER_TYPE,
    ROBOT_STATUS_TYPE,
    ROW_TOPIC,
    absolute_topic,
    row_message,
)
from groot_ros.bags.reader import EpisodeBag
from groot_ros.bags.topic_types import has_header
from groot_ros.embodiment import Embodiment, load_embodiment, parse_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.message_fields import cdr_stamp_ns
from groot_ros.quality.trace import EpisodeTrace, FrameStats
from groot_ros.sampling.row_builder import RowBuilder, SampledRow
from groot_ros.video.frame import decode_frame


def load_bag_embodiment(bag: EpisodeBag, name_or_path: str = '') -> Embodiment:
    """The embodiment named by the caller, or else the one in the bag.

    Raises GrootRosError if there is neither.
    """
    if name_or_path:
        return load_embodiment(name_or_path)
    if text := bag.info.get('embodiment'):
        return parse_embodiment(text, f'in {bag.path}')
    raise GrootRosError(
        f'The bag {bag.path} does not contain its embodiment: name the embodiment with --embodiment.'
    )


def load_trace(bag: EpisodeBag, embodiment: Embodiment) -> EpisodeTrace:
    """The trace of a bag. Raises GrootRosError if a topic is missing that the embodiment needs."""
    if bag.has_rows:
        return _read_rows(bag, embodiment)
    return _make_rows(bag, embodiment)


def _read_rows(bag: EpisodeBag, embodiment: Embodiment) -> EpisodeTrace:
    """From a bag of our recorder: its rows as they were sampled, and the stamps of all other messages."""
    counts = bag.info.get('counts', {})
    trace = EpisodeTrace(embodiment, list(counts.get('topics', {})))
    namespace = str(bag.info.get('namespace', '/'))
    names = {absolute_topic(namespace, topic): topic for topic in trace.streams}
    image_topics = {
        f'{camera.topic}/{suffix}': camera.topic
        for camera in embodiment.cameras
        for suffix in (FRAME_STAMP_TOPIC, COMPRESSED_TOPIC)
    }
    ours = {camera.video_topic for camera in embodiment.cameras} | {EPISODE_INFO_TOPIC, EPISODE_EVENT_TOPIC}
    for message in bag.all_messages():
        topic = names.get(message.topic, '') or message.topic.removeprefix(namespace)
        if topic == ROW_TOPIC:
            trace.add_row(message.decode())
        elif topic not in ours:
            stamp_ns = cdr_stamp_ns(message.cdr) if _has_stamp(message.msgtype) else message.log_ns
            trace.add_message(image_topics.get(topic, topic), stamp_ns, message.log_ns)
        if message.msgtype == ROBOT_STATUS_TYPE:
            trace.robot.add(message.decode())
    trace.overflows = int(counts.get('overflows', 0))
    trace.regressions = int(counts.get('regressions', 0))
    for topic, count in counts.get('topics', {}).items():
        if topic in trace.streams:
            trace.streams[topic].lost = int(count.get('lost', 0))
    return trace


def _make_rows(bag: EpisodeBag, embodiment: Embodiment) -> EpisodeTrace:
    """From a bag of another recorder: rows are sampled as our recorder would have sampled them live."""
    trace = EpisodeTrace(embodiment)
    frame_stats = {camera.topic: FrameStats() for camera in embodiment.cameras}

    def add_row(row: SampledRow) -> None:
        stats = [frame_stats[topic].add(frame.thumbnail()) for topic, frame in row.frames.items()]
        brightness, repeated = zip(*stats, strict=True)
        trace.add_row(row_message(row, list(brightness), list(repeated)))

    builder = RowBuilder(embodiment, add_row)
    connections = bag.source_connections(embodiment)
    cameras = {camera.topic for camera in embodiment.cameras}
    connections.pop(EPISODE_EVENT_TOPIC, None)
    for message in bag.messages(connections):
        decoded: Any = message.decode()
        trace.add_message(message.topic, cdr_stamp_ns(message.cdr), message.log_ns)
        if message.topic in cameras:
            builder.take_frame(message.topic, decode_frame(decoded))
        else:
            builder.take(message.topic, decoded)
        builder.resolve(message.log_ns)
    trace.regressions = builder.regressions
    if not trace.rows:
        missing = ', '.join(builder.missing_topics())
        reason = f'there is no message on {missing}' if missing else 'its topics do not overlap in time'
        raise GrootRosError(f'The bag {bag.path} gives no row: {reason}.')
    return trace


def _has_stamp(msgtype: str) -> bool:
    return has_header(msgtype) or msgtype == HEADER_TYPE
