# SPDX-License-Identifier: Apache-2.0
"""Segments of our recorder's bags at their own rate: rows at recorded ticks, video packets copied."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path

from groot_ros.bags.bulk_decode import decode_columns
from groot_ros.bags.message_types import (
    EPISODE_EVENT_TOPIC,
    EPISODE_EVENT_TYPE,
    EVENT_RESUMED,
    ROW_TOPIC,
    VIDEO_TYPE,
)
from groot_ros.bags.reader import BagMessage, EpisodeBag, read_access_unit
from groot_ros.dataset.sources.bag_segment import BagSegment, make_segment
from groot_ros.dataset.sources.video_sink import OpenVideo, VideoSink
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.message_fields import cdr_stamp_ns
from groot_ros.sampling.row_builder import FrameBuffer
from groot_ros.sampling.rows import RowSampler, TickSample
from groot_ros.video.frame import decode_frame
from groot_ros.video.h264 import H264Decoder
from groot_ros.video.mp4 import Mp4Copier, Mp4Encoder

_BATCH = 4096


def recorded_segments(
    bag: EpisodeBag, embodiment: Embodiment, folder: Path, codec: str
) -> Iterator[BagSegment]:
    """Gives the segments of a bag; `folder` takes their videos.

    Raises MissingSampleError if a stream has a gap.
    """
    sinks = {camera.name: _open_sink(bag, embodiment, camera, folder, codec) for camera in embodiment.cameras}
    by_topic = {camera.video_topic: sinks[camera.name] for camera in embodiment.cameras}
    segments = list(read_segments(bag, embodiment, by_topic))
    for sink in by_topic.values():
        sink.close()
    for number, samples in enumerate(segments):
        if len(samples) > 1:
            yield make_segment(bag, embodiment, samples, sinks, number)


def read_samples(bag: EpisodeBag, embodiment: Embodiment) -> list[TickSample]:
    """Returns state and commands at each tick of our recorder.

    Raises MissingSampleError if a stream has a gap.
    """
    return [sample for segment in read_segments(bag, embodiment) for sample in segment]


def read_segments(
    bag: EpisodeBag, embodiment: Embodiment, sinks: 'dict[str, RecordedVideoSink] | None' = None
) -> Iterator[list[TickSample]]:
    """Gives state and commands at each tick of our recorder, one list for each segment between two pauses.

    `sinks` take the messages of video topics meanwhile. Raises MissingSampleError if a stream has a gap.
    """
    sinks = sinks or {}
    wanted = [*embodiment.sampled_topics, ROW_TOPIC, EPISODE_EVENT_TOPIC, *sinks]
    connections = {
        topic: connection for topic, connection in bag.connections(embodiment).items() if topic in wanted
    }
    msgtypes = {topic: connection.msgtype for topic, connection in connections.items() if topic not in sinks}
    sampler = RecordedTickSampler(embodiment, msgtypes)
    ticks = 0
    for message in bag.messages(connections):
        if message.topic in sinks:
            sinks[message.topic].take(message)
        elif message.topic == ROW_TOPIC:
            tick_ns = cdr_stamp_ns(message.cdr)
            sampler.add_tick(tick_ns)
            for sink in sinks.values():
                sink.add_tick(tick_ns)
        elif message.msgtype != EPISODE_EVENT_TYPE:
            sampler.add(message)
        elif message.decode().kind == EVENT_RESUMED:
            samples = sampler.finish()
            ticks += len(samples)
            for sink in sinks.values():
                sink.end_segment_at(ticks)
            yield samples
            sampler = RecordedTickSampler(embodiment, msgtypes)
    yield sampler.finish()


class RecordedTickSampler:
    """Samples streams at recorded ticks, by some thousand messages at a time.

    One by one would take ten times as long; all at once would take the memory of a whole bag.
    """

    def __init__(self, embodiment: Embodiment, msgtypes: dict[str, str]) -> None:
        self._sampler = RowSampler(embodiment)
        self._msgtypes = msgtypes
        self._ticks: deque[int] = deque()
        self._samples: list[TickSample] = []
        self._clear_batch()

    def add_tick(self, tick_ns: int) -> None:
        """Takes the time of a row that the recorder wrote."""
        self._ticks.append(tick_ns)

    def add(self, message: BagMessage) -> None:
        """Takes a message of a topic that rows are sampled from."""
        self._batch[message.topic].append(message.cdr)
        self._count += 1
        if self._count >= _BATCH:
            self._sample(at_end=False)

    def finish(self) -> list[TickSample]:
        """Returns a sample for each tick, in order.

        Raises MissingSampleError if a stream has a gap at one of them.
        """
        self._sample(at_end=True)
        return self._samples

    def _clear_batch(self) -> None:
        self._batch: dict[str, list[bytes]] = {topic: [] for topic in self._msgtypes}
        self._count = 0

    def _sample(self, at_end: bool) -> None:
        for source, stream in self._sampler.sources():
            if batch := self._batch[source.topic]:
                stream.extend(*decode_columns(batch, self._msgtypes[source.topic], source))
        self._clear_batch()
        ready = []
        while self._ticks and (at_end or self._sampler.extends_past(self._ticks[0])):
            ready.append(self._ticks.popleft())
        if ready:
            self._samples += self._sampler.sample_all(ready)
            self._sampler.drop_before(ready[-1])


class RecordedVideoSink(VideoSink):
    """Writes the video of one camera of a recorded bag: one frame for each tick of our recorder."""

    def take(self, message: BagMessage) -> None:
        """Takes the next message of the camera's topic; here the H.264 access unit of the next tick."""
        raise NotImplementedError

    def add_tick(self, tick_ns: int) -> None:
        """Takes the time of the next tick, which a video of one frame a tick does not need."""


class PacketCopySink(RecordedVideoSink):
    """Copies the packets of the recorder's video."""

    def take(self, message: BagMessage) -> None:
        """Takes the access unit of the next tick."""
        self.add(read_access_unit(message))


class TranscodeSink(RecordedVideoSink):
    """Decodes the recorder's video, for another size or codec."""

    def __init__(self, prefix: Path, open_video: OpenVideo) -> None:
        super().__init__(prefix, open_video)
        self._decoder = H264Decoder()

    def take(self, message: BagMessage) -> None:
        """Takes the access unit of the next tick."""
        self.add(self._decoder.decode(0, read_access_unit(message)))


class NearestFrameSink(RecordedVideoSink):
    """Takes images as the camera sent them, and chooses the one nearest to each tick."""

    def __init__(self, prefix: Path, open_video: OpenVideo, camera: CameraField) -> None:
        super().__init__(prefix, open_video)
        self._buffer = FrameBuffer(camera)
        self._ticks: deque[int] = deque()

    def take(self, message: BagMessage) -> None:
        """Takes an image, and gives the ticks before it theirs."""
        self._buffer.add(decode_frame(message.decode()))
        while self._ticks and self._buffer.extends_past(self._ticks[0]):
            self.add(self._buffer.nearest(self._ticks.popleft()))

    def add_tick(self, tick_ns: int) -> None:
        """Takes the time of a tick, whose image may come later."""
        self._ticks.append(tick_ns)

    def close(self) -> None:
        """Gives the ticks after the last image that image, and ends the last file."""
        while self._ticks and self._buffer.has_frames:
            self.add(self._buffer.nearest(self._ticks.popleft()))
        super().close()


def _open_sink(
    bag: EpisodeBag, embodiment: Embodiment, camera: CameraField, folder: Path, codec: str
) -> RecordedVideoSink:
    prefix = folder / f'recorded_{camera.name}'
    fps = embodiment.fps

    def open_encoder(video: Path) -> Mp4Encoder:
        return Mp4Encoder(video, camera.width, camera.height, fps, codec)

    if bag.connections(embodiment)[camera.video_topic].msgtype != VIDEO_TYPE:
        return NearestFrameSink(prefix, open_encoder, camera)
    if codec == 'h264' and _has_camera_size(bag, embodiment, camera):
        return PacketCopySink(prefix, lambda video: Mp4Copier(video, fps))
    return TranscodeSink(prefix, open_encoder)


def _has_camera_size(bag: EpisodeBag, embodiment: Embodiment, camera: CameraField) -> bool:
    """Whether the video was recorded in the size that the embodiment says."""
    connection = bag.connections(embodiment)[camera.video_topic]
    message = next(bag.messages({camera.topic: connection}), None)
    if message is None:
        return False
    frame = H264Decoder().decode(0, read_access_unit(message))
    return frame.size == (camera.width, camera.height)
