# SPDX-License-Identifier: Apache-2.0
"""Rectifies the raw images of a ZED by its factory calibration file SN<serial>.conf, as the SDK does. Used by camera_video."""

import configparser
from pathlib import Path

import cv2
import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.hardware.cameras.base import MODES, Intrinsics

_SECTIONS = {'HD2K': '2K', 'HD1080': 'FHD', 'HD720': 'HD', 'VGA': 'VGA'}


class StereoRectifier:
    """Maps of both eyes for one resolution.

    The file is an INI: sections LEFT_CAM_HD and so on with fx fy cx cy k1 k2 p1 p2 k3 in pixels, and STEREO with the
    baseline in mm and the small rotations RX, CV, RZ in rad from the left to the right eye.
    """

    def __init__(self, path: str, resolution: str) -> None:
        suffix = _SECTIONS[resolution]
        config = configparser.ConfigParser()
        try:
            config.read_string(Path(path).expanduser().read_text())
            lenses = [_lens(config[f'{side}_CAM_{suffix}']) for side in ('LEFT', 'RIGHT')]
            stereo = config['STEREO']
            translation = np.array(
                [
                    -stereo.getfloat('Baseline'),
                    *(stereo.getfloat(f'{key}_{suffix}', 0.0) for key in ('TY', 'TZ')),
                ]
            )
            rotation = cv2.Rodrigues(
                np.array([stereo.getfloat(f'{key}_{suffix}', 0.0) for key in ('RX', 'CV', 'RZ')])
            )[0]
        except (OSError, KeyError, TypeError, ValueError, configparser.Error) as error:
            raise GrootRosError(
                f'The calibration file {path!r} does not hold a ZED at {resolution} ({error}): '
                'get SN<serial>.conf from calib.stereolabs.com or from /usr/local/zed/settings.'
            ) from error
        size = MODES[resolution][:2]
        (left, left_bend), (right, right_bend) = lenses
        turns_and_projections = cv2.stereoRectify(
            left,
            left_bend,
            right,
            right_bend,
            size,
            rotation,
            translation[:, None],
            flags=cv2.CALIB_ZERO_DISPARITY,
            alpha=0,
        )
        self._projections = dict(zip(('left', 'right'), turns_and_projections[2:4], strict=True))
        self._maps = {
            eye: cv2.initUndistortRectifyMap(matrix, bend, turn, self._projections[eye], size, cv2.CV_16SC2)
            for eye, (matrix, bend), turn in zip(
                ('left', 'right'), lenses, turns_and_projections[:2], strict=True
            )
        }

    def intrinsics(self, eye: str) -> Intrinsics:
        """Of the rectified image."""
        projection = self._projections[eye]
        return Intrinsics(
            float(projection[0, 0]), float(projection[1, 1]), float(projection[0, 2]), float(projection[1, 2])
        )

    def apply(self, eye: str, image: np.ndarray) -> np.ndarray:
        """The rectified image."""
        return cv2.remap(image, *self._maps[eye], cv2.INTER_LINEAR)


def _lens(section: configparser.SectionProxy) -> tuple[np.ndarray, np.ndarray]:
    """Camera matrix (3, 3) and OpenCV's distortion coefficients k1 k2 p1 p2 k3."""
    fx, fy, cx, cy = (float(section[key]) for key in ('fx', 'fy', 'cx', 'cy'))
    bend = np.array([section.getfloat(key, 0.0) for key in ('k1', 'k2', 'p1', 'p2', 'k3')])
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), bend
