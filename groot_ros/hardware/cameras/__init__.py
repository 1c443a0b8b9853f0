# SPDX-License-Identifier: Apache-2.0
"""Camera sources: base.py has what they share, sources.py the table of them. Imports no ROS."""

import importlib

from groot_ros.errors import choose
from groot_ros.hardware.cameras.base import EYES, Camera, CameraSettings
from groot_ros.hardware.cameras.sources import CAMERA_SOURCES


def open_camera(settings: CameraSettings) -> Camera:
    """Opens the camera of these settings. Raises GrootRosError, with what to do, if it cannot be opened."""
    choose('eye', settings.eye, EYES)
    source = CAMERA_SOURCES[choose('camera source', settings.source, CAMERA_SOURCES)]
    module, name = source.place.split(':')
    make_camera = getattr(importlib.import_module(module), name)
    return make_camera(settings)
