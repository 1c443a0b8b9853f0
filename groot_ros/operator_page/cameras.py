# SPDX-License-Identifier: Apache-2.0
"""The newest image of each camera, encoded once for all who look, and only while somebody looks."""

import asyncio
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2

from groot_ros.bags.message_types import deserialized
from groot_ros.video.frame import VideoFrame, decode_frame

_MAX_WIDTH = 640
_QUALITY = 70
_FPS = 15.0
# Number of the camera, age of the image when it was sent in s, its stamp in s since 1970, then the JPEG.
_HEADER = struct.Struct('<Bxxxfd')


@dataclass
class _Camera:
    """One camera: who looks, its newest serialized image, and the JPEG that was made of it."""

    topic: str
    viewers: int = 0
    arrivals: int = 0
    cdr: bytes = b''
    msgtype: str = ''
    jpeg: bytes = b''
    jpeg_of: int = 0
    stamp_ns: int = 0


class CameraImages:
    """Images of cameras by topic. `put` is called by the thread of ROS, all else by that of the server."""

    def __init__(self, topics: list[str], clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.topics = topics
        self._clock_ns = clock_ns
        self._cameras = [_Camera(topic) for topic in topics]
        self._lock = threading.Lock()
        self._encoder = ThreadPoolExecutor(1, 'jpeg')
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived: asyncio.Condition | None = None
        self._waking: set[asyncio.Future] = set()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Names the loop whose tasks wait for images."""
        self._loop = loop
        self._arrived = asyncio.Condition()

    def close(self) -> None:
        """Ends the thread that encodes."""
        self._encoder.shutdown(wait=False, cancel_futures=True)

    def watched_topics(self) -> set[str]:
        """The topics that somebody looks at."""
        return {camera.topic for camera in self._cameras if camera.viewers}

    def watch(self, index: int, more: int) -> None:
        """Counts viewers of a camera: `more` is 1 for a new one and -1 for one that leaves."""
        self._cameras[index].viewers += more
        if not self._cameras[index].viewers:
            self._cameras[index].cdr = b''  # an old image must not be the first thing the next viewer sees

    def put(self, topic: str, cdr: bytes, msgtype: str) -> None:
        """Takes a serialized sensor_msgs/Image or CompressedImage."""
        with self._lock:
            camera = self._cameras[self.topics.index(topic)]
            camera.cdr = cdr
            camera.msgtype = msgtype
            camera.arrivals += 1
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._notify)

    async def next_packet(self, index: int, after: int) -> tuple[int, bytes]:
        """The newest image of a camera that is newer than arrival `after`: its number, and bytes to send.

        Raises GrootRosError for an image that cannot be decoded.
        """
        assert self._arrived is not None
        camera = self._cameras[index]
        async with self._arrived:
            await self._arrived.wait_for(lambda: camera.arrivals > after and bool(camera.cdr))
        assert self._loop is not None
        number, jpeg, stamp_ns = await self._loop.run_in_executor(self._encoder, self._encode, camera)
        age_s = (self._clock_ns() - stamp_ns) / 1e9
        return number, _HEADER.pack(index, age_s, stamp_ns / 1e9) + jpeg

    def _encode(self, camera: _Camera) -> tuple[int, bytes, int]:
        with self._lock:
            number = camera.arrivals
            cdr = camera.cdr
            msgtype = camera.msgtype
        if camera.jpeg_of != number and cdr:
            frame = decode_frame(deserialized(cdr, msgtype, camera.topic))
            camera.jpeg = small_jpeg(frame)
            camera.stamp_ns = frame.stamp_ns
            camera.jpeg_of = number
        return camera.jpeg_of, camera.jpeg, camera.stamp_ns

    def _notify(self) -> None:
        task = asyncio.ensure_future(self._wake())
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    async def _wake(self) -> None:
        assert self._arrived is not None
        async with self._arrived:
            self._arrived.notify_all()


def small_jpeg(frame: VideoFrame, max_width: int = _MAX_WIDTH) -> bytes:
    """The image as JPEG, not wider than `max_width` pixels."""
    width, height = frame.size
    if width > max_width:
        size = (max_width, max(round(height * max_width / width), 1))
        smaller = cv2.resize(frame.bgr(), size, interpolation=cv2.INTER_AREA)
        frame = VideoFrame(frame.stamp_ns, smaller, 'bgr24')
    return frame.jpeg(_QUALITY).tobytes()


def frame_period_s() -> float:
    """The least time between two images that one viewer gets, s."""
    return 1.0 / _FPS
