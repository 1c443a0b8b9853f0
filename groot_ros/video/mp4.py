# SPDX-License-Identifier: Apache-2.0
"""MP4 files whose frame k stands at k / fps: copied of access units, encoded of pictures, cut and read."""

import io
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.video.frame import VideoFrame
from groot_ros.video.h264 import is_keyframe

# Encoder and its options for each codec; a keyframe every half second lets training seek and keeps files small.
CODECS = {
    'h264': (
        'libx264',
        {'preset': 'ultrafast', 'tune': 'zerolatency', 'crf': '21', 'bf': '0', 'sc_threshold': '0'},
    ),
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
_KEYFRAME_S = 0.5


class Mp4Encoder:
    """Encodes pictures, one a row, letterboxed to one size with black bars. `frames` counts them."""

    def __init__(self, path: Path, width: int, height: int, fps: float, codec: str) -> None:
        name, options = CODECS[codec]
        os.environ.setdefault('SVT_LOG', '1')  # the AV1 encoder prints its settings otherwise; 1: errors only
        rate = Fraction(fps).limit_denominator(1001)
        self.frames = 0
        self._size = (width, height)
        self._container = av.open(str(path), 'w', format='mp4')
        self._stream = self._container.add_stream(name, rate=rate, options=dict(options))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, 'yuv420p'
        self._stream.codec_context.gop_size = max(round(fps * _KEYFRAME_S), 1)
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.time_base = self._stream.time_base = 1 / rate

    def add(self, image: VideoFrame) -> None:
        """The next picture."""
        frame = av.VideoFrame.from_ndarray(image.letterboxed(*self._size).i420(), format='yuv420p')
        frame.pts = self.frames
        self.frames += 1
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Writes what the encoder still holds, and ends the file."""
        if self.frames:
            self._container.mux(self._stream.encode(None))
        self._container.close()


def encode_mp4(
    frames: Iterable[VideoFrame], path: Path, size: tuple[int, int], fps: float, codec: str
) -> int:
    """Encodes pictures to a file, and returns how many."""
    encoder = Mp4Encoder(path, *size, fps, codec)
    try:
        for frame in frames:
            encoder.add(frame)
    finally:
        encoder.close()
    return encoder.frames


class Mp4Copier:
    """Copies H.264 access units (Annex B, one a frame, the first a keyframe) into a file without decoding. `frames` counts them."""

    def __init__(self, path: Path, fps: float) -> None:
        self.frames = 0
        self._path, self._fps = path, fps
        self._time_base = 1 / Fraction(fps).limit_denominator(
            1001
        )  # the file's own is another once its header is written
        self._container: Any = None
        self._stream: Any = None

    def add(self, access_unit: bytes) -> None:
        """The next frame. Raises GrootRosError where the first one is no beginning of a video."""
        if self._container is None:
            self._open(access_unit)
        packet = av.Packet(access_unit)
        packet.stream = self._stream
        packet.pts = packet.dts = self.frames
        packet.duration, packet.time_base = 1, self._time_base
        packet.is_keyframe = is_keyframe(access_unit)
        self._container.mux(packet)
        self.frames += 1

    def close(self) -> None:
        """Ends the file; there is none where nothing was added."""
        if self._container is not None:
            self._container.close()

    def _open(self, access_unit: bytes) -> None:
        try:
            with av.open(io.BytesIO(access_unit), format='h264') as source:
                self._container = av.open(str(self._path), 'w', format='mp4')
                self._stream = _template(source, self._container, self._fps)
        except (av.FFmpegError, IndexError) as error:
            raise GrootRosError(
                f'A video does not begin with a whole picture ({error}): the recording is damaged.'
            ) from error


def write_mp4(access_units: Iterable[bytes], path: Path, fps: float) -> int:
    """Copies H.264 access units into a file, and returns how many frames it holds."""
    copier = Mp4Copier(path, fps)
    try:
        for access_unit in access_units:
            copier.add(access_unit)
    finally:
        copier.close()
    return copier.frames


def cut_mp4(video: Path, path: Path, first: int, count: int, fps: float) -> int:
    """Copies frames from a keyframe on into another file, without decoding; for videos whose frames stand in the order of decoding."""
    with av.open(str(video)) as source, av.open(str(path), 'w', format='mp4') as target:
        return _mux(source, target, _template(source, target, fps), first, first + count, fps, 0)


def join_mp4(videos: Iterable[Path], path: Path, fps: float) -> None:
    """Copies the frames of several videos of one encoder into one file, one behind the other."""
    frames = 0
    with av.open(str(path), 'w', format='mp4') as target:
        stream = None
        for video in videos:
            with av.open(str(video)) as source:
                stream = stream or _template(source, target, fps)
                frames += _mux(source, target, stream, 0, None, fps, frames)


def _template(source, target, fps: float):
    stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
    stream.time_base = 1 / Fraction(fps).limit_denominator(1001)
    return stream


def _mux(source, target, stream, first: int, end: int | None, fps: float, before: int) -> int:
    count = 0
    for packet in islice((packet for packet in source.demux(video=0) if packet.size), first, end):
        packet.stream = stream
        packet.pts = packet.dts = before + count
        packet.duration = 1
        packet.time_base = 1 / Fraction(fps).limit_denominator(1001)
        target.mux(packet)
        count += 1
    return count


def find_keyframes(video: Path) -> tuple[list[int], bool]:
    """The frames that a decoder may begin with, by their number, and whether all frames stand in the order of decoding."""
    with av.open(str(video)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        times = [packet.pts for packet in packets]
        return [index for index, packet in enumerate(packets) if packet.is_keyframe], times == sorted(times)


def count_frames(path: Path) -> int:
    """Frames of a video by its packets, without decoding."""
    with av.open(str(path)) as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)


def read_frames(path: Path, indices: Iterable[int]) -> Iterator[np.ndarray]:
    """RGB images (height, width, 3) of the frames with the given rising indices."""
    wanted = sorted(set(indices))
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if wanted and index == wanted[0]:
                wanted.pop(0)
                yield frame.to_ndarray(format='rgb24')
            if not wanted:
                return


def read_keyframes(path: Path, most: int) -> Iterator[np.ndarray]:
    """RGB images (height, width, 3) of at most so many keyframes, evenly spread."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        start, duration = stream.start_time or 0, stream.duration or 0
        last = None
        for place in np.linspace(start, start + duration, most, endpoint=False):
            container.seek(int(place), stream=stream)  # to the keyframe at or before it
            frame = next(container.decode(stream))
            if frame.pts != last:
                yield frame.to_ndarray(format='rgb24')
            last = frame.pts
