# SPDX-License-Identifier: Apache-2.0
"""MP4 files whose frame k is at k / fps: copied from access units, encoded from images, cut and read."""

import ctypes
import io
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.video.frame import VideoFrame
from groot_ros.video.h264 import ENCODER_OPTIONS, SOFTWARE_ENCODER, is_keyframe
from groot_ros.video.open import open_video

# Encoder and its options for each codec.
CODECS = {
    'h264': (SOFTWARE_ENCODER, ENCODER_OPTIONS[SOFTWARE_ENCODER]),
    'hevc': (
        'libx265',
        {
            'preset': 'ultrafast',
            'crf': '24',
            'x265-params': 'bframes=0:scenecut=0:log-level=error:pools=1:frame-threads=1',
        },
    ),
    'av1': ('libsvtav1', {'preset': '9', 'crf': '30', 'svtav1-params': 'pred-struct=1:lp=1'}),
}
# Short enough for training to seek, long enough for small files.
_KEYFRAME_S = 0.5
_THREADS = Path('/proc/self/task')
_LIBC = ctypes.CDLL(None)


class Mp4Encoder:
    """Encodes images, one per row, letterboxed to one size with black bars. `frames` counts them."""

    def __init__(self, path: Path, width: int, height: int, fps: float, codec: str) -> None:
        name, options = CODECS[codec]
        os.environ.setdefault('SVT_LOG', '1')  # the AV1 encoder prints its settings otherwise; 1: errors only
        rate = Fraction(fps).limit_denominator(1001)
        self.frames = 0
        self._size = (width, height)
        self._container = av.open(str(path), 'w', format='mp4')
        self._stream = self._container.add_stream(name, rate=rate, options=dict(options))
        self._stream.width = width
        self._stream.height = height
        self._stream.pix_fmt = 'yuv420p'
        self._stream.codec_context.gop_size = max(round(fps * _KEYFRAME_S), 1)
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.time_base = 1 / rate
        self._stream.time_base = 1 / rate
        with _ordinary_scheduling():
            self._stream.codec_context.open()

    def add(self, image: VideoFrame) -> None:
        """Letterboxes an image to the size of the video, and encodes it as the next frame."""
        frame = av.VideoFrame.from_ndarray(image.letterboxed(*self._size).i420(), format='yuv420p')
        frame.pts = self.frames
        self.frames += 1
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Writes what the encoder still holds, and closes the file."""
        if self.frames:
            self._container.mux(self._stream.encode(None))
        self._container.close()


def encode_mp4(
    frames: Iterable[VideoFrame], path: Path, size: tuple[int, int], fps: float, codec: str
) -> int:
    """Encodes images to a file of a size (width, height), and returns how many there were."""
    encoder = Mp4Encoder(path, *size, fps, codec)
    try:
        for frame in frames:
            encoder.add(frame)
    finally:
        encoder.close()
    return encoder.frames


class Mp4Copier:
    """Copies H.264 access units into a file without decoding. `frames` counts them.

    They are Annex B, one per frame, and the first is a keyframe.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.frames = 0
        self._path = path
        self._fps = fps
        self._container: Any = None
        self._stream: Any = None

    def add(self, access_unit: bytes) -> None:
        """Adds the next frame. Raises GrootRosError if the first one is not a whole keyframe."""
        if self._container is None:
            self._open(access_unit)
        packet = av.Packet(access_unit)
        packet.is_keyframe = is_keyframe(access_unit)
        try:
            _mux_as(self._container, self._stream, packet, self.frames, self._fps)
        except (av.FFmpegError, ValueError) as error:
            raise GrootRosError(
                f'A frame cannot be put into a video ({error}): the recording is damaged.'
            ) from error
        self.frames += 1

    def close(self) -> None:
        """Closes the file; there is none if nothing was added."""
        if self._container is not None:
            self._container.close()

    def _open(self, access_unit: bytes) -> None:
        try:
            with open_video(io.BytesIO(access_unit), 'h264') as source:
                self._container = av.open(str(self._path), 'w', format='mp4')
                self._stream = _template(source, self._container, self._fps)
        except (av.FFmpegError, IndexError) as error:
            raise GrootRosError(
                f'A video does not begin with a whole image ({error}): the recording is damaged.'
            ) from error


class Mp4PacketCopier:
    """Copies packets of a video, which are in the order of their times, into a file. `frames` counts them."""

    def __init__(self, path: Path, source: Any, fps: float) -> None:
        self.frames = 0
        self._fps = fps
        self._container = av.open(str(path), 'w', format='mp4')
        self._stream = self._container.add_stream_from_template(source, opaque=True)
        self._stream.time_base = _time_base(fps)

    def add(self, packet: Any) -> None:
        """Adds the next frame."""
        _mux_as(self._container, self._stream, packet, self.frames, self._fps)
        self.frames += 1

    def close(self) -> None:
        """Closes the file."""
        self._container.close()


def cut_mp4(video: Path, path: Path, first: int, count: int, fps: float) -> int:
    """Copies `count` frames from keyframe number `first` on into another file, without decoding.

    The frames must be stored in the order of their times, see `find_keyframes`.
    """
    with open_video(video) as source, av.open(str(path), 'w', format='mp4') as target:
        return _mux(source, target, _template(source, target, fps), first, first + count, fps, 0)


def join_mp4(videos: Iterable[Path], path: Path, fps: float) -> None:
    """Copies the frames of several videos of one encoder into one file, one after the other."""
    frames = 0
    with av.open(str(path), 'w', format='mp4') as target:
        stream = None
        for video in videos:
            with open_video(video) as source:
                stream = stream or _template(source, target, fps)
                frames += _mux(source, target, stream, 0, None, fps, frames)


def _template(source, target, fps: float):
    stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
    stream.time_base = _time_base(fps)
    return stream


def _mux(source, target, stream, first: int, end: int | None, fps: float, before: int) -> int:
    """Copies packets `first` to `end` after the `before` ones that the target has, and returns how many."""
    count = 0
    for packet in islice(_packets(source), first, end):
        _mux_as(target, stream, packet, before + count, fps)
        count += 1
    return count


def _mux_as(target: Any, stream: Any, packet: Any, number: int, fps: float) -> None:
    """Writes a packet as frame `number` of a file."""
    packet.stream = stream
    packet.pts = number
    packet.dts = number
    packet.duration = 1
    packet.time_base = _time_base(fps)
    target.mux(packet)


def find_keyframes(video: Path) -> tuple[list[int], bool]:
    """Numbers of the keyframes, and whether the file stores all frames in the order of their times."""
    with open_video(video) as container:
        packets = list(_packets(container))
        times = [packet.pts for packet in packets]
        keyframes = [index for index, packet in enumerate(packets) if packet.is_keyframe]
        return keyframes, times == sorted(times)


def count_frames(path: Path) -> int:
    """The number of frames of a video, from its packets, without decoding."""
    with open_video(path) as container:
        return sum(1 for _ in _packets(container))


def read_frames(path: Path, indices: Iterable[int]) -> Iterator[np.ndarray]:
    """RGB images (height, width, 3) of the frames with the given indices, in rising order.

    Raises GrootRosError for a video that is damaged, or that lacks one of them.
    """
    wanted = sorted(set(indices))
    try:
        with open_video(path) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if wanted and index == wanted[0]:
                    wanted.pop(0)
                    yield frame.to_ndarray(format='rgb24')
                if not wanted:
                    return
    except (av.FFmpegError, OSError, IndexError) as error:
        raise GrootRosError(f'The video {path} cannot be decoded ({error}).') from error
    if wanted:
        raise GrootRosError(f'The video {path} has no frame {wanted[0]}: convert its episode again.')


def read_keyframes(path: Path, max_count: int) -> Iterator[np.ndarray]:
    """RGB images (height, width, 3) of at most `max_count` keyframes, evenly spread."""
    with open_video(path) as container:
        stream = container.streams.video[0]
        start = stream.start_time or 0
        end = start + (stream.duration or 0)
        last = None
        for time in np.linspace(start, end, max_count, endpoint=False):
            container.seek(int(time), stream=stream)  # to the keyframe at or before it
            frame = next(container.decode(stream))
            if frame.pts != last:
                yield frame.to_ndarray(format='rgb24')
            last = frame.pts


@contextmanager
def _ordinary_scheduling() -> Iterator[None]:
    """Takes the real-time priority away that an encoder gives to this thread and to those that it starts.

    Where the user has the right, SVT-AV1 puts them under SCHED_FIFO at 99, above the robot's servo loop.
    The C library remembers what was set with its own call, and ZeroMQ and Fast DDS give that to the threads
    that they start later. So this thread is set back with the same call.
    """
    policy = os.sched_getscheduler(0)
    priority = ctypes.c_int(os.sched_getparam(0).sched_priority)
    before = set(_THREADS.iterdir())
    try:
        yield
    finally:
        _LIBC.pthread_setschedparam(ctypes.c_ulong(threading.get_ident()), policy, ctypes.byref(priority))
        for thread in set(_THREADS.iterdir()) - before:
            with suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))


def _time_base(fps: float) -> Fraction:
    return 1 / Fraction(fps).limit_denominator(1001)


def _packets(container: Any) -> Iterator[Any]:
    """Packets of the video; those without data only end the stream."""
    return (packet for packet in container.demux(video=0) if packet.size)
