# SPDX-License-Identifier: Apache-2.0
"""One episode while it is recorded: messages in, bag out, rows sampled and video encoded at the tick. Imports no ROS."""

import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groot_ros.bags.message_types import (
    COMPRESSED_IMAGE_TYPE,
    COMPRESSED_TOPIC,
    EPISODE_EVENT_TOPIC,
    EPISODE_EVENT_TYPE,
    FRAME_STAMP_TOPIC,
    HEADER_TYPE,
    IMAGE_TYPE,
    ROBOT_STATUS_TYPE,
    ROW_TOPIC,
    ROW_TYPE,
    VIDEO_TYPE,
    compressed_message,
    event_message,
    row_message,
    serialized,
    typestore,
    video_message,
)
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
_QUEUE_LENGTH = 4096  # some seconds of every stream, for a disk that stalls
_QUEUE_BYTES = 512 << 20
_STOP, _PAUSE, _RESUME = object(), object(), object()


@dataclass
class RecordingSettings:
    """How cameras are written: `h264` one access unit a row, `jpeg` or `raw` at their own rate; depth maps as `png` or `raw`."""

    video: str = 'h264'
    codec: str = 'libx264'
    keyframe_interval_s: float = 0.5
    jpeg_quality: int = 90
    depth: str = 'png'


class EpisodeRecording:
    """Records from construction to `finish`. `put` may be called from any thread and never blocks.

    A failure in the writer thread ends the recording; it stands in `failure` and `finish` raises it, once what came before is
    safe. Everything that is known of the episode stands in `trace`.
    """

    def __init__(
        self,
        path: Path,
        embodiment: Embodiment,
        topic_types: dict[str, str],
        info: dict[str, Any],
        namespace: str = '/',
        settings: RecordingSettings | None = None,
    ) -> None:
        self.embodiment, self.namespace, self.settings = (
            embodiment,
            namespace,
            settings or RecordingSettings(),
        )
        self.trace = EpisodeTrace(embodiment, list(topic_types))
        self.failure: Exception | None = None
        self.paused = False
        self.max_encoder_lag_s = 0.0
        self._types = topic_types
        self._stamped = {topic: has_header(msgtype) for topic, msgtype in topic_types.items()}
        self._row_builder = RowBuilder(embodiment, self._write_row)
        self._cameras = {camera.topic: camera for camera in embodiment.cameras}
        self._encoders = (
            {camera.topic: self._encoder(camera) for camera in embodiment.cameras}
            if self.settings.video == 'h264'
            else {}
        )
        # FFmpeg works without the interpreter's lock, so several cameras are encoded beside each other.
        self._pool = ThreadPoolExecutor(len(self._encoders)) if len(self._encoders) > 1 else None
        self._frame_stats = {camera.topic: FrameStats() for camera in embodiment.cameras}
        self._segment = 0
        self._writer = EpisodeWriter(path, info, namespace)
        for topic, msgtype in topic_types.items():
            if topic not in self._cameras and msgtype != IMAGE_TYPE:
                self._writer.add_topic(namespace + topic, msgtype)
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._queued_bytes = self._current_arrival_ns = 0
        self._bytes_lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name='recording', daemon=True)
        self._thread.start()

    @property
    def queue_length(self) -> int:
        """Messages that wait for the writer."""
        return self._queue.qsize()

    @property
    def writer_lag_s(self) -> float:
        """How long the message in the writer's hand has waited, in s; 0 where none waits."""
        return max(time.time_ns() - self._current_arrival_ns, 0) / 1e9 if self._queue.qsize() else 0.0

    def missing_topics(self) -> list[str]:
        """What has not come yet, while there is no row."""
        return self._row_builder.missing_topics()

    def put(self, topic: str, arrival_ns: int, cdr: bytes) -> None:
        """Takes one serialized message of a relative topic. What does not fit the queue is lost, counted and shown."""
        if self.paused:
            return
        if self._queue.qsize() >= _QUEUE_LENGTH or self._queued_bytes + len(cdr) > _QUEUE_BYTES:
            self.trace.overflows += 1
            return
        with self._bytes_lock:
            self._queued_bytes += len(cdr)
        self._queue.put((topic, arrival_ns, cdr))

    def note_lost(self, topic: str, count: int) -> None:
        """Counts messages that the middleware lost."""
        self.trace.streams[topic].lost += count

    def pause(self, on: bool, now_ns: int) -> None:
        """Leaves out what comes from now on, or goes on with a new segment: no row reaches across a pause."""
        if on:
            self.paused = True
        self._queue.put((_PAUSE if on else _RESUME, now_ns, b''))
        if not on:
            self.paused = False

    def finish(self, info: dict[str, Any]) -> EpisodeTrace:
        """Writes what waits, closes the bag, and returns the trace. Raises what made the recording fail."""
        self._queue.put((_STOP, 0, b''))
        self._thread.join()
        if self._pool is not None:
            self._pool.shutdown()
        self.trace.regressions, self.trace.extra_frames = (
            self._row_builder.regressions,
            self._row_builder.extra_frames,
        )
        failure = {'failure': str(self.failure)} if self.failure is not None else {}
        self._writer.close({**info, **failure, 'counts': self._counts()})
        if self.failure is not None:
            raise self.failure
        return self.trace

    def _encoder(self, camera: CameraField) -> H264Encoder:
        return H264Encoder(
            camera.width,
            camera.height,
            self.embodiment.fps,
            self.settings.keyframe_interval_s,
            self.settings.codec,
        )

    def _counts(self) -> dict[str, Any]:
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
            'ticks': trace.rows, 'filled': trace.filled, 'late_ticks': trace.late, 'extra_frames': trace.extra_frames,
            'regressions': trace.regressions, 'overflows': trace.overflows, 'max_encoder_lag_ms': self.max_encoder_lag_s * 1e3,
            'max_age_ms': max_age_s * 1e3, 'topics': topics,
        }  # fmt: skip

    def _work(self) -> None:
        try:
            while True:
                topic, arrival_ns, content = self._queue.get()
                if topic is _STOP:
                    return
                if isinstance(topic, str):
                    with self._bytes_lock:
                        self._queued_bytes -= len(content)
                    self._current_arrival_ns = arrival_ns
                    self._take(topic, arrival_ns, content)
                    self._row_builder.resolve(arrival_ns)
                else:
                    self._write_event(arrival_ns, 'paused' if topic is _PAUSE else 'resumed')
                self._writer.flush()
        except Exception as error:  # kept for `finish`, which raises it in the caller's thread
            known = isinstance(error, (GrootRosError, OSError))
            self.failure = (
                error
                if known
                else GrootRosError(f'a message could not be worked on ({type(error).__name__}: {error})')
            )
            self._drain()

    def _drain(self) -> None:
        while (topic := self._queue.get()[0]) is not _STOP:
            self.trace.overflows += isinstance(topic, str)

    def _write_event(self, now_ns: int, kind: str, text: str = '') -> None:
        if kind == 'resumed':
            self._row_builder.new_segment()
        self._writer.write(
            f'{self.namespace}{EPISODE_EVENT_TOPIC}',
            EPISODE_EVENT_TYPE,
            now_ns,
            event_message(now_ns, kind, text),
        )

    def _take(self, topic: str, arrival_ns: int, cdr: bytes) -> None:
        msgtype = self._types[topic]
        self.trace.add_message(topic, cdr_stamp_ns(cdr) if self._stamped[topic] else arrival_ns, arrival_ns)
        if topic in self._cameras:
            message = typestore().deserialize_cdr(cdr, msgtype)
            frame = decode_frame(message)
            self._write_camera(topic, arrival_ns, cdr, message, frame)
            self._row_builder.take_frame(topic, frame)
        elif msgtype == IMAGE_TYPE:
            self._write_image(topic, arrival_ns, cdr)
        else:
            self._writer.write(self.namespace + topic, msgtype, arrival_ns, cdr)
            if topic in self.embodiment.sampled_topics:
                self._row_builder.take(topic, typestore().deserialize_cdr(cdr, msgtype))
            elif msgtype == ROBOT_STATUS_TYPE:
                status = typestore().deserialize_cdr(cdr, msgtype)
                if self.trace.robot.add(status):
                    self._write_event(arrival_ns, 'source', status.source)

    def _write_camera(self, topic: str, arrival_ns: int, cdr: bytes, message: Any, frame: VideoFrame) -> None:
        """At the camera's own rate; h264 is written with the row instead, and only the stamps of all frames here."""
        msgtype = self._types[topic]
        if self.settings.video == 'raw' or (self.settings.video == 'jpeg' and msgtype == COMPRESSED_IMAGE_TYPE):
            self._writer.write(self.namespace + topic, msgtype, arrival_ns, cdr)
        elif self.settings.video == 'jpeg':
            jpeg = compressed_message(
                message.header,
                f'{message.encoding}; jpeg compressed bgr8',
                frame.jpeg(self.settings.jpeg_quality),
            )
            self._writer.write(
                f'{self.namespace}{topic}/{COMPRESSED_TOPIC}', COMPRESSED_IMAGE_TYPE, arrival_ns, jpeg
            )
        else:
            stamp = serialized(message.header, HEADER_TYPE)
            self._writer.write(f'{self.namespace}{topic}/{FRAME_STAMP_TOPIC}', HEADER_TYPE, arrival_ns, stamp)

    def _write_image(self, topic: str, arrival_ns: int, cdr: bytes) -> None:
        """An image beside the cameras of the rows, such as depth."""
        message = typestore().deserialize_cdr(cdr, IMAGE_TYPE)
        if self.settings.depth == 'png' and is_depth(message.encoding):
            png = compressed_message(
                message.header, f'{message.encoding}; png compressed 16UC1', depth_png(message)
            )
            self._writer.write(
                f'{self.namespace}{topic}/{COMPRESSED_TOPIC}', COMPRESSED_IMAGE_TYPE, arrival_ns, png
            )
        else:
            self._writer.write(self.namespace + topic, IMAGE_TYPE, arrival_ns, cdr)

    def _write_row(self, row: SampledRow) -> None:
        stamp_ns = row.tick.stamp_ns
        keyframe, self._segment = row.segment != self._segment, row.segment
        topics = list(self._encoders)

        def encode(topic: str) -> bytes:
            return self._encoders[topic].encode(row.frames[topic], keyframe)

        for topic, access_unit in zip(
            topics, self._pool.map(encode, topics) if self._pool else map(encode, topics), strict=True
        ):
            camera = self._cameras[topic]
            self._writer.write(
                self.namespace + camera.video_topic,
                VIDEO_TYPE,
                stamp_ns,
                video_message(row.frames[topic].stamp_ns, camera.name, access_unit),
            )
        brightness, repeated = zip(
            *(self._frame_stats[topic].add(frame.thumbnail()) for topic, frame in row.frames.items()),
            strict=True,
        )
        message = row_message(row, brightness, repeated)
        self._writer.write(f'{self.namespace}{ROW_TOPIC}', ROW_TYPE, stamp_ns, serialized(message, ROW_TYPE))
        self.trace.add_row(message)
        self.max_encoder_lag_s = max(self.max_encoder_lag_s, (time.time_ns() - stamp_ns) / 1e9)
