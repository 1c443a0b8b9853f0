# SPDX-License-Identifier: Apache-2.0
"""Camera sources and the table of them. Imports no ROS.

To add a source, write a class with the interface `Camera` of base.py and add one line to CAMERA_SOURCES.
"""

import importlib

from groot_ros.errors import GrootRosError
from groot_ros.hardware.cameras.base import EYES, Camera, CameraSettings

# Each source is imported when it is opened, since it needs libraries that the others do without.
CAMERA_SOURCES = {
    'sdk': 'groot_ros.hardware.cameras.zed:ZedCamera',
    'uvc': 'groot_ros.hardware.cameras.uvc:UvcCamera',
    'file': 'groot_ros.hardware.cameras.video_file:VideoFileCamera',
    'sim': 'groot_ros.sim.camera_client:SimCamera',
}


def open_camera(settings: CameraSettings) -> Camera:
    """Opens the camera of these settings. Raises GrootRosError, with what to do, if it cannot be opened."""
    if settings.eye not in EYES:
        raise GrootRosError(f'There is no eye {settings.eye!r}: set eye to {_any_of(EYES)}.')
    if settings.source not in CAMERA_SOURCES:
        raise GrootRosError(
            f'There is no camera source {settings.source!r}: set source to {_any_of(CAMERA_SOURCES)}.'
        )
    module, name = CAMERA_SOURCES[settings.source].split(':')
    make_camera = getattr(importlib.import_module(module), name)
    return make_camera(settings)


def _any_of(names: dict) -> str:
    *others, last = (repr(name) for name in names)
    return f'{", ".join(others)} or {last}'
