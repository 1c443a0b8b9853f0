# SPDX-License-Identifier: Apache-2.0
"""The one definition of idle: speeds below which nothing moves on purpose. The checks and trimming use it.

All limits are speeds, so the answer does not depend on the frame rate of the dataset.

- 5 mm/s: the pose of an arm at rest jitters by about 0.05 mm, which is 1 to 3 mm/s at 20 to 50 Hz.
  A resting hand on a teleoperation device adds about as much. Precise deliberate motion is 10 mm/s and more.
  A lower limit finds motion in this noise, so idle rows stay in the dataset. A higher limit cuts slow
  approaches, which is worse, because real data is lost.
- 0.02 rad/s: the same for angles. It is the joint speed that moves a tool at a distance of 0.25 m at 5 mm/s.
- 0.2 openings/s: the slowest stroke of a Robotiq 2F-85 takes 4.3 s (0.235 openings/s). Noise of one count of
  its position (1/255) stays below the limit up to 50 Hz.
"""

import numpy as np

from groot_ros.geometry import Array

MIN_LINEAR_SPEED_M_S = 0.005
MIN_ANGULAR_SPEED_RAD_S = 0.02
MIN_GRIPPER_SPEED_S = 0.2


def moves_linearly(steps_m: Array, fps: float) -> np.ndarray:
    """Whether each step of a position (n, 3), in m from row to row, is motion: (n,) of bool.

    NaN is no motion.
    """
    return np.linalg.norm(np.nan_to_num(steps_m), axis=1) * fps > MIN_LINEAR_SPEED_M_S


def turns(steps_rad: Array, fps: float) -> np.ndarray:
    """Whether any angle moves, for steps (n, k) in rad from row to row: (n,) of bool. NaN is no motion."""
    return (np.abs(np.nan_to_num(steps_rad)) * fps > MIN_ANGULAR_SPEED_RAD_S).any(axis=1)


def command_changes(steps: Array, fps: float) -> np.ndarray:
    """Whether a command moves, from its steps (n, k) from row to row: (n,) of bool.

    One value is a gripper opening, several are joints in rad. NaN is no motion.
    """
    if steps.shape[1] > 1:
        return turns(steps, fps)
    return np.abs(np.nan_to_num(steps[:, 0])) * fps > MIN_GRIPPER_SPEED_S
