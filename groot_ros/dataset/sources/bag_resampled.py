# SPDX-License-Identifier: Apache-2.0
"""Segments of bags of any recorder: rows sampled as our recorder would have sampled them, video encoded."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from groot_ros.bags.message_types import EPISODE_EVENT_TYPE, EVENT_RESUMED, VIDEO_TYPE
from groot_ros.bags.reader import BagMessage, EpisodeBag, read_access_unit
from groot_ros.bags.topic_types import check_types
from groot_ros.dataset.sources.bag_segment import BagSegment, make_segment
from groot_ros.dataset.sources.time_ranges import TimeRange
from groot_ros.dataset.sources.video_sink import VideoSink
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.message_fields import header_stamp_ns, stamp_to_ns
from groot_ros.sampling.row_builder import RowBuilder, SampledRow
from groot_ros.sampling.rows import TickSample
from groot_ros.video.frame import VideoFrame, decode_frame
from groot_ros.video.h264 import H264Decoder
from groot_ros.video.mp4 import Mp4Encoder


def resampled_segments(
    bag: EpisodeBag, embodiment: Embodiment, folder: Path, codec: str, ranges: list[TimeRange]
) -> Iterator[BagSegment]:
    """Gives the segments of a bag, or of the time ranges in it; `folder` takes their videos.

    Raises GrootRosError for a bag that gives no row.
    """
    segments = ResampledSegments(bag, embodiment, folder, codec, ranges)
    try:
        builder = _read_rows(bag, embodiment, segments)
    finally:
        segments.close()
    if not segments.samples:
        raise GrootRosError(f'The bag {bag.path} gives no row: {_why_no_row(builder)}.')
    for number, samples in enumerate(segments.samples):
        if len(samples) > 1:
            yield make_segment(bag, embodiment, samples, segments.sinks, number, segments.tasks[number])


class ResampledSegments:
    """Collects rows by segment and encodes each frame at once, so that no image is kept in memory.

    `samples` and `tasks` have an entry for each segment, `sinks` one for each camera by its name.
    """

    def __init__(
        self, bag: EpisodeBag, embodiment: Embodiment, folder: Path, codec: str, ranges: list[TimeRange]
    ) -> None:
        self.samples: list[list[TickSample]] = []
        self.tasks: list[str] = []
        self.sinks: dict[str, VideoSink] = {}
        for camera in embodiment.cameras:
            self.sinks[camera.name] = _open_sink(camera, embodiment.fps, folder, codec)
        self._bag = bag
        self._cameras = embodiment.cameras
        self._ranges = ranges
        self._ticks = 0
        self._place: tuple[int, TimeRange | None] | None = None

    def add(self, row: SampledRow) -> None:
        """Takes the next row. Raises GrootRosError for one without its state."""
        tick_ns = row.tick.stamp_ns
        in_range = next((part for part in self._ranges if part.start_ns <= tick_ns < part.end_ns), None)
        if self._ranges and in_range is None:
            return
        if np.isinf(row.ages_s).any():
            raise GrootRosError(
                f'The bag {self._bag.path} has no state at the tick {tick_ns / 1e9:.3f} s: '
                'one of its streams has a gap there.'
            )
        if (row.segment, in_range) != self._place:
            self._place = (row.segment, in_range)
            self._start_segment(in_range.task if in_range else '')
        for camera in self._cameras:
            self.sinks[camera.name].add(row.frames[camera.topic])
        self.samples[-1].append(TickSample(tick_ns, row.state, row.commands, row.ages_s))
        self._ticks += 1

    def close(self) -> None:
        """Ends the videos of the last segment."""
        for sink in self.sinks.values():
            sink.close()

    def _start_segment(self, task: str) -> None:
        if self.samples:
            for sink in self.sinks.values():
                sink.end_segment_at(self._ticks)
        self.samples.append([])
        self.tasks.append(task)


class FrameReader:
    """Decodes the frames of a bag's cameras: images, or video, of one size each."""

    def __init__(self, embodiment: Embodiment, video_topics: set[str]) -> None:
        self.topics = {camera.topic for camera in embodiment.cameras}
        self._decoders = {topic: H264Decoder() for topic in video_topics}
        self._sizes: dict[str, tuple[int, int]] = {}

    def read(self, message: BagMessage) -> VideoFrame:
        """Returns the frame of a message.

        Raises GrootRosError for one without a stamp or of another size than those before.
        """
        frame = self._decode(message)
        _check_stamp(message.topic, frame.stamp_ns)
        size = self._sizes.setdefault(message.topic, frame.size)
        if frame.size != size:
            change = f'{size[0]}x{size[1]} to {frame.size[0]}x{frame.size[1]}'
            raise GrootRosError(
                f'{message.topic} changes from {change}: choose the parts of one size with --ranges'
            )
        return frame

    def _decode(self, message: BagMessage) -> VideoFrame:
        decoded = message.decode()
        if message.topic in self._decoders:
            stamp_ns = stamp_to_ns(decoded.timestamp)
            return self._decoders[message.topic].decode(stamp_ns, read_access_unit(message))
        return decode_frame(decoded)


def _open_sink(camera: CameraField, fps: float, folder: Path, codec: str) -> VideoSink:
    return VideoSink(
        folder / f'resampled_{camera.name}',
        lambda video: Mp4Encoder(video, camera.width, camera.height, fps, codec),
    )


def _read_rows(bag: EpisodeBag, embodiment: Embodiment, segments: ResampledSegments) -> RowBuilder:
    """Hands the messages of a bag to a row builder, and its rows to `segments`."""
    connections = bag.source_connections(embodiment)
    msgtypes = {topic: connection.msgtype for topic, connection in connections.items()}
    sampled = {
        topic: msgtype
        for topic, msgtype in msgtypes.items()
        if msgtype not in (VIDEO_TYPE, EPISODE_EVENT_TYPE)
    }
    if problems := check_types(embodiment, sampled):
        raise GrootRosError('; '.join(problems))
    videos = {camera.topic for camera in embodiment.cameras if msgtypes[camera.topic] == VIDEO_TYPE}
    reader = FrameReader(embodiment, videos)
    builder = RowBuilder(_without_video_latency(embodiment, videos), segments.add)
    for message in bag.messages(connections):
        if message.msgtype == EPISODE_EVENT_TYPE:
            if message.decode().kind == EVENT_RESUMED:
                builder.new_segment()
            continue
        if message.topic in reader.topics:
            builder.take_frame(message.topic, reader.read(message))
        else:
            decoded = message.decode()
            _check_stamp(message.topic, header_stamp_ns(decoded))
            builder.take(message.topic, decoded)
        builder.resolve(message.log_ns)
    return builder


def _without_video_latency(embodiment: Embodiment, video_topics: set[str]) -> Embodiment:
    """The stamps of video in our bags are corrected already."""
    cameras = tuple(
        camera.model_copy(update={'obs_latency_s': 0.0}) if camera.topic in video_topics else camera
        for camera in embodiment.cameras
    )
    return embodiment.model_copy(update={'cameras': cameras})


def _check_stamp(topic: str, stamp_ns: int) -> None:
    if not stamp_ns:
        raise GrootRosError(
            f'{topic} comes with a stamp of zero, so nobody knows when it was measured: '
            'let its driver fill in header.stamp'
        )


def _why_no_row(builder: RowBuilder) -> str:
    if missing := builder.missing_topics():
        return f'{", ".join(missing)} has no message'
    return 'its streams do not overlap, or no time range meets them'
