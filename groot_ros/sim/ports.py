# SPDX-License-Identifier: Apache-2.0
"""Ports of the simulated cell that no real robot has, and the header of a camera frame.

A frame is FRAME_HEADER (magic GRCF, width and height as uint32, stamp in ns as uint64), then RGB bytes.
"""

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class SceneCamera:
    """A camera of the scene: the port that serves its frames, and its vertical field of view in degrees."""

    port: int
    fovy_deg: float


HOOK_PORT = 40000
# By the first part of their topics, such as zed/image.
CAMERAS = {'zed': SceneCamera(40001, 50.0), 'wrist': SceneCamera(40002, 75.0)}
FRAME_HEADER = struct.Struct('<4sIIQ')
FRAME_MAGIC = b'GRCF'
