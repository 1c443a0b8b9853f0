"""One episode while it is recorded: messages in, bag out, rows sampled and video encoded at the tick. Imports no ROS."""

import queue
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from groot_ros.bags.types import ROW_TYPE, VIDEO_TYPE, row_message, typestore, video_message
from groot_ros.bags.video import H264Encoder
from groot_ros.bags.writer import EpisodeWriter
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.rows import MissingSampleError, RowSampler, stamp_of
from groot_ros.streams import ReferenceTicks, Tick

_QUEUE_LENGTH = 4096  # some seconds of every stream, for a disk that stalls
_PATIENCE_NS = 500_000_000
_STOP = object()


@dataclass
class TopicCount:
    """What came on a topic."""

    received: int = 0
    lost: int = 0
    first_ns: int = 0
    last_ns: int = 0
    largest_gap_ns: int = 0

    def note(self, stamp_ns: int) -> None:
        """Counts a message."""
        if self.received:
            self.largest_gap_ns = max(self.largest_gap_ns, stamp_ns - self.last_ns)
        else:
            self.first_ns = stamp_ns
        self.received += 1
        self.last_ns = stamp_ns


@dataclass
class RecordingCounts:
    """What happened in an episode; all of it goes into the bag's metadata."""

    ticks: int = 0
    filled: int = 0
    late_ticks: int = 0
    extra_frames: int = 0
    overflows: int = 0
    regressions: int = 0
    longest_encoder_lag_ms: float = 0.0
    largest_age_ms: float = 0.0
    topics: dict[str, TopicCount] = field(default_factory=dict)


class CameraFrames:
    """The newest frames of a camera, and its encoder."""

    def __init__(self, camera: CameraField, fps: float) -> None:
        self.camera = camera
        self.encoder = H264Encoder(camera.width, camera.height, fps)
        self._frames: deque[tuple[int, np.ndarray]] = deque()

    def add(self, stamp_ns: int, image: np.ndarray) -> None:
        """Takes a frame."""
        self._frames.append((stamp_ns, image))

    def covers(self, tick_ns: int) -> bool:
        """Whether no later frame can be nearer to the tick."""
        return bool(self._frames) and self._frames[-1][0] >= tick_ns

    def nearest(self, tick_ns: int) -> np.ndarray:
        """The frame nearest to a tick; older ones are forgotten."""
        while len(self._frames) > 1 and abs(self._frames[1][0] - tick_ns) <= abs(self._frames[0][0] - tick_ns):
            self._frames.popleft()
        return self._frames[0][1]


class EpisodeRecording:
    """Records from construction to `finish`. `put` may be called from any thread and never blocks.

    A failure in the writer thread ends the recording; it stands in `failure` and `finish` raises it.
    """

    def __init__(self, path: Path, embodiment: Embodiment, topic_types: dict[str, str], info: dict[str, Any], namespace: str = '/') -> None:
        self.embodiment, self.namespace = embodiment, namespace
        self.counts = RecordingCounts(topics={topic: TopicCount() for topic in topic_types})
        self.failure: Exception | None = None
        self._types = topic_types
        self._ticks = ReferenceTicks(embodiment.fps)
        self._pending: deque[Tick] = deque()
        self._sampler = RowSampler(embodiment)
        self._cameras = {camera.topic: CameraFrames(camera, embodiment.fps) for camera in embodiment.cameras}
        self._reference = embodiment.cameras[0].topic
        self._writer = EpisodeWriter(path, info, namespace)
        for topic, kind in topic_types.items():
            if topic not in self._cameras:
                self._writer.add_topic(namespace + topic, kind)
        self._queue: queue.Queue = queue.Queue(_QUEUE_LENGTH)
        self._thread = threading.Thread(target=self._work, name='recording', daemon=True)
        self._thread.start()

    def put(self, topic: str, arrival_ns: int, cdr: bytes) -> None:
        """Takes one serialized message of a relative topic. What does not fit the queue is lost, counted and shown."""
        try:
            self._queue.put_nowait((topic, arrival_ns, cdr))
        except queue.Full:
            self.counts.overflows += 1

    def note_lost(self, topic: str, count: int) -> None:
        """Counts messages that the middleware lost."""
        self.counts.topics[topic].lost += count

    def finish(self, info: dict[str, Any]) -> RecordingCounts:
        """Writes what waits, closes the bag, and returns the counts. Raises what made the recording fail."""
        self._queue.put((_STOP, 0, b''))
        self._thread.join()
        self.counts.regressions, self.counts.extra_frames = self._sampler.regressions, self._ticks.extra_frames
        self._writer.close({**info, 'counts': _as_dict(self.counts)})
        if self.failure is not None:
            raise self.failure
        return self.counts

    def _work(self) -> None:
        try:
            while True:
                topic, arrival_ns, cdr = self._queue.get()
                if topic is _STOP:
                    return
                self._take(topic, arrival_ns, cdr)
                self._resolve(arrival_ns)
                self._writer.flush()
        except Exception as error:  # kept for `finish`, which raises it in the caller's thread
            self.failure = error
            self._drain()

    def _drain(self) -> None:
        while self._queue.get()[0] is not _STOP:
            self.counts.overflows += 1

    def _take(self, topic: str, arrival_ns: int, cdr: bytes) -> None:
        kind = self._types[topic]
        if topic in self._cameras:
            self._take_frame(topic, typestore().deserialize_cdr(cdr, kind))
            return
        self._writer.write(self.namespace + topic, kind, arrival_ns, cdr)
        if topic not in self.embodiment.row_topics:
            self.counts.topics[topic].note(arrival_ns)
            return
        message = typestore().deserialize_cdr(cdr, kind)
        self.counts.topics[topic].note(stamp_of(message))
        self._sampler.add(topic, message)

    def _take_frame(self, topic: str, message: Any) -> None:
        stamp_ns = stamp_of(message)
        self.counts.topics[topic].note(stamp_ns)
        self._cameras[topic].add(stamp_ns, rgb_of(message))
        if topic != self._reference:
            return
        if not self._ticks.measured_fps and not self._sampler.begins_by(stamp_ns):
            return  # the episode begins once every stream has begun
        self._pending.extend(self._ticks.add(stamp_ns))

    def _resolve(self, arrival_ns: int) -> None:
        """Makes rows of the pending ticks that every stream covers, or that have waited long enough.

        The time is that of the message in hand: what is late in this thread only may not count as missing.
        """
        while self._pending:
            tick = self._pending[0]
            waited_ns = arrival_ns - tick.stamp_ns
            complete = self._sampler.covers(tick.stamp_ns) and all(frames.covers(tick.stamp_ns) for frames in self._cameras.values())
            if not complete and waited_ns < _PATIENCE_NS:
                return
            self.counts.late_ticks += not complete
            self._write_row(self._pending.popleft())

    def _write_row(self, tick: Tick) -> None:
        for frames in self._cameras.values():
            access_unit = frames.encoder.encode(frames.nearest(tick.stamp_ns))
            video = video_message(tick.stamp_ns, frames.camera.name, access_unit)
            self._writer.write(self.namespace + frames.camera.video_topic, VIDEO_TYPE, tick.stamp_ns, video)
        try:
            sample = self._sampler.sample(tick.stamp_ns)
            state, ages_s = sample.state, sample.ages_s
        except MissingSampleError:
            # The tick stays in the bag, since its frame does; the converter names what was missing.
            state, ages_s = np.full(self.embodiment.state_size, np.nan), np.full(len(self.embodiment.state), np.inf)
        row = row_message(tick.stamp_ns, self.counts.ticks, tick.filled, state, ages_s)
        self._writer.write(f'{self.namespace}row', ROW_TYPE, tick.stamp_ns, row)
        self._count(tick, ages_s)
        self._sampler.forget_before(tick.stamp_ns)

    def _count(self, tick: Tick, ages_s: np.ndarray) -> None:
        counts = self.counts
        counts.ticks += 1
        counts.filled += tick.filled
        counts.longest_encoder_lag_ms = max(counts.longest_encoder_lag_ms, (time.time_ns() - tick.stamp_ns) / 1e6)
        counts.largest_age_ms = max(counts.largest_age_ms, float(ages_s.max()) * 1e3)


def rgb_of(message: Any) -> np.ndarray:
    """RGB image (height, width, 3) of a sensor_msgs/Image. Raises GrootRosError for an encoding that is not 8-bit colour."""
    channels = {'rgb8': (3, slice(None)), 'bgr8': (3, slice(None, None, -1)), 'rgba8': (4, slice(0, 3)), 'bgra8': (4, slice(2, None, -1))}
    if message.encoding not in channels:
        raise GrootRosError(f'Images of encoding {message.encoding!r} cannot be recorded: set the camera to {", ".join(channels)}.')
    count, order = channels[message.encoding]
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    pixels = rows[:, : message.width * count].reshape(message.height, message.width, count)
    return np.ascontiguousarray(pixels[:, :, order])


def _as_dict(counts: RecordingCounts) -> dict[str, Any]:
    plain = {name: value for name, value in vars(counts).items() if name != 'topics'}
    return {**plain, 'topics': {topic: vars(count) for topic, count in counts.topics.items()}}
