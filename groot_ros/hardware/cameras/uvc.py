# SPDX-License-Identifier: Apache-2.0
"""A ZED without its SDK: a V4L2 device that sends both eyes side by side. Read through PyAV."""

from collections.abc import Iterator

import av

from groot_ros.errors import GrootRosError
from groot_ros.hardware.cameras.base import (
    EYES,
    CameraSettings,
    Frame,
    FrozenImageMonitor,
    Intrinsics,
    check_mode,
    split_eyes,
)
from groot_ros.hardware.cameras.zed_rectification import StereoRectifier

_OPEN_S = 5.0


class UvcCamera:
    """Reads YUYV from the kernel's driver, and rectifies the images if there is a calibration file.

    Stamps are the kernel's, of the monotonic clock; FFmpeg converts them to the wall clock ('mono2abs').
    """

    def __init__(self, settings: CameraSettings) -> None:
        self._device = settings.device
        self._eyes = EYES[settings.eye]
        self._container = _open(settings)
        self._monitor = FrozenImageMonitor(settings.frozen_s)
        self._rectifier: StereoRectifier | None = None
        self.intrinsics: dict[str, Intrinsics] = {}
        if settings.calibration_file:
            self._rectifier = StereoRectifier(settings.calibration_file, settings.resolution)
            self.intrinsics = {eye: self._rectifier.intrinsics(eye) for eye in self._eyes}

    def frames(self) -> Iterator[Frame]:
        """Yields frames until the device is lost, which raises GrootRosError."""
        try:
            for frame in self._container.decode(video=0):
                yield self._convert(frame)
        except (av.FFmpegError, OSError, TypeError, ValueError) as error:
            raise GrootRosError(f'The camera {self._device} was lost ({error}): check its cable.') from error
        raise GrootRosError(f'The camera {self._device} ended its stream: check its cable.')

    def close(self) -> None:
        """Closes the video device, so that another process can open it."""
        self._container.close()

    def _convert(self, frame: av.VideoFrame) -> Frame:
        if frame.pts is None or frame.time_base is None:
            raise ValueError('a frame has no stamp')
        images = split_eyes(frame.to_ndarray(format='rgb24'), self._eyes)
        stamp_us = round(float(frame.pts * frame.time_base) * 1e6)
        stamp_ns = stamp_us * 1000
        self._monitor.check(stamp_ns, images[self._eyes[0]])
        if self._rectifier is not None:
            images = {eye: self._rectifier.apply(eye, image) for eye, image in images.items()}
        return Frame(stamp_ns, images)


def _open(settings: CameraSettings) -> av.container.InputContainer:
    width, height = check_mode(settings.resolution, settings.fps)
    size = f'{2 * width}x{height}'
    options = {
        'video_size': size,
        'framerate': f'{settings.fps:g}',
        'input_format': 'yuyv422',
        'timestamps': 'mono2abs',
    }
    try:
        return av.open(settings.device, format='video4linux2,v4l2', options=options, timeout=_OPEN_S)
    except (av.FFmpegError, OSError) as error:
        raise GrootRosError(
            f'The camera {settings.device} cannot be opened at {size}, {settings.fps:g} Hz ({error}): '
            '`v4l2-ctl --list-devices` shows the cameras, and no other program may use it.'
        ) from error
