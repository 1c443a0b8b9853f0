# SPDX-License-Identifier: Apache-2.0
"""Cameras behind one interface: `frames()` yields stamped RGB images of one eye or two. The sources are the camera_*.py beside this."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from groot_ros.errors import GrootRosError

EYES = {'left': ('left',), 'right': ('right',), 'both': ('left', 'right')}
MODES = {
    'HD2K': (2208, 1242, (15,)),
    'HD1080': (1920, 1080, (15, 30)),
    'HD720': (1280, 720, (15, 30, 60)),
    'VGA': (672, 376, (15, 30, 60, 100)),
}
"""Width and height of one eye, and the frame rates that a ZED offers there."""


@dataclass
class Intrinsics:
    """A pinhole camera in pixels, of a rectified image."""

    fx: float
    fy: float
    cx: float
    cy: float


@dataclass
class Frame:
    """One exposure at `stamp_ns` of ROS time: RGB (height, width, 3) uint8 of each eye; depth (height, width) float32 in m if asked for."""

    stamp_ns: int
    images: dict[str, np.ndarray]
    depth: np.ndarray | None = None


@dataclass
class CameraSettings:
    """What to open. `source` is sdk, uvc, sim or file; each uses the fields that concern it."""

    source: str = 'sdk'
    serial_number: int = 0
    device: str = '/dev/video0'
    file: str = ''
    calibration_file: str = ''
    host: str = '127.0.0.1'
    resolution: str = 'HD720'
    fps: float = 30.0
    eye: str = 'left'
    depth: bool = False
    frozen_s: float = 2.0


class Camera(Protocol):
    """A source of frames; `intrinsics` by eye where they are known."""

    intrinsics: dict[str, Intrinsics]

    def frames(self) -> Iterator[Frame]:
        """Frames as they arrive; raises GrootRosError when the camera is lost."""

    def close(self) -> None:
        """Releases the device."""


@dataclass
class FrozenWatch:
    """Notices a camera that repeats one image: sensor noise makes two real frames differ."""

    limit_s: float
    _print: int = -1
    _since_ns: int = field(default=0)

    def check(self, stamp_ns: int, image: np.ndarray) -> None:
        """Raises GrootRosError where the image has been the same for longer than the limit; 0 turns the watch off."""
        fingerprint = zlib.crc32(np.ascontiguousarray(image[::8, ::8]))
        if fingerprint != self._print:
            self._print, self._since_ns = fingerprint, stamp_ns
        elif self.limit_s and stamp_ns - self._since_ns > self.limit_s * 1e9:
            raise GrootRosError(
                f'The camera has sent the same image for {self.limit_s:g} s: it is frozen; opening it anew.'
            )


def check_mode(resolution: str, fps: float) -> tuple[int, int]:
    """Width and height of one eye. Raises GrootRosError, with what there is, for a mode that no ZED has."""
    if resolution not in MODES:
        raise GrootRosError(f'The resolution {resolution!r} is not one of a ZED: use {", ".join(MODES)}.')
    width, height, rates = MODES[resolution]
    if fps not in rates:
        raise GrootRosError(
            f'A ZED has no {resolution} at {fps:g} frames per second: use {" or ".join(map(str, rates))}, or another resolution.'
        )
    return width, height


def open_camera(settings: CameraSettings) -> Camera:
    """The camera of the settings. Raises GrootRosError, with the mending, where it cannot be opened."""
    if settings.eye not in EYES:
        raise GrootRosError(f"The eye {settings.eye!r} is not known: use 'left', 'right' or 'both'.")
    # Each source needs libraries that the others do without.
    if settings.source == 'sim':
        from groot_ros.sim.camera_client import SimCamera

        return SimCamera(settings)
    if settings.source == 'sdk':
        from groot_ros.hardware.cameras.zed import ZedCamera

        return ZedCamera(settings)
    if settings.source in ('uvc', 'file'):
        from groot_ros.hardware.cameras.opencv import FileCamera, UvcCamera

        return UvcCamera(settings) if settings.source == 'uvc' else FileCamera(settings)
    raise GrootRosError(
        f"The camera source {settings.source!r} is not known: use 'sdk', 'uvc', 'sim' or 'file'."
    )
