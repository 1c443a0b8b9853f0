# SPDX-License-Identifier: Apache-2.0
"""Images of ROS messages as arrays, without copying where the layout allows it."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.message_fields import header_stamp_ns

# Encoding of a ROS image: pixel format of FFmpeg, bytes of a pixel.
_COLOURS = {
    'rgb8': ('rgb24', 3),
    'bgr8': ('bgr24', 3),
    'rgba8': ('rgba', 4),
    'bgra8': ('bgra', 4),
    'mono8': ('gray', 1),
    '8UC3': ('bgr24', 3),
    '8UC1': ('gray', 1),
    'yuv422': ('uyvy422', 2),
    'uyvy': ('uyvy422', 2),
    'yuv422_yuy2': ('yuyv422', 2),
    'yuyv': ('yuyv422', 2),
}
_DEPTHS = {'16UC1': np.uint16, 'mono16': np.uint16, '32FC1': np.float32}
_TO_BGR = {
    'rgb24': cv2.COLOR_RGB2BGR,
    'rgba': cv2.COLOR_RGBA2BGR,
    'bgra': cv2.COLOR_BGRA2BGR,
    'uyvy422': cv2.COLOR_YUV2BGR_UYVY,
    'yuyv422': cv2.COLOR_YUV2BGR_YUY2,
    'gray': cv2.COLOR_GRAY2BGR,
}
_TO_I420 = {
    'rgb24': cv2.COLOR_RGB2YUV_I420,
    'bgr24': cv2.COLOR_BGR2YUV_I420,
    'rgba': cv2.COLOR_RGBA2YUV_I420,
    'bgra': cv2.COLOR_BGRA2YUV_I420,
}
_THUMBNAIL_STEP = 16
# 8K has 33 million.
_MAX_PIXELS = 64_000_000
_PNG = b'\x89PNG\r\n\x1a\n'
_JPEG = b'\xff\xd8'
# Markers of a JPEG: those that hold its size, and those that have no length.
_JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = {0x01, *range(0xD0, 0xD9)}
# Images of cameras are small: threads cost more than they save, and take cores from the robot's processes.
cv2.setNumThreads(1)


@dataclass
class VideoFrame:
    """One image: exposure time in ns, pixels (height, width, channels) uint8, FFmpeg's name for them."""

    stamp_ns: int
    pixels: np.ndarray
    format: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def thumbnail(self) -> np.ndarray:
        """Every 16th pixel of every 16th line, to compare frames and to find black ones."""
        return self.pixels[::_THUMBNAIL_STEP, ::_THUMBNAIL_STEP].copy()

    def bgr(self) -> np.ndarray:
        """Pixels as blue, green, red (height, width, 3)."""
        return self.pixels if self.format == 'bgr24' else cv2.cvtColor(self.pixels, _TO_BGR[self.format])

    def rgb(self) -> np.ndarray:
        """Pixels as red, green, blue (height, width, 3)."""
        return self.pixels if self.format == 'rgb24' else cv2.cvtColor(self.bgr(), cv2.COLOR_BGR2RGB)

    def letterboxed(self, width: int, height: int) -> 'VideoFrame':
        """The whole image in another size, with black bars if the aspect ratios differ."""
        if self.size == (width, height):
            return self
        scale = min(width / self.size[0], height / self.size[1])
        inner_width = max(round(self.size[0] * scale), 1)
        inner_height = max(round(self.size[1] * scale), 1)
        left = (width - inner_width) // 2
        top = (height - inner_height) // 2
        inner = cv2.resize(self.bgr(), (inner_width, inner_height), interpolation=cv2.INTER_AREA)
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[top : top + inner_height, left : left + inner_width] = inner
        return VideoFrame(self.stamp_ns, canvas, 'bgr24')

    def i420(self) -> np.ndarray:
        """Planar YUV 4:2:0 (height * 3 / 2, width), BT.601 limited range.

        OpenCV needs a sixth of the time of FFmpeg's scaler.
        """
        if self.format in _TO_I420:
            return cv2.cvtColor(self.pixels, _TO_I420[self.format])
        return cv2.cvtColor(self.bgr(), cv2.COLOR_BGR2YUV_I420)

    def jpeg(self, quality: int) -> np.ndarray:
        """The image as JPEG, bytes (n,) uint8; `quality` is 0 to 100."""
        return cv2.imencode('.jpg', self.bgr(), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]


def decode_frame(message: Any) -> VideoFrame:
    """The frame of a sensor_msgs/Image or CompressedImage.

    Raises GrootRosError if it is not 8-bit colour or grey.
    """
    stamp_ns = header_stamp_ns(message)
    if not hasattr(message, 'encoding'):
        return VideoFrame(stamp_ns, _decompressed(message), 'bgr24')
    if message.encoding not in _COLOURS:
        raise GrootRosError(
            f'Images of encoding {message.encoding!r} cannot be recorded as video: '
            f'set the camera to one of {", ".join(_COLOURS)}.'
        )
    pixel_format, channels = _COLOURS[message.encoding]
    return VideoFrame(stamp_ns, _pixels(message, channels, np.uint8), pixel_format)


def is_depth(encoding: str) -> bool:
    """Whether an image encoding is that of a depth map."""
    return encoding in _DEPTHS


def depth_png(message: Any) -> np.ndarray:
    """A depth image as 16-bit PNG, bytes (n,) uint8; distances in m (32FC1) become mm, unknown ones 0."""
    depth = _pixels(message, 1, _DEPTHS[message.encoding])[:, :, 0]
    if depth.dtype == np.float32:
        depth_mm = np.nan_to_num(depth * 1e3, nan=0.0, posinf=0.0, neginf=0.0)
        depth = np.clip(depth_mm, 0, 65535).astype(np.uint16)
    return cv2.imencode('.png', depth, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]


def _pixels(message: Any, channels: int, dtype: type) -> np.ndarray:
    """Pixels (height, width, channels) of an image, without the padding at the end of its lines."""
    itemsize = np.dtype(dtype).itemsize
    line_bytes = message.width * channels * itemsize
    data = np.frombuffer(message.data, np.uint8)
    if message.step < line_bytes or len(data) < message.height * message.step:
        raise GrootRosError(
            f'An image of {message.width}x{message.height} came with {len(data)} bytes, which is too few: '
            'check its camera driver.'
        )
    lines = data[: message.height * message.step].reshape(message.height, message.step)[:, :line_bytes]
    if itemsize > 1:
        lines = np.ascontiguousarray(lines).view(dtype)
    return lines.reshape(message.height, message.width, channels)


def _decompressed(message: Any) -> np.ndarray:
    data = bytes(message.data)
    width, height = _declared_size(data)
    if width * height > _MAX_PIXELS:
        raise GrootRosError(
            f'A compressed image says that it has {width}x{height} pixels, and {_MAX_PIXELS} can be decoded: '
            'it is damaged, or its camera is set to a size that nobody records.'
        )
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if width and height else None
    if pixels is None:
        raise GrootRosError(
            f'A compressed image of format {message.format!r} cannot be decoded as JPEG or PNG: '
            'check its camera driver, and whether its topic carries images.'
        )
    return pixels


def _declared_size(data: bytes) -> tuple[int, int]:
    """Width and height in the header of a PNG or JPEG, before memory is taken; (0, 0) if there are none."""
    if data.startswith(_PNG):
        return int.from_bytes(data[16:20], 'big'), int.from_bytes(data[20:24], 'big')
    if not data.startswith(_JPEG):
        return 0, 0
    place = len(_JPEG)
    while place + 9 <= len(data) and data[place] == 0xFF:
        kind = data[place + 1]
        length = int.from_bytes(data[place + 2 : place + 4], 'big')
        if kind in _JPEG_SIZES:
            height = int.from_bytes(data[place + 5 : place + 7], 'big')
            return int.from_bytes(data[place + 7 : place + 9], 'big'), height
        if kind == 0xFF:  # padding
            place += 1
        elif kind in _JPEG_BARE:
            place += 2
        else:
            place += 2 + length
    return 0, 0
