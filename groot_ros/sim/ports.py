# SPDX-License-Identifier: Apache-2.0
"""Ports of the simulated cell that no real robot has, and the header of a camera frame.

A frame is FRAME_HEADER (magic GRCF, width and height as uint32, stamp in ns as uint64), then RGB bytes.
"""

import struct

HOOK_PORT = 40000
CAMERA_PORT = 40001
FRAME_HEADER = struct.Struct('<4sIIQ')
FRAME_MAGIC = b'GRCF'
CAMERA_FOVY_DEG = 50.0
