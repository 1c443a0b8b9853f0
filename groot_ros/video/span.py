# SPDX-License-Identifier: Apache-2.0
"""Some frames of a video as a file of their own: packets are copied where a decoder can begin with them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from groot_ros.errors import GrootRosError
from groot_ros.video.frame import VideoFrame
from groot_ros.video.h264 import H264Encoder
from groot_ros.video.mp4 import Mp4Copier, Mp4PacketCopier, encode_mp4
from groot_ros.video.open import open_video

# Seeking finds keyframes by the order of decoding, which is a few frames before that of showing.
_SEEK_MARGIN_S = 1.0
# Of H.264, the standard that allows most.
_MAX_REORDERED = 16
_PIXEL_FORMAT = 'yuv420p'


@dataclass(frozen=True)
class _Layout:
    """The packets of a span: their keyframes, and the number of the span's first one.

    Packets are counted from the last keyframe at or before the span. `is_in_order` says whether they are
    stored in the order of their times, without frames that refer to later ones.
    """

    first: int
    keyframes: list[int]
    is_in_order: bool


@dataclass(frozen=True)
class VideoSpan:
    """`count` frames of a video, the first at `start_s`, and then `fps` a second."""

    file: Path
    start_s: float
    count: int
    fps: float

    def write(self, path: Path, size: tuple[int, int], codec: str) -> int:
        """Writes the frames into an MP4 file of a size (width, height), and returns how many there were.

        Packets of this size and codec are copied. If the span begins between two keyframes, H.264 is encoded
        again up to the next one, and other codecs as a whole. Raises GrootRosError for a video that cannot be
        decoded, or has no frame for some row.
        """
        with self._reading():
            layout = self._layout()
            if layout.is_in_order and self._has_form(size, codec):
                if layout.first in layout.keyframes:
                    return self._copy(path, layout.first)
                rest = [index for index in layout.keyframes if index > layout.first]
                if rest and codec == 'h264':
                    return self._stitch(path, size, layout.first, rest[0])
            return encode_mp4(self.frames(), path, size, self.fps, codec)

    def frames(self) -> Iterator[VideoFrame]:
        """The decoded frames, as RGB."""
        left = self.count
        with self._opened() as (container, stream):
            for frame in container.decode(stream):
                if frame.pts is None or frame.pts * stream.time_base < self.start_s - 0.5 / self.fps:
                    continue
                if not left:
                    return
                left -= 1
                yield VideoFrame(0, frame.to_ndarray(format='rgb24'), 'rgb24')

    def update(self, digest: 'hashlib._Hash') -> None:
        """Adds the packets to a checksum, from the last keyframe at or before the span on."""
        with self._reading(), self._opened() as (container, stream):
            for packet in self._packets(container, stream):
                digest.update(bytes(packet))

    def _layout(self) -> _Layout:
        """Reads the times of the packets. Raises GrootRosError unless there is a frame for each row."""
        with self._opened() as (container, stream):
            found = [
                (float(packet.pts * stream.time_base), packet.is_keyframe)
                for packet in self._packets(container, stream)
            ]
        times_s = [time_s for time_s, _ in found]
        early_s = self.start_s - 0.5 / self.fps
        shown_s = sorted(time_s for time_s in times_s if time_s >= early_s)[: self.count]
        self._check_times(shown_s)
        keyframes = [index for index, (_, is_keyframe) in enumerate(found) if is_keyframe]
        return _Layout(times_s.index(shown_s[0]), keyframes, times_s == sorted(times_s))

    def _check_times(self, times_s: list[float]) -> None:
        for row in range(self.count):
            wanted_s = self.start_s + row / self.fps
            if row < len(times_s) and abs(times_s[row] - wanted_s) <= 0.6 / self.fps:
                continue
            is_there = f'its next one is at {times_s[row]:.3f} s' if row < len(times_s) else 'it ends before'
            raise GrootRosError(
                f'The video {self.file} has no frame at {wanted_s:.3f} s for row {row} of {self.count} at '
                f'{self.fps:g} rows a second ({is_there}): it has another rate, or is damaged.'
            )

    def _has_form(self, size: tuple[int, int], codec: str) -> bool:
        with open_video(self.file) as container:
            context = container.streams.video[0].codec_context
            return (
                context.codec.canonical_name == codec
                and (context.width, context.height) == size
                and context.pix_fmt == _PIXEL_FORMAT
            )

    def _copy(self, path: Path, first: int) -> int:
        with self._opened() as (container, stream):
            copier = Mp4PacketCopier(path, stream, self.fps)
            try:
                for index, packet in enumerate(self._packets(container, stream)):
                    if first <= index < first + self.count:
                        copier.add(packet)
            finally:
                copier.close()
        return copier.frames

    def _stitch(self, path: Path, size: tuple[int, int], first: int, keyframe: int) -> int:
        """Encodes the frames before packet number `keyframe`, and copies from it on.

        Both parts have their parameter sets before each keyframe, so a decoder can change over.
        """
        end = min(keyframe, first + self.count)
        copier = Mp4Copier(path, self.fps)
        encoder = H264Encoder(*size, self.fps)
        head = VideoSpan(self.file, self.start_s, end - first, self.fps)
        try:
            for image in head.frames():
                copier.add(encoder.encode(image))
            for access_unit in self._access_units(keyframe, first + self.count):
                copier.add(access_unit)
        finally:
            copier.close()
        return copier.frames

    def _access_units(self, first: int, end: int) -> Iterator[bytes]:
        """The packets `first` to `end` in Annex B form."""
        with self._opened() as (container, stream):
            to_annex_b = BitStreamFilterContext('h264_mp4toannexb', stream)
            for index, packet in enumerate(self._packets(container, stream)):
                if first <= index < end:
                    yield from (bytes(changed) for changed in to_annex_b.filter(packet))

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        """Packets from the last keyframe at or before the span on, as the file has them, and a few more."""
        half_s = 0.5 / self.fps
        end_s = self.start_s + self.count / self.fps - half_s
        before: list[Any] = []
        late = 0
        for packet in container.demux(stream):
            if not packet.size or packet.pts is None:
                continue
            time_s = float(packet.pts * stream.time_base)
            if packet.is_keyframe and time_s <= self.start_s + half_s:
                before.clear()
            before.append(packet)
            if time_s < self.start_s - half_s:
                continue
            yield from before
            before.clear()
            # One that is shown after the span may be stored before the last ones of it.
            late += time_s >= end_s
            if late > _MAX_REORDERED:
                return

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """The container, at a keyframe before the span, and its video stream."""
        with open_video(self.file) as container:
            stream = container.streams.video[0]
            seconds = max(self.start_s - _SEEK_MARGIN_S, 0.0)
            container.seek(int(seconds / stream.time_base), stream=stream)
            yield container, stream

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, av.FFmpegError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise GrootRosError(f'The video {self.file} cannot be decoded ({reason}).') from error
