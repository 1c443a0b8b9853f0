# SPDX-License-Identifier: Apache-2.0
"""The cell's own ports, and how its camera sends a frame: GRCF, width and height (uint32), stamp in ns (uint64), RGB bytes."""

import struct

HOOK_PORT = 40000
CAMERA_PORT = 40001
FRAME_HEADER = struct.Struct('<4sIIQ')
FRAME_MAGIC = b'GRCF'
CAMERA_FOVY_DEG = 50.0
