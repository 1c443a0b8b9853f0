# SPDX-License-Identifier: Apache-2.0
"""Renders the cameras of the scene for given joint positions, off-screen."""

import mujoco
import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.sim.scene import scene_xml

# What the cameras of the cell give, in pixels.
CAMERA_WIDTH = 640
CAMERA_HEIGHT = 480


class SceneRenderer:
    """Images of one size of every camera of the scene. Raises GrootRosError if nothing can be rendered."""

    def __init__(self, width: int = CAMERA_WIDTH, height: int = CAMERA_HEIGHT) -> None:
        self.width = width
        self.height = height
        try:
            self._model = mujoco.MjModel.from_xml_string(scene_xml(width, height))
            self._data = mujoco.MjData(self._model)
            self._renderer = mujoco.Renderer(self._model, height, width)
        except Exception as error:  # MuJoCo raises whatever its GL backend raises
            raise GrootRosError(
                f'The simulated camera cannot render off-screen ({type(error).__name__}: {error}): '
                'install libegl1 and libgl1-mesa-dri, or set MUJOCO_GL=osmesa.'
            ) from error

    def render(self, qpos: np.ndarray, camera: str) -> np.ndarray:
        """The image (height, width, 3) RGB uint8 that a camera sees at joint positions (nq,) of the scene."""
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        self._renderer.update_scene(self._data, camera)
        return self._renderer.render().copy()
