# SPDX-License-Identifier: Apache-2.0
"""The trace of a bag: from the rows of our recorder, or from the messages of any other."""

from typing import Any

from groot_ros.bags.message_types import (
    COMPRESSED_TOPIC,
    EPISODE_EVENT_TOPIC,
    EPISODE_INFO_TOPIC,
    FRAME_STAMP_TOPIC,
    HEADER_TYPE,
    ROBOT_STATUS_TYPE,
    ROW_TOPIC,
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
    """The embodiment that was asked for, or the one that the bag was recorded with. Raises GrootRosError where there is neither."""
    if name_or_path:
        return load_embodiment(name_or_path)
    if text := bag.info.get('embodiment'):
        return parse_embodiment(text, f'in {bag.path}')
    raise GrootRosError(
        f'The bag {bag.path} does not say what robot it is of: name its embodiment with --embodiment.'
    )


def load_trace(bag: EpisodeBag, embodiment: Embodiment) -> EpisodeTrace:
    """What the bag tells of its episode. Raises GrootRosError where it lacks what the embodiment needs."""
    return _read_rows(bag, embodiment) if bag.has_rows else _make_rows(bag, embodiment)


def _read_rows(bag: EpisodeBag, embodiment: Embodiment) -> EpisodeTrace:
    """A bag of our recorder says what it sampled; only the stamps of everything else are looked at."""
    counts = bag.info.get('counts', {})
    trace = EpisodeTrace(embodiment, list(counts.get('topics', {})))
    namespace = str(bag.info.get('namespace', '/'))
    stamps = {
        f'{camera.topic}/{suffix}': camera.topic
        for camera in embodiment.cameras
        for suffix in (FRAME_STAMP_TOPIC, COMPRESSED_TOPIC)
    }
    ours = {camera.video_topic for camera in embodiment.cameras} | {EPISODE_INFO_TOPIC, EPISODE_EVENT_TOPIC}
    for message in bag.all_messages():
        topic = message.topic.removeprefix(namespace)
        if topic == ROW_TOPIC:
            trace.row(message.decode())
        elif topic not in ours:
            stamp_ns = cdr_stamp_ns(message.cdr) if _stamped(message.msgtype) else message.log_ns
            trace.message(stamps.get(topic, topic), stamp_ns, message.log_ns)
        if message.msgtype == ROBOT_STATUS_TYPE:
            trace.robot.note(message.decode())
    trace.overflows, trace.regressions = int(counts.get('overflows', 0)), int(counts.get('regressions', 0))
    for topic, count in counts.get('topics', {}).items():
        if topic in trace.streams:
            trace.streams[topic].lost = int(count.get('lost', 0))
    return trace


def _make_rows(bag: EpisodeBag, embodiment: Embodiment) -> EpisodeTrace:
    """A bag of another recorder: its rows are made as the recorder would have made them."""
    trace = EpisodeTrace(embodiment)
    looks = {camera.topic: FrameStats() for camera in embodiment.cameras}

    def note(row: SampledRow) -> None:
        brightness, repeated = zip(
            *(looks[topic].note(frame.thumbnail()) for topic, frame in row.frames.items()), strict=True
        )
        trace.row(row_message(row, list(brightness), list(repeated)))

    maker = RowBuilder(embodiment, note)
    connections = bag.source_connections(embodiment)
    cameras = {camera.topic for camera in embodiment.cameras}
    connections.pop(EPISODE_EVENT_TOPIC, None)
    for message in bag.messages(connections):
        decoded: Any = message.decode()
        trace.message(message.topic, cdr_stamp_ns(message.cdr), message.log_ns)
        if message.topic in cameras:
            maker.take_frame(message.topic, decode_frame(decoded))
        else:
            maker.take(message.topic, decoded)
        maker.resolve(message.log_ns)
    trace.regressions = maker.regressions
    if not trace.rows:
        raise GrootRosError(
            f'The bag {bag.path} gives no row: {", ".join(maker.missing_topics()) or "its streams do not overlap"} has nothing.'
        )
    return trace


def _stamped(kind: str) -> bool:
    return has_header(kind) or kind == HEADER_TYPE
