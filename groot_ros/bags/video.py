"""H.264 access units: encoded one a row while recording, and copied into MP4 without decoding when converting."""

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from av.video.frame import PictureType

from groot_ros.bags.images import Frame
from groot_ros.errors import GrootRosError

_HARDWARE = ('h264_nvenc', 'h264_qsv')
_SOFTWARE = 'libx264'
# One access unit for each frame at once, and no frame that refers to a later one.
_OPTIONS = {
    'libx264': {'preset': 'ultrafast', 'tune': 'zerolatency', 'crf': '21', 'bf': '0', 'sc_threshold': '0'},
    'h264_nvenc': {'preset': 'p4', 'tune': 'ull', 'rc': 'constqp', 'qp': '20', 'bf': '0', 'delay': '0', 'zerolatency': '1', 'forced-idr': '1'},
    'h264_qsv': {'preset': 'veryfast', 'global_quality': '20', 'bf': '0', 'async_depth': '1', 'forced_idr': '1'},
}


class H264Encoder:
    """Encodes frames to Annex B access units: no B-frames, one out for each in, a keyframe every `keyframe_s`."""

    def __init__(self, width: int, height: int, fps: float, keyframe_s: float = 0.5, codec: str = _SOFTWARE) -> None:
        if width % 2 or height % 2:
            raise GrootRosError(f'H.264 video of {width}x{height} is not possible: both must be even, crop the picture or record it as jpeg.')
        self._size = (width, height)
        self._context = av.CodecContext.create(codec, 'w')
        self._context.width, self._context.height, self._context.pix_fmt = width, height, 'yuv420p'
        self._context.framerate = Fraction(fps).limit_denominator(1001)
        self._context.time_base = 1 / self._context.framerate
        self._context.gop_size = max(round(fps * keyframe_s), 1)
        self._context.thread_count = 1
        self._context.options = _OPTIONS[codec]
        self._count = 0

    def encode(self, image: Frame, keyframe: bool = False) -> bytes:
        """The access unit of a frame. Raises GrootRosError when its size is not the camera's."""
        if image.size != self._size:
            raise GrootRosError(
                f'A frame of {image.size[0]}x{image.size[1]} came where the embodiment says {self._size[0]}x{self._size[1]}: '
                'set width and height of the camera in the embodiment to what it sends.'
            )
        frame = av.VideoFrame.from_ndarray(image.i420(), format='yuv420p')
        frame.pts = self._count
        if keyframe:
            frame.pict_type = PictureType.I
        self._count += 1
        packets = self._context.encode(frame)
        if len(packets) != 1:
            raise GrootRosError(f'The video encoder gave {len(packets)} packets for one frame.')
        return bytes(packets[0])


@cache
def fastest_codec() -> str:
    """The first hardware encoder that answers a smoke test of a few frames, else libx264."""
    for codec in _HARDWARE:
        try:
            encoder = H264Encoder(640, 480, 30.0, codec=codec)
            for grey in range(5):
                encoder.encode(Frame(0, np.full((480, 640, 3), 50 * grey, np.uint8), 'rgb24'))
        except (av.FFmpegError, GrootRosError, ValueError):
            continue
        return codec
    return _SOFTWARE


class H264Decoder:
    """Decodes access units that each hold one frame."""

    def __init__(self) -> None:
        self._context = av.CodecContext.create('h264', 'r')
        # Frame threads would hold pictures back.
        self._context.thread_type, self._context.flags = 'SLICE', self._context.flags | Flags.low_delay

    def decode(self, stamp_ns: int, access_unit: bytes) -> Frame:
        """The frame of an access unit. Raises GrootRosError for one that cannot be decoded."""
        try:
            frames = self._context.decode(av.Packet(access_unit))
        except av.FFmpegError as error:
            raise GrootRosError(f'A video frame cannot be decoded ({error}): the recording is damaged.') from error
        if len(frames) != 1:
            raise GrootRosError(f'A video packet holds {len(frames)} frames: the recording is not one frame a row.')
        return Frame(stamp_ns, frames[0].to_ndarray(format='rgb24'), 'rgb24')


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


def read_keyframes(path: Path, most: int) -> Iterator[np.ndarray]:
    """RGB images (height, width, 3) of at most so many keyframes, evenly spread."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        keyframes = [packet.pts for packet in container.demux(stream) if packet.is_keyframe and packet.size]
        for index in np.unique(np.linspace(0, len(keyframes) - 1, min(most, len(keyframes))).astype(int)):
            container.seek(keyframes[index], stream=stream)
            yield next(container.decode(stream)).to_ndarray(format='rgb24')


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
