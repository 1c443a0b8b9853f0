# SPDX-License-Identifier: Apache-2.0
"""A video file played in real time, for tests and for trying things without a camera. Read through PyAV."""

import time
from collections.abc import Iterator

import av
import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.hardware.cameras.base import EYES, CameraSettings, Frame, Intrinsics, split_eyes

_DEFAULT_FPS = 30


class VideoFileCamera:
    """Plays the file in a loop at its own rate."""

    def __init__(self, settings: CameraSettings) -> None:
        self._path = settings.file
        self._eyes = EYES[settings.eye]
        self._closed = False
        self.intrinsics: dict[str, Intrinsics] = {}
        self._open().close()

    def frames(self) -> Iterator[Frame]:
        """Yields frames whose stamps are multiples of the file's frame period after the first one."""
        began_ns = time.time_ns()
        count = 0
        while not self._closed:
            played = count
            for period_ns, image in self._images():
                stamp_ns = began_ns + round(count * period_ns)
                time.sleep(max((stamp_ns - time.time_ns()) / 1e9, 0.0))
                yield Frame(stamp_ns, split_eyes(image, self._eyes))
                count += 1
            if count == played:
                raise GrootRosError(f'{self._path} has no frame: set the parameter file to another video.')

    def close(self) -> None:
        """Ends the loop of `frames`."""
        self._closed = True

    def _images(self) -> Iterator[tuple[float, np.ndarray]]:
        """The images of the file once, each with the frame period in ns."""
        try:
            with self._open() as container:
                period_ns = 1e9 / float(container.streams.video[0].average_rate or _DEFAULT_FPS)
                for frame in container.decode(video=0):
                    yield period_ns, frame.to_ndarray(format='rgb24')
        except (av.FFmpegError, ValueError) as error:
            raise GrootRosError(f'The video {self._path!r} is damaged ({error}).') from error

    def _open(self) -> av.container.InputContainer:
        try:
            container = av.open(self._path)
        except (av.FFmpegError, OSError) as error:
            raise GrootRosError(
                f'The video {self._path!r} cannot be read ({error}): set the parameter file to a video.'
            ) from error
        if not container.streams.video:
            raise GrootRosError(f'{self._path} has no video stream: set the parameter file to another video.')
        return container
