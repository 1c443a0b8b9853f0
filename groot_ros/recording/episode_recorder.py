# SPDX-License-Identifier: Apache-2.0
"""Records one episode: writes messages to a bag, and samples rows and encodes video at the ticks.

Imports no ROS.
"""

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.interfaces import Qos

from groot_ros.bags.message_types import (
    COMPRESSED_IMAGE_TYPE,
    COMPRESSED_TOPIC,
    EPISODE_EVENT_TOPIC,
    EPISODE_EVENT_TYPE,
    EVENT_PAUSED,
    EVENT_RESUMED,
    EVENT_SOURCE,
    FRAME_STAMP_TOPIC,
    HEADER_TYPE,
    IMAGE_TYPE,
    ROBOT_STATUS_TYPE,
    ROW_TOPIC,
    ROW_TYPE,
    VIDEO_TYPE,
    absolute_topic,
    compressed_message,
    event_message,
    row_message,
    serialized,
    typestore,
    video_message,
)
from groot_ros.bags.rosbag2_metadata import DEFAULT_QOS
from groot_ros.bags.topic_types import has_header
from groot_ros.bags.writer import EpisodeWriter
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.message_fields import cdr_stamp_ns
from groot_ros.quality.trace import EpisodeTrace, FrameStats
from groot_ros.sampling.row_builder import RowBuilder, SampledRow
from groot_ros.video.frame import VideoFrame, decode_frame, depth_png, is_depth
from groot_ros.video.h264 import H264Encoder

VIDEO_FORMATS = ('h264', 'jpeg', 'raw')
DEPTH_FORMATS = ('png', 'raw')
_MAX_QUEUE_LENGTH = 4096  # some seconds of every stream, for a disk that stalls
_MAX_QUEUE_BYTES = 512 << 20
_STOP = object()
_PAUSE = object()
_RESUME = object()


@dataclass
class RecordingSettings:
    """How images are written.

    `video` is `h264` (one frame per row), or `jpeg` or `raw` (every frame at the camera's own rate). `depth`
    is `png` or `raw`. `codec` is the FFmpeg encoder for h264.
    """

    video: str = 'h264'
    codec: str = 'libx264'
    keyframe_interval_s: float = 0.5
    jpeg_quality: int = 90
    depth: str = 'png'


class EpisodeRecording:
    """Records from construction to `finish`. `put` may be called from any thread and never blocks.

    An exception in the writer thread ends the recording. It is kept in `failure`, and `finish` raises it
    after what was recorded before is closed. `trace` holds the numbers for the verdict. `offered` is the
    quality of service of the publishers of each relative topic.
    """

    def __init__(
        self,
        path: Path,
        embodiment: Embodiment,
        topic_types: dict[str, str],
        info: dict[str, Any],
        namespace: str = '/',
        settings: RecordingSettings | None = None,
        offered: dict[str, list[Qos]] | None = None,
    ) -> None:
        self.path = path
        self.embodiment = embodiment
        self.namespace = namespace
        self.settings = settings or RecordingSettings()
        self.trace = EpisodeTrace(embodiment, list(topic_types))
        self.failure: Exception | None = None
        self.paused = False
        self.max_encoder_lag_s = 0.0
        self._types = topic_types
        self._offered: dict[str, list[Qos]] = offered or {}
        self._stamped = {topic: has_header(msgtype) for topic, msgtype in topic_types.items()}
        self._row_builder = RowBuilder(embodiment, self._write_row)
        self._cameras = {camera.topic: camera for camera in embodiment.cameras}
        self._frame_stats = {camera.topic: FrameStats() for camera in embodiment.cameras}
        self._frame_ids: dict[str, str] = {}
        self._encoders: dict[str, H264Encoder] = {}
        if self.settings.video == 'h264':
            self._encoders = {camera.topic: self._make_encoder(camera) for camera in embodiment.cameras}
        # FFmpeg works without the interpreter's lock, so several cameras are encoded in parallel.
        self._pool: ThreadPoolExecutor | None = None
        if len(self._encoders) > 1:
            self._pool = ThreadPoolExecutor(len(self._encoders))
        self._segment = 0
        self._writer = EpisodeWriter(path, info, namespace)
        for topic, msgtype in topic_types.items():
            if topic not in self._cameras and msgtype != IMAGE_TYPE:
                self._writer.add_topic(absolute_topic(namespace, topic), msgtype, self._offered_of(topic))
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._queued_bytes = 0
        self._bytes_lock = threading.Lock()
        self._current_arrival_ns = 0
        self._thread = threading.Thread(target=self._work, name='recording', daemon=True)
        self._thread.start()

    @property
    def queue_length(self) -> int:
        """Number of messages that wait for the writer."""
        return self._queue.qsize()

    @property
    def writer_lag_s(self) -> float:
        """Time in s since the arrival of the message that is being written; 0 if no other waits."""
        if not self._queue.qsize():
            return 0.0
        return max(time.time_ns() - self._current_arrival_ns, 0) / 1e9

    def missing_topics(self) -> list[str]:
        """Topics without a message yet, while there is no row."""
        return self._row_builder.missing_topics()

    def put(self, topic: str, arrival_ns: int, cdr: bytes) -> None:
        """Queues one serialized message of a relative topic. If the queue is full, drops and counts it."""
        if self.paused:
            return
        too_many = self._queue.qsize() >= _MAX_QUEUE_LENGTH
        too_large = self._queued_bytes + len(cdr) > _MAX_QUEUE_BYTES
        if too_many or too_large:
            self.trace.overflows += 1
            return
        with self._bytes_lock:
            self._queued_bytes += len(cdr)
        self._queue.put((topic, arrival_ns, cdr))

    def add_lost(self, topic: str, count: int) -> None:
        """Counts messages that the middleware lost."""
        self.trace.streams[topic].lost += count

    def pause(self, on: bool, now_ns: int) -> None:
        """Pauses, or resumes with a new segment: no row contains samples from both sides of a pause."""
        if on:
            self.paused = True
            self._queue.put((_PAUSE, now_ns, b''))
        else:
            self._queue.put((_RESUME, now_ns, b''))
            self.paused = False

    def finish(self, info: dict[str, Any]) -> EpisodeTrace:
        """Writes what is queued, adds `info` to the bag, closes it, and returns the trace.

        Raises the exception that ended the recording early, if one did.
        """
        self._queue.put((_STOP, 0, b''))
        self._thread.join()
        if self._pool is not None:
            self._pool.shutdown()
        self.trace.regressions = self._row_builder.regressions
        self.trace.extra_frames = self._row_builder.extra_frames
        closing_info = {**info, 'counts': self._counts()}
        if self.failure is not None:
            closing_info['failure'] = str(self.failure)
        self._writer.close(closing_info)
        if self.failure is not None:
            raise self.failure
        return self.trace

    def _make_encoder(self, camera: CameraField) -> H264Encoder:
        return H264Encoder(
            camera.width,
            camera.height,
            self.embodiment.fps,
            self.settings.keyframe_interval_s,
            self.settings.codec,
        )

    def _counts(self) -> dict[str, Any]:
        """What the bag's info says about rows and topics."""
        trace = self.trace
        topics = {
            topic: {
                'received': len(stream.stamps_ns),
                'lost': stream.lost,
                'rate_hz': stream.rate_hz,
                'max_gap_ns': stream.max_gap_ns,
            }
            for topic, stream in trace.streams.items()
        }
        max_age_s = float(trace.ages_s.max()) if trace.rows else 0.0
        return {
            'ticks': trace.rows,
            'filled': trace.filled,
            'late_ticks': trace.late,
            'extra_frames': trace.extra_frames,
            'regressions': trace.regressions,
            'overflows': trace.overflows,
            'max_encoder_lag_ms': self.max_encoder_lag_s * 1e3,
            'max_age_ms': max_age_s * 1e3,
            'topics': topics,
        }

    def _work(self) -> None:
        """Writes what is queued until _STOP comes; runs in a thread of its own."""
        try:
            while True:
                topic, arrival_ns, content = self._queue.get()
                if topic is _STOP:
                    return
                self._handle(topic, arrival_ns, content)
                self._writer.flush()
        except Exception as error:  # kept for `finish`, which raises it in the caller's thread
            if isinstance(error, (GrootRosError, OSError)):
                self.failure = error
            else:
                problem = f'{type(error).__name__}: {error}'
                self.failure = GrootRosError(f'A message could not be recorded ({problem}).')
            self._drain()

    def _drain(self) -> None:
        """Drops and counts what still arrives after a failure."""
        while True:
            topic, _, _ = self._queue.get()
            if topic is _STOP:
                return
            if isinstance(topic, str):
                self.trace.overflows += 1

    def _handle(self, topic: Any, arrival_ns: int, content: bytes) -> None:
        """Works on one entry of the queue: a message, or a pause or its end."""
        if topic is _PAUSE:
            self._write_event(arrival_ns, EVENT_PAUSED)
        elif topic is _RESUME:
            self._row_builder.new_segment()
            self._write_event(arrival_ns, EVENT_RESUMED)
        else:
            with self._bytes_lock:
                self._queued_bytes -= len(content)
            self._current_arrival_ns = arrival_ns
            self._take(topic, arrival_ns, content)
            self._row_builder.resolve(arrival_ns)

    def _write(self, topic: str, msgtype: str, log_ns: int, cdr: bytes) -> None:
        absolute = absolute_topic(self.namespace, topic)
        if absolute not in self._writer.topics:
            self._writer.add_topic(absolute, msgtype, self._offered_of(topic))
        self._writer.write(absolute, msgtype, log_ns, cdr)

    def _offered_of(self, topic: str) -> Sequence[Qos]:
        """How a topic is offered; those that only the recorder writes are offered by nobody yet."""
        return self._offered.get(topic, (DEFAULT_QOS,))

    def _write_event(self, now_ns: int, kind: str, text: str = '') -> None:
        self._write(EPISODE_EVENT_TOPIC, EPISODE_EVENT_TYPE, now_ns, event_message(now_ns, kind, text))

    def _take(self, topic: str, arrival_ns: int, cdr: bytes) -> None:
        msgtype = self._types[topic]
        stamp_ns = cdr_stamp_ns(cdr) if self._stamped[topic] else arrival_ns
        self.trace.add_message(topic, stamp_ns, arrival_ns)
        if topic in self._cameras:
            message = typestore().deserialize_cdr(cdr, msgtype)
            frame = decode_frame(message)
            self._frame_ids[topic] = message.header.frame_id
            self._write_camera(topic, arrival_ns, cdr, message, frame)
            self._row_builder.take_frame(topic, frame)
        elif msgtype == IMAGE_TYPE:
            self._write_image(topic, arrival_ns, cdr)
        else:
            self._write(topic, msgtype, arrival_ns, cdr)
            if topic in self.embodiment.sampled_topics:
                self._row_builder.take(topic, typestore().deserialize_cdr(cdr, msgtype))
            elif msgtype == ROBOT_STATUS_TYPE:
                self._take_robot_status(arrival_ns, cdr)

    def _take_robot_status(self, arrival_ns: int, cdr: bytes) -> None:
        status = typestore().deserialize_cdr(cdr, ROBOT_STATUS_TYPE)
        source_changed = self.trace.robot.add(status)
        if source_changed:
            self._write_event(arrival_ns, EVENT_SOURCE, status.source)

    def _write_camera(self, topic: str, arrival_ns: int, cdr: bytes, message: Any, frame: VideoFrame) -> None:
        """Writes a frame at the camera's own rate. With h264 only its stamp: the row writes the video."""
        msgtype = self._types[topic]
        video = self.settings.video
        if video == 'raw' or (video == 'jpeg' and msgtype == COMPRESSED_IMAGE_TYPE):
            self._write(topic, msgtype, arrival_ns, cdr)
        elif video == 'jpeg':
            content = frame.jpeg(self.settings.jpeg_quality)
            jpeg = compressed_message(message.header, f'{message.encoding}; jpeg compressed bgr8', content)
            self._write(f'{topic}/{COMPRESSED_TOPIC}', COMPRESSED_IMAGE_TYPE, arrival_ns, jpeg)
        else:
            stamp = serialized(message.header, HEADER_TYPE)
            self._write(f'{topic}/{FRAME_STAMP_TOPIC}', HEADER_TYPE, arrival_ns, stamp)

    def _write_image(self, topic: str, arrival_ns: int, cdr: bytes) -> None:
        """Writes an image that no row needs, such as depth."""
        message = typestore().deserialize_cdr(cdr, IMAGE_TYPE)
        if self.settings.depth == 'png' and is_depth(message.encoding):
            content = depth_png(message)
            png = compressed_message(message.header, f'{message.encoding}; png compressed 16UC1', content)
            self._write(f'{topic}/{COMPRESSED_TOPIC}', COMPRESSED_IMAGE_TYPE, arrival_ns, png)
        else:
            self._write(topic, IMAGE_TYPE, arrival_ns, cdr)

    def _write_row(self, row: SampledRow) -> None:
        """Writes the Row message and one H.264 access unit per camera."""
        stamp_ns = row.tick.stamp_ns
        for topic, access_unit in self._encode(row).items():
            camera = self._cameras[topic]
            video = video_message(row.frames[topic].stamp_ns, self._frame_ids[topic], access_unit)
            self._write(camera.video_topic, VIDEO_TYPE, stamp_ns, video)
        stats = [self._frame_stats[topic].add(frame.thumbnail()) for topic, frame in row.frames.items()]
        brightness, repeated = zip(*stats, strict=True)
        message = row_message(row, brightness, repeated)
        self._write(ROW_TOPIC, ROW_TYPE, stamp_ns, serialized(message, ROW_TYPE))
        self.trace.add_row(message)
        encoder_lag_s = (time.time_ns() - stamp_ns) / 1e9
        self.max_encoder_lag_s = max(self.max_encoder_lag_s, encoder_lag_s)

    def _encode(self, row: SampledRow) -> dict[str, bytes]:
        """The access unit of each camera with h264.

        A segment begins with a keyframe, so that it can be cut there.
        """
        keyframe = row.segment != self._segment
        self._segment = row.segment

        def encode(topic: str) -> bytes:
            return self._encoders[topic].encode(row.frames[topic], keyframe)

        topics = list(self._encoders)
        access_units = self._pool.map(encode, topics) if self._pool else map(encode, topics)
        return dict(zip(topics, access_units, strict=True))
