# SPDX-License-Identifier: Apache-2.0
"""What camera sources share: settings, frames, the modes of a ZED, the check for a frozen image."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.hardware.cameras.sources import describe_sources
from groot_ros.settings import setting

EYES = {'left': ('left',), 'right': ('right',), 'both': ('left', 'right')}
MODES = {
    'HD2K': (2208, 1242, (15,)),
    'HD1080': (1920, 1080, (15, 30)),
    'HD720': (1280, 720, (15, 30, 60)),
    'VGA': (672, 376, (15, 30, 60, 100)),
}
"""Width and height in pixels of one eye of a ZED, and the frame rates in Hz that it offers there."""
_SIDE_BY_SIDE_ASPECT = 2.5


@dataclass
class Intrinsics:
    """Pinhole intrinsics in pixels of a rectified image."""

    fx: float
    fy: float
    cx: float
    cy: float


@dataclass
class Frame:
    """One exposure at `stamp_ns` of ROS time.

    `images` has RGB (height, width, 3) uint8 by eye; `depth` is (height, width) float32 in m, if asked for.
    """

    stamp_ns: int
    images: dict[str, np.ndarray]
    depth: np.ndarray | None = None


@dataclass
class CameraSettings:
    """What to open: the parameters of camera_driver. Each source uses the fields that concern it."""

    source: str = setting('sdk', describe_sources())
    serial_number: int = setting(0, 'serial number of the ZED, 0 for the only one, for source sdk')
    device: str = setting('/dev/video0', 'V4L2 device, for source uvc')
    calibration_file: str = setting(
        '', 'SN<serial>.conf of the ZED, to rectify the images of source uvc; empty leaves them raw'
    )
    file: str = setting('', 'path of a video, for source file')
    host: str = setting('127.0.0.1', 'address of sim_cell, for source sim')
    sim_camera: str = setting('zed', 'which camera of sim_cell, zed or wrist, for source sim')
    sim_width: int = setting(640, 'width to which its frames are resized, pixels, for source sim', 16, 8192)
    sim_height: int = setting(480, 'height to which they are resized, pixels, for source sim', 16, 8192)
    resolution: str = setting('HD720', 'resolution of one eye: HD2K, HD1080, HD720 or VGA')
    fps: float = setting(30.0, 'frame rate, Hz: 15, 30, 60 or 100, as the resolution offers', 1.0, 100.0)
    eye: str = setting('left', "'left', 'right' or 'both'")
    depth: bool = setting(False, 'publish NAME/depth too (32FC1, m), for source sdk; needs the GPU')
    frozen_s: float = setting(
        2.0, 'reopen the camera if its image has not changed for this time, s; 0 never does', 0.0, 60.0
    )


class Camera(Protocol):
    """The interface of a source. `intrinsics` has the eyes whose intrinsics are known."""

    intrinsics: dict[str, Intrinsics]

    def frames(self) -> Iterator[Frame]:
        """Yields frames as they arrive. Raises GrootRosError when the camera is lost."""

    def close(self) -> None:
        """Releases the device. `frames` ends."""


@dataclass
class FrozenImageMonitor:
    """Notices a camera that repeats one image: sensor noise makes two real images differ."""

    limit_s: float
    _checksum: int = -1
    _since_ns: int = field(default=0)

    def check(self, stamp_ns: int, image: np.ndarray) -> None:
        """Raises GrootRosError if the image has been the same for longer than the limit; 0 turns this off."""
        checksum = zlib.crc32(np.ascontiguousarray(image[::8, ::8]))
        if checksum != self._checksum:
            self._checksum = checksum
            self._since_ns = stamp_ns
        elif self.limit_s and stamp_ns - self._since_ns > self.limit_s * 1e9:
            raise GrootRosError(f'The camera is frozen: it has sent the same image for {self.limit_s:g} s.')


def check_mode(resolution: str, fps: float) -> tuple[int, int]:
    """Width and height in pixels of one eye. Raises GrootRosError for a mode that no ZED has."""
    if resolution not in MODES:
        known = ', '.join(MODES)
        raise GrootRosError(f'A ZED has no resolution {resolution!r}: choose one of {known}.')
    width, height, rates = MODES[resolution]
    if fps not in rates:
        known = ' or '.join(map(str, rates))
        raise GrootRosError(
            f'A ZED has no {resolution} at {fps:g} frames per second: set fps to {known}, '
            'or change resolution.'
        )
    return width, height


def split_eyes(image: np.ndarray, eyes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The wanted eyes of an image (height, 2 * width, 3) that has both side by side.

    An image narrower than 2.5 times its height has one eye only, which is returned for each of `eyes`.
    """
    height, width, _ = image.shape
    if width < _SIDE_BY_SIDE_ASPECT * height:
        return dict.fromkeys(eyes, image)
    halves = {'left': image[:, : width // 2], 'right': image[:, width // 2 :]}
    return {eye: np.ascontiguousarray(halves[eye]) for eye in eyes}
