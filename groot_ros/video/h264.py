# SPDX-License-Identifier: Apache-2.0
"""H.264 access units, one per row: encoded while recording, and decoded.

`mp4.py` puts them into files, and encodes the videos of conversions.
"""

from fractions import Fraction
from functools import cache

import av
import numpy as np
from av.codec.context import Flags
from av.video.frame import PictureType

from groot_ros.errors import GrootRosError
from groot_ros.video.frame import VideoFrame
from groot_ros.video.open import limited

SOFTWARE_ENCODER = 'libx264'
_HARDWARE_ENCODERS = ('h264_nvenc', 'h264_qsv')
# Options of each encoder: one access unit for each frame at once, and no frame that refers to a later one.
ENCODER_OPTIONS = {
    'libx264': {'preset': 'ultrafast', 'tune': 'zerolatency', 'crf': '21', 'bf': '0', 'sc_threshold': '0'},
    'h264_nvenc': {
        'preset': 'p4',
        'tune': 'ull',
        'rc': 'constqp',
        'qp': '20',
        'bf': '0',
        'delay': '0',
        'zerolatency': '1',
        'forced-idr': '1',
    },
    'h264_qsv': {
        'preset': 'veryfast',
        'global_quality': '20',
        'bf': '0',
        'async_depth': '1',
        'forced_idr': '1',
    },
}

# Annex B: a start code, then a byte whose lower five bits are the type of the NAL unit.
_START_CODE = b'\x00\x00\x01'
_NAL_TYPE_BITS = 0x1F
_NAL_SLICE = 1
_NAL_IDR_SLICE = 5


class H264Encoder:
    """Encodes frames to Annex B access units: one per frame, without B-frames.

    There is a keyframe every `keyframe_interval_s`. Raises GrootRosError for an odd width or height.
    """

    def __init__(
        self,
        width: int,
        height: int,
        fps: float,
        keyframe_interval_s: float = 0.5,
        codec: str = SOFTWARE_ENCODER,
    ) -> None:
        if width % 2 or height % 2:
            raise GrootRosError(
                f'H.264 video of {width}x{height} is not possible, because both must be even: '
                'crop the image, or record it as jpeg.'
            )
        self._size = (width, height)
        self._context = av.CodecContext.create(codec, 'w')
        self._context.width = width
        self._context.height = height
        self._context.pix_fmt = 'yuv420p'
        self._context.framerate = Fraction(fps).limit_denominator(1001)
        self._context.time_base = 1 / self._context.framerate
        self._context.gop_size = max(round(fps * keyframe_interval_s), 1)
        self._context.thread_count = 1
        self._context.options = ENCODER_OPTIONS[codec]
        self._count = 0

    def encode(self, image: VideoFrame, keyframe: bool = False) -> bytes:
        """The access unit of a frame. Raises GrootRosError if its size is not that of the camera."""
        if image.size != self._size:
            sent = f'{image.size[0]}x{image.size[1]}'
            expected = f'{self._size[0]}x{self._size[1]}'
            raise GrootRosError(
                f'A frame of {sent} came where the embodiment says {expected}: '
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
    """The first hardware encoder that can encode a few test frames, else libx264."""
    for codec in _HARDWARE_ENCODERS:
        try:
            encoder = H264Encoder(640, 480, 30.0, codec=codec)
            for grey in range(5):
                encoder.encode(VideoFrame(0, np.full((480, 640, 3), 50 * grey, np.uint8), 'rgb24'))
        except (av.FFmpegError, GrootRosError, ValueError):
            continue
        return codec
    return SOFTWARE_ENCODER


class H264Decoder:
    """Decodes access units that each hold one frame."""

    def __init__(self) -> None:
        self._context = av.CodecContext.create('h264', 'r')
        # Frame threads would delay the output.
        self._context.thread_type = 'SLICE'
        self._context.options = limited()
        self._context.flags |= Flags.low_delay

    def decode(self, stamp_ns: int, access_unit: bytes) -> VideoFrame:
        """The frame of an access unit, as RGB. Raises GrootRosError if it cannot be decoded."""
        try:
            frames = self._context.decode(av.Packet(access_unit))
        except av.FFmpegError as error:
            raise GrootRosError(
                f'A video frame cannot be decoded ({error}): the recording is damaged.'
            ) from error
        if len(frames) != 1:
            raise GrootRosError(
                f'A video packet holds {len(frames)} frames instead of one: the recording is damaged.'
            )
        return VideoFrame(stamp_ns, frames[0].to_ndarray(format='rgb24'), 'rgb24')


def is_keyframe(access_unit: bytes) -> bool:
    """Whether a decoder can begin with this Annex B access unit, because it holds an IDR slice."""
    at = access_unit.find(_START_CODE)
    while at >= 0 and at + 3 < len(access_unit):
        nal_type = access_unit[at + 3] & _NAL_TYPE_BITS
        if nal_type in (_NAL_IDR_SLICE, _NAL_SLICE):
            return nal_type == _NAL_IDR_SLICE
        at = access_unit.find(_START_CODE, at + 3)
    return False
