# SPDX-License-Identifier: Apache-2.0
"""A camera source that receives the frames of sim_cell over TCP."""

import socket
import time
from collections.abc import Iterator
from math import radians, tan

import numpy as np

from groot_ros.errors import GrootRosError, choose
from groot_ros.hardware.cameras.base import CameraSettings, Frame, Intrinsics
from groot_ros.sim.ports import CAMERAS, FRAME_HEADER, FRAME_MAGIC
from groot_ros.video.frame import VideoFrame

_SILENT_S = 2.0
_MAX_PIXELS = 8192


class SimCamera:
    """One eye of a simulated camera, in the size of the settings; another ratio gets black bars.

    Raises GrootRosError for a camera that the cell does not have, and where none answers.
    """

    def __init__(self, settings: CameraSettings, port: int = 0) -> None:
        choose('simulated camera', settings.sim_camera, CAMERAS)
        self._scene_camera = CAMERAS[settings.sim_camera]
        port = port or self._scene_camera.port
        self._eye = 'right' if settings.eye == 'right' else 'left'
        self._size = (settings.sim_width, settings.sim_height)
        self._where = f'{settings.host}:{port}'
        self.intrinsics: dict[str, Intrinsics] = {}
        try:
            self._socket = socket.create_connection((settings.host, port), timeout=_SILENT_S)
        except OSError as error:
            raise GrootRosError(
                f'No simulated camera answers on {self._where} ({error}): '
                'start the cell with `groot-ros up sim`.'
            ) from error

    def frames(self) -> Iterator[Frame]:
        """Yields frames until the cell ends; then raises GrootRosError."""
        while True:
            magic, width, height, stamp_ns = FRAME_HEADER.unpack(self._receive(FRAME_HEADER.size))
            if magic != FRAME_MAGIC or not (0 < width <= _MAX_PIXELS and 0 < height <= _MAX_PIXELS):
                raise GrootRosError(
                    f'{self._where} does not send frames of sim_cell: check host and port of the camera.'
                )
            image = np.frombuffer(self._receive(width * height * 3), np.uint8).reshape(height, width, 3)
            resized = VideoFrame(stamp_ns, image, 'rgb24').letterboxed(*self._size)
            self.intrinsics[self._eye] = self._intrinsics(width, height)
            yield Frame(stamp_ns, {self._eye: resized.rgb()})

    def close(self) -> None:
        """Closes the connection to the cell."""
        self._socket.close()

    def _intrinsics(self, width: int, height: int) -> Intrinsics:
        """Those of the resized image, from the size in which it came."""
        focal = height / 2 / tan(radians(self._scene_camera.fovy_deg) / 2)
        focal *= min(self._size[0] / width, self._size[1] / height)
        return Intrinsics(focal, focal, self._size[0] / 2, self._size[1] / 2)

    def _receive(self, count: int) -> bytearray:
        data = bytearray(count)
        view = memoryview(data)
        filled = 0
        deadline_s = time.monotonic() + _SILENT_S
        while filled < count:
            try:
                self._socket.settimeout(max(deadline_s - time.monotonic(), 1e-3))
                received = self._socket.recv_into(view[filled:])
            except OSError as error:
                raise GrootRosError(
                    f'The simulated camera on {self._where} sends no frames ({error}): '
                    'see the output of sim_cell.'
                ) from error
            if received == 0:
                raise GrootRosError(
                    f'The simulated camera on {self._where} closed the connection: sim_cell has ended.'
                )
            filled += received
        return data
