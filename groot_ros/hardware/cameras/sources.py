# SPDX-License-Identifier: Apache-2.0
"""The table of camera sources. A new one is a class of the interface `Camera` of base.py and a line here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CameraSource:
    """The class of a source as 'module:Class', and what it is, for the descriptions of parameters."""

    place: str
    description: str


# A class is imported when its camera is opened, since each needs libraries that the others do without.
CAMERA_SOURCES = {
    'sdk': CameraSource('groot_ros.hardware.cameras.zed:ZedCamera', "a ZED with Stereolabs' SDK"),
    'uvc': CameraSource('groot_ros.hardware.cameras.uvc:UvcCamera', 'a ZED without its SDK'),
    'file': CameraSource('groot_ros.hardware.cameras.video_file:VideoFileCamera', 'a video file'),
    'sim': CameraSource('groot_ros.sim.camera_client:SimCamera', 'a camera of sim_cell'),
}


def describe_sources() -> str:
    """One line that says what each source is."""
    return '; '.join(f'{name!r}: {source.description}' for name, source in CAMERA_SOURCES.items())
