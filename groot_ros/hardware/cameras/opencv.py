# SPDX-License-Identifier: Apache-2.0
"""Cameras that PyAV reads: a ZED without its SDK as a V4L2 device with both eyes side by side, and a video file in real time."""

import time
from collections.abc import Iterator

import av
import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.hardware.cameras.base import EYES, CameraSettings, Frame, FrozenWatch, Intrinsics, check_mode
from groot_ros.hardware.cameras.zed_rectification import StereoRectifier

_SIDE_BY_SIDE_ASPECT = 2.5
_OPEN_S = 5.0


class UvcCamera:
    """YUYV from the kernel's driver. Stamps are the kernel's monotonic ones, which FFmpeg turns into the wall clock's ('mono2abs')."""

    def __init__(self, settings: CameraSettings) -> None:
        width, height = check_mode(settings.resolution, settings.fps)
        options = {
            'video_size': f'{2 * width}x{height}',
            'framerate': f'{settings.fps:g}',
            'input_format': 'yuyv422',
            'timestamps': 'mono2abs',
        }
        try:
            self._container = av.open(
                settings.device, format='video4linux2,v4l2', options=options, timeout=_OPEN_S
            )
        except (av.FFmpegError, OSError) as error:
            raise GrootRosError(
                f'The camera {settings.device} does not open at {2 * width}x{height}, {settings.fps:g} Hz ({error}): '
                '`v4l2-ctl --list-devices` shows the cameras, and no other program may use it.'
            ) from error
        self._rectifier = (
            StereoRectifier(settings.calibration_file, settings.resolution)
            if settings.calibration_file
            else None
        )
        self._eyes, self._device = EYES[settings.eye], settings.device
        self._watch = FrozenWatch(settings.frozen_s)
        self.intrinsics = (
            {eye: self._rectifier.intrinsics(eye) for eye in self._eyes} if self._rectifier else {}
        )

    def frames(self) -> Iterator[Frame]:
        """Frames until the device goes away."""
        try:
            for frame in self._container.decode(video=0):
                images = split_eyes(frame.to_ndarray(format='rgb24'), self._eyes)
                stamp_ns = round(float(frame.pts * frame.time_base) * 1e6) * 1000
                self._watch.check(stamp_ns, images[self._eyes[0]])
                if self._rectifier:
                    images = {eye: self._rectifier.apply(eye, image) for eye, image in images.items()}
                yield Frame(stamp_ns, images)
        except (av.FFmpegError, OSError) as error:
            raise GrootRosError(f'The camera {self._device} was lost ({error}): check its cable.') from error
        raise GrootRosError(f'The camera {self._device} ended its stream: check its cable.')

    def close(self) -> None:
        """Releases the device."""
        self._container.close()


class FileCamera:
    """A video on disk, played over and over at its own rate, for tests and for trying things without a camera."""

    def __init__(self, settings: CameraSettings) -> None:
        self._path, self._eyes = settings.file, EYES[settings.eye]
        self.intrinsics: dict[str, Intrinsics] = {}
        self._closed = False
        self._open().close()

    def frames(self) -> Iterator[Frame]:
        """Frames on the grid of the file's rate."""
        began_ns, count = time.time_ns(), 0
        while not self._closed:
            with self._open() as container:
                period_ns = 1e9 / float(container.streams.video[0].average_rate or 30)
                for frame in container.decode(video=0):
                    stamp_ns = began_ns + round(count * period_ns)
                    time.sleep(max((stamp_ns - time.time_ns()) / 1e9, 0.0))
                    yield Frame(stamp_ns, split_eyes(frame.to_ndarray(format='rgb24'), self._eyes))
                    count += 1

    def close(self) -> None:
        """Ends the frames."""
        self._closed = True

    def _open(self) -> av.container.InputContainer:
        try:
            container = av.open(self._path)
        except (av.FFmpegError, OSError) as error:
            raise GrootRosError(
                f'The video {self._path!r} cannot be read ({error}): give the parameter file the path of a video.'
            ) from error
        if not container.streams.video:
            raise GrootRosError(f'{self._path} holds no video.')
        return container


def split_eyes(image: np.ndarray, eyes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The wanted halves of an image (height, 2 * width, 3) with both eyes side by side; a narrow image is one eye."""
    height, width, _ = image.shape
    if width < _SIDE_BY_SIDE_ASPECT * height:
        return dict.fromkeys(eyes, image)
    halves = {'left': image[:, : width // 2], 'right': image[:, width // 2 :]}
    return {eye: np.ascontiguousarray(halves[eye]) for eye in eyes}
