"""H.264 access units: encoded one a row while recording, and copied into MP4 without decoding when converting."""

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from groot_ros.errors import GrootRosError

KEYFRAME_EVERY_S = 0.5


class H264Encoder:
    """Encodes RGB frames to Annex B access units: no B-frames, one out for each in, a keyframe every half second."""

    def __init__(self, width: int, height: int, fps: float) -> None:
        self._size = (width, height)
        self._context = av.CodecContext.create('libx264', 'w')
        self._context.width, self._context.height, self._context.pix_fmt = width, height, 'yuv420p'
        self._context.framerate = Fraction(fps).limit_denominator(1001)
        self._context.time_base = 1 / self._context.framerate
        self._context.gop_size = max(round(fps * KEYFRAME_EVERY_S), 1)
        self._context.thread_count = 1
        self._context.options = {'preset': 'veryfast', 'tune': 'zerolatency', 'crf': '20', 'bf': '0', 'sc_threshold': '0'}
        self._count = 0

    def encode(self, image: np.ndarray) -> bytes:
        """The access unit of an RGB image (height, width, 3) uint8. Raises GrootRosError when its size is not the camera's."""
        if image.shape != (self._size[1], self._size[0], 3):
            raise GrootRosError(
                f'A frame of {image.shape[1]}x{image.shape[0]} came where the embodiment says {self._size[0]}x{self._size[1]}: '
                'set width and height of the camera in the embodiment to what it sends.'
            )
        frame = av.VideoFrame.from_ndarray(image, format='rgb24')
        frame.pts = self._count
        self._count += 1
        packets = self._context.encode(frame)
        if len(packets) != 1:
            raise GrootRosError(f'The video encoder gave {len(packets)} packets for one frame.')
        return bytes(packets[0])


def write_mp4(access_units: Iterable[bytes], path: Path, fps: float) -> int:
    """Copies Annex B access units into an MP4 whose frame k has time k / fps, and returns how many frames it holds."""
    rate = Fraction(fps).limit_denominator(1001)
    count = 0
    with av.open(_Pipe(access_units), format='h264') as source, av.open(str(path), 'w', format='mp4') as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.time_base = 1 / rate
        for packet in source.demux(video=0):
            if not packet.size:
                continue
            packet.stream = stream
            packet.pts = packet.dts = count
            packet.duration = 1
            packet.time_base = 1 / rate
            target.mux(packet)
            count += 1
    return count


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


class _Pipe(io.RawIOBase):
    """A file that reads from an iterable, so that an episode's video never lies in memory whole."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b''

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._rest:
            try:
                self._rest = next(self._chunks)
            except StopIteration:
                return b''
        data, self._rest = self._rest[:size], self._rest[size:]
        return data
