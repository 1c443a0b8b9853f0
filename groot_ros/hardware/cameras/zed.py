# SPDX-License-Identifier: Apache-2.0
"""A ZED through Stereolabs' SDK: rectified images, stamped by TIME_REFERENCE.IMAGE."""

import time
from collections.abc import Iterator

import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.hardware.cameras.base import EYES, CameraSettings, Frame, FrozenWatch, Intrinsics, check_mode

_SILENT_S = 2.0


class ZedCamera:
    """Opens the camera without depth unless it is asked for, which spares the GPU."""

    def __init__(self, settings: CameraSettings) -> None:
        check_mode(settings.resolution, settings.fps)
        self._sl = sl = _zed_sdk()
        self._settings, self._eyes = settings, EYES[settings.eye]
        self._camera, self._mat = sl.Camera(), sl.Mat()
        self._runtime = sl.RuntimeParameters(enable_depth=settings.depth)
        self._watch = FrozenWatch(settings.frozen_s)
        status = self._camera.open(self._parameters())
        if status != sl.ERROR_CODE.SUCCESS:
            raise GrootRosError(
                f'The ZED camera does not open ({status}): check the USB 3 cable and that no other program uses it.'
            )
        self.intrinsics = self._check_opened()

    def frames(self) -> Iterator[Frame]:
        """Frames until grabbing fails for 2 s, as when the camera is unplugged."""
        last_s = time.monotonic()
        while time.monotonic() - last_s < _SILENT_S:
            if self._camera.grab(self._runtime) != self._sl.ERROR_CODE.SUCCESS:
                time.sleep(0.001)
                continue
            last_s = time.monotonic()
            stamp_ns = self._camera.get_timestamp(self._sl.TIME_REFERENCE.IMAGE).get_nanoseconds()
            images = {eye: self._retrieve(getattr(self._sl.VIEW, eye.upper())) for eye in self._eyes}
            self._watch.check(stamp_ns, images[self._eyes[0]])
            yield Frame(stamp_ns, images, self._depth() if self._settings.depth else None)
        raise GrootRosError('The ZED camera sent no frame for 2 s: check its cable.')

    def close(self) -> None:
        """Releases the camera."""
        self._camera.close()

    def _parameters(self):
        sl, settings = self._sl, self._settings
        parameters = sl.InitParameters(
            camera_resolution=getattr(sl.RESOLUTION, settings.resolution), camera_fps=round(settings.fps),
            depth_mode=sl.DEPTH_MODE.NEURAL if settings.depth else sl.DEPTH_MODE.NONE, coordinate_units=sl.UNIT.METER, sdk_verbose=0,
        )  # fmt: skip
        if settings.serial_number:
            parameters.set_from_serial_number(settings.serial_number)
        return parameters

    def _check_opened(self) -> dict[str, Intrinsics]:
        """The intrinsics; raises GrootRosError where the camera runs at another rate than it was told."""
        configuration = self._camera.get_camera_information().camera_configuration
        if round(configuration.fps) != round(self._settings.fps):
            self._camera.close()
            raise GrootRosError(
                f'The ZED camera runs at {configuration.fps:g} frames per second, not {self._settings.fps:g}: is it on a USB 3 port of its own?'
            )
        eyes = {eye: getattr(configuration.calibration_parameters, f'{eye}_cam') for eye in self._eyes}
        return {eye: Intrinsics(lens.fx, lens.fy, lens.cx, lens.cy) for eye, lens in eyes.items()}

    def _retrieve(self, view) -> np.ndarray:
        self._camera.retrieve_image(self._mat, view)
        return np.ascontiguousarray(
            self._mat.get_data()[:, :, 2::-1]
        )  # BGRA, in memory that the next grab overwrites

    def _depth(self) -> np.ndarray:
        self._camera.retrieve_measure(self._mat, self._sl.MEASURE.DEPTH)
        return np.array(self._mat.get_data(), np.float32)


def _zed_sdk():
    try:
        import pyzed.sl as sl
    except ImportError as error:
        other = (
            'another package of that name is installed (PyPI has one): pip uninstall pyzed; then '
            if _other_pyzed()
            else ''
        )
        raise GrootRosError(
            f'The ZED SDK is not there for this Python (import pyzed.sl fails): {other}install the SDK and run its get_python_api.py.'
        ) from error
    return sl


def _other_pyzed() -> bool:
    try:
        import pyzed  # noqa: F401
    except ImportError:
        return False
    return True
