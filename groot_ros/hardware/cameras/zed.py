# SPDX-License-Identifier: Apache-2.0
"""A ZED through Stereolabs' SDK: rectified images, stamped with the SDK's TIME_REFERENCE.IMAGE."""

import time
from collections.abc import Iterator

import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.hardware.cameras.base import (
    EYES,
    CameraSettings,
    Frame,
    FrozenImageMonitor,
    Intrinsics,
    check_mode,
)

_SILENT_S = 2.0


class ZedCamera:
    """Opens the camera without depth unless it is asked for, which keeps the GPU free."""

    def __init__(self, settings: CameraSettings) -> None:
        check_mode(settings.resolution, settings.fps)
        self._settings = settings
        self._eyes = EYES[settings.eye]
        self._sl = _import_sdk()
        self._camera = self._sl.Camera()
        self._mat = self._sl.Mat()
        self._runtime = self._sl.RuntimeParameters(enable_depth=settings.depth)
        self._monitor = FrozenImageMonitor(settings.frozen_s)
        status = self._camera.open(self._init_parameters())
        if status != self._sl.ERROR_CODE.SUCCESS:
            raise GrootRosError(
                f'The ZED camera cannot be opened ({status}): check the USB 3 cable, and that no other '
                'program uses the camera.'
            )
        self.intrinsics = self._check_opened()

    def frames(self) -> Iterator[Frame]:
        """Yields frames. Raises GrootRosError if grabbing fails for 2 s, as when the camera is unplugged."""
        last_s = time.monotonic()
        while time.monotonic() - last_s < _SILENT_S:
            if self._camera.grab(self._runtime) != self._sl.ERROR_CODE.SUCCESS:
                time.sleep(0.001)
                continue
            last_s = time.monotonic()
            yield self._retrieve_frame()
        raise GrootRosError('The ZED camera sent no frame for 2 s: check its cable.')

    def close(self) -> None:
        """Closes the camera, so that another process can open it."""
        self._camera.close()

    def _init_parameters(self):
        sl = self._sl
        parameters = sl.InitParameters(
            camera_resolution=getattr(sl.RESOLUTION, self._settings.resolution),
            camera_fps=round(self._settings.fps),
            depth_mode=sl.DEPTH_MODE.NEURAL if self._settings.depth else sl.DEPTH_MODE.NONE,
            coordinate_units=sl.UNIT.METER,
            sdk_verbose=0,
        )
        if self._settings.serial_number:
            parameters.set_from_serial_number(self._settings.serial_number)
        return parameters

    def _check_opened(self) -> dict[str, Intrinsics]:
        """The intrinsics by eye. Raises GrootRosError if the camera runs at another rate than asked for."""
        configuration = self._camera.get_camera_information().camera_configuration
        if round(configuration.fps) != round(self._settings.fps):
            self._camera.close()
            raise GrootRosError(
                f'The ZED camera runs at {configuration.fps:g} frames per second, not '
                f'{self._settings.fps:g}: give it a USB 3 port of its own, or set a lower fps.'
            )
        found = {}
        for eye in self._eyes:
            lens = getattr(configuration.calibration_parameters, f'{eye}_cam')
            found[eye] = Intrinsics(lens.fx, lens.fy, lens.cx, lens.cy)
        return found

    def _retrieve_frame(self) -> Frame:
        stamp_ns = self._camera.get_timestamp(self._sl.TIME_REFERENCE.IMAGE).get_nanoseconds()
        images = {eye: self._retrieve_image(getattr(self._sl.VIEW, eye.upper())) for eye in self._eyes}
        self._monitor.check(stamp_ns, images[self._eyes[0]])
        depth = self._retrieve_depth() if self._settings.depth else None
        return Frame(stamp_ns, images, depth)

    def _retrieve_image(self, view) -> np.ndarray:
        self._camera.retrieve_image(self._mat, view)
        bgra = self._mat.get_data()
        return np.ascontiguousarray(bgra[:, :, 2::-1])  # a copy, since the next grab overwrites the memory

    def _retrieve_depth(self) -> np.ndarray:
        self._camera.retrieve_measure(self._mat, self._sl.MEASURE.DEPTH)
        return np.array(self._mat.get_data(), np.float32)


def _import_sdk():
    try:
        import pyzed.sl as sl
    except ImportError as error:
        other = ''
        if _has_other_pyzed():
            other = 'another package named pyzed is installed (PyPI has one): pip uninstall pyzed; then '
        raise GrootRosError(
            f'This Python has no ZED SDK (import pyzed.sl fails): {other}install the SDK and run its '
            'get_python_api.py.'
        ) from error
    return sl


def _has_other_pyzed() -> bool:
    try:
        import pyzed  # noqa: F401
    except ImportError:
        return False
    return True
