"""Cameras behind one interface: `frames()` yields stamped RGB images. Sources here: the simulated cell, and the ZED SDK."""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.sim.wire import CAMERA_PORT, FRAME_HEADER, FRAME_MAGIC

_SILENT_S = 2.0


@dataclass
class Frame:
    """One image: RGB (height, width, 3) uint8, exposed at `stamp_ns` of ROS time."""

    stamp_ns: int
    image: np.ndarray


class Camera(Protocol):
    """A source of frames."""

    def frames(self) -> Iterator[Frame]:
        """Frames as they arrive; raises GrootRosError when the camera is lost."""

    def close(self) -> None:
        """Releases the device."""


class SimCamera:
    """The camera of sim_cell, by TCP."""

    def __init__(self, host: str, port: int = CAMERA_PORT) -> None:
        self._where = f'{host}:{port}'
        try:
            self._socket = socket.create_connection((host, port), timeout=_SILENT_S)
        except OSError as error:
            raise GrootRosError(f'No simulated camera answers on {self._where} ({error}): start the cell with `groot-ros up sim`.') from error

    def frames(self) -> Iterator[Frame]:
        """Frames until the cell ends."""
        while True:
            magic, width, height, stamp_ns = FRAME_HEADER.unpack(self._receive(FRAME_HEADER.size))
            if magic != FRAME_MAGIC:
                raise GrootRosError(f'{self._where} does not speak the camera protocol of sim_cell.')
            image = np.frombuffer(self._receive(width * height * 3), np.uint8).reshape(height, width, 3)
            yield Frame(stamp_ns, image)

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()

    def _receive(self, count: int) -> bytearray:
        data = bytearray(count)
        view, filled = memoryview(data), 0
        while filled < count:
            try:
                received = self._socket.recv_into(view[filled:])
            except OSError as error:
                raise GrootRosError(f'The simulated camera on {self._where} fell silent ({error}).') from error
            if received == 0:
                raise GrootRosError(f'The simulated camera on {self._where} closed the connection.')
            filled += received
        return data


class ZedCamera:
    """A ZED through Stereolabs' SDK: the left or right rectified image, stamped by TIME_REFERENCE.IMAGE."""

    def __init__(self, serial_number: int, resolution: str, fps: float, eye: str) -> None:
        self._sl = sl = _zed_sdk()
        parameters = sl.InitParameters(
            camera_resolution=getattr(sl.RESOLUTION, resolution), camera_fps=round(fps), depth_mode=sl.DEPTH_MODE.NONE, sdk_verbose=0
        )
        if serial_number:
            parameters.set_from_serial_number(serial_number)
        self._camera, self._mat = sl.Camera(), sl.Mat()
        self._view = sl.VIEW.LEFT if eye == 'left' else sl.VIEW.RIGHT
        self._runtime = sl.RuntimeParameters(enable_depth=False)
        status = self._camera.open(parameters)
        if status != sl.ERROR_CODE.SUCCESS:
            raise GrootRosError(f'The ZED camera does not open ({status}): check the USB 3 cable and that no other program uses it.')

    def frames(self) -> Iterator[Frame]:
        """Frames until grabbing fails for 2 s."""
        last_s = time.monotonic()
        while time.monotonic() - last_s < _SILENT_S:
            if self._camera.grab(self._runtime) != self._sl.ERROR_CODE.SUCCESS:
                continue
            self._camera.retrieve_image(self._mat, self._view)
            last_s = time.monotonic()
            bgra = self._mat.get_data()
            stamp_ns = self._camera.get_timestamp(self._sl.TIME_REFERENCE.IMAGE).get_nanoseconds()
            yield Frame(stamp_ns, np.ascontiguousarray(bgra[:, :, 2::-1]))
        raise GrootRosError('The ZED camera sent no frame for 2 s: check its cable.')

    def close(self) -> None:
        """Releases the camera."""
        self._camera.close()


def open_camera(source: str, *, host: str, serial_number: int, resolution: str, fps: float, eye: str) -> Camera:
    """The camera of a source, `sim` or `sdk`."""
    if source == 'sim':
        return SimCamera(host)
    if source == 'sdk':
        return ZedCamera(serial_number, resolution, fps, eye)
    raise GrootRosError(f"The camera source {source!r} is not known: use 'sdk' for a ZED or 'sim' for sim_cell.")


def _zed_sdk():
    try:
        import pyzed.sl as sl
    except ImportError as error:
        raise GrootRosError(
            'The ZED SDK is not installed for this Python (import pyzed.sl fails): install the SDK and run its get_python_api.py. '
            'The package `pyzed` on PyPI is something else.'
        ) from error
    return sl
