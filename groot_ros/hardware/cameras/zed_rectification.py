# SPDX-License-Identifier: Apache-2.0
"""Rectifies raw images of a ZED by its factory calibration SN<serial>.conf, as the SDK does. For uvc.py."""

import configparser
from pathlib import Path

import cv2
import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.hardware.cameras.base import MODES, Intrinsics

_SECTIONS = {'HD2K': '2K', 'HD1080': 'FHD', 'HD720': 'HD', 'VGA': 'VGA'}
_Lens = tuple[np.ndarray, np.ndarray]


class StereoRectifier:
    """Rectification maps of both eyes for one resolution.

    The calibration file is an INI. Its sections LEFT_CAM_HD and so on have fx fy cx cy k1 k2 p1 p2 k3 in
    pixels; STEREO has the baseline in mm and the small rotations RX, CV, RZ in rad from the left to the right
    eye. Raises GrootRosError if the file has no such calibration.
    """

    def __init__(self, path: str, resolution: str) -> None:
        suffix = _SECTIONS[resolution]
        config = configparser.ConfigParser()
        try:
            config.read_string(Path(path).expanduser().read_text())
            left = _read_lens(config[f'LEFT_CAM_{suffix}'])
            right = _read_lens(config[f'RIGHT_CAM_{suffix}'])
            rotation, translation = _read_stereo(config['STEREO'], suffix)
            if not all(np.isfinite(numbers).all() for numbers in (*left, *right, rotation, translation)):
                raise ValueError('a number is not finite')
            size = MODES[resolution][:2]
            turn_left, turn_right, projection_left, projection_right, *_ = cv2.stereoRectify(
                *left, *right, size, rotation, translation, flags=cv2.CALIB_ZERO_DISPARITY, alpha=0
            )
        except (OSError, KeyError, TypeError, ValueError, configparser.Error, cv2.error) as error:
            raise GrootRosError(
                f'The calibration file {path!r} has no calibration of a ZED at {resolution} ({error}): '
                'get SN<serial>.conf from calib.stereolabs.com or from /usr/local/zed/settings.'
            ) from error
        self._projections = {'left': projection_left, 'right': projection_right}
        self._maps = {
            'left': _rectification_maps(left, turn_left, projection_left, size),
            'right': _rectification_maps(right, turn_right, projection_right, size),
        }

    def intrinsics(self, eye: str) -> Intrinsics:
        """The intrinsics of the rectified image of an eye."""
        projection = self._projections[eye]
        return Intrinsics(
            fx=float(projection[0, 0]),
            fy=float(projection[1, 1]),
            cx=float(projection[0, 2]),
            cy=float(projection[1, 2]),
        )

    def apply(self, eye: str, image: np.ndarray) -> np.ndarray:
        """The rectified image of an eye, in the shape of the raw one."""
        return cv2.remap(image, *self._maps[eye], cv2.INTER_LINEAR)


def _read_lens(section: configparser.SectionProxy) -> _Lens:
    """Camera matrix (3, 3) and OpenCV's distortion coefficients k1 k2 p1 p2 k3."""
    fx, fy, cx, cy = (float(section[key]) for key in ('fx', 'fy', 'cx', 'cy'))
    distortion = np.array([section.getfloat(key, 0.0) for key in ('k1', 'k2', 'p1', 'p2', 'k3')])
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), distortion


def _read_stereo(section: configparser.SectionProxy, suffix: str) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3, 3) and translation (3, 1) in mm from the left to the right eye."""
    rotation_vector = np.array([section.getfloat(f'{key}_{suffix}', 0.0) for key in ('RX', 'CV', 'RZ')])
    y_mm = section.getfloat(f'TY_{suffix}', 0.0)
    z_mm = section.getfloat(f'TZ_{suffix}', 0.0)
    translation = np.array([[-section.getfloat('Baseline')], [y_mm], [z_mm]])
    return cv2.Rodrigues(rotation_vector)[0], translation


def _rectification_maps(
    lens: _Lens, turn: np.ndarray, projection: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    matrix, distortion = lens
    return cv2.initUndistortRectifyMap(matrix, distortion, turn, projection, size, cv2.CV_16SC2)
