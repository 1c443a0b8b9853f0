# SPDX-License-Identifier: Apache-2.0
"""An operator that knows the simulated cell: picks the cube and places it in the bin, from random starts. Pure numpy."""

import numpy as np

from groot_ros.control.min_jerk import MinJerkMove
from groot_ros.geometry import Array, apply_delta
from groot_ros.sim.scene import BIN_CENTRE_M, BIN_SIZE_M, CUBE_AREA_M, CUBE_SIZE_M

TASK = 'pick up the red cube and place it in the green bin'
_DOWN = np.array([0.0, 1.0, 0.0, 0.0])
_HOVER_M, _GRASP_M, _CARRY_M, _RELEASE_M = 0.12, 0.018, 0.20, 0.09


def random_cube(rng: np.random.Generator) -> tuple[float, float, float]:
    """x, y in m and yaw in rad of a cube within reach."""
    x, y = rng.uniform(*CUBE_AREA_M)
    return float(x), float(y), float(rng.uniform(-np.pi / 4, np.pi / 4))


def random_start(rng: np.random.Generator) -> Array:
    """A pose (7,) above the table, tool down, turned a little about every axis."""
    position = rng.uniform([-0.22, -0.55, 0.22], [0.06, -0.40, 0.32])
    tilt = rng.normal(0.0, 0.06, 3)
    return apply_delta(np.concatenate([position, _DOWN]), np.concatenate([np.zeros(3), tilt]))


def pick_and_place(cube: Array, rng: np.random.Generator) -> list[MinJerkMove]:
    """The moves of one demonstration, for a cube at a pose (7,)."""
    yaw = grasp_yaw(cube)
    drop = np.array([*(BIN_CENTRE_M + rng.uniform(-0.01, 0.01, 2)), 0.0])
    return [
        MinJerkMove(_tool_down(cube[:3], _HOVER_M, yaw), 1.0),
        MinJerkMove(_tool_down(cube[:3], _GRASP_M, yaw), 1.0, hold_s=0.2),
        MinJerkMove(_tool_down(cube[:3], _GRASP_M, yaw), 0.0, hold_s=0.8),
        MinJerkMove(_tool_down(cube[:3], _CARRY_M, yaw), 0.0),
        MinJerkMove(_tool_down(drop, _CARRY_M, 0.0), 0.0),
        MinJerkMove(_tool_down(drop, _RELEASE_M, 0.0), 0.0, hold_s=0.2),
        MinJerkMove(_tool_down(drop, _RELEASE_M, 0.0), 1.0, hold_s=0.7),
        MinJerkMove(_tool_down(drop, _CARRY_M, 0.0), 1.0, hold_s=0.2),
    ]


def grasp_yaw(cube: Array) -> float:
    """Yaw in rad of the tool, within a quarter turn, that lines the fingers up with the cube's faces."""
    yaw = 2 * np.arctan2(cube[5], cube[6])
    return float((yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4)


def cube_in_bin(cube: Array) -> bool:
    """Whether the cube lies in the bin."""
    return bool(np.all(np.abs(cube[:2] - BIN_CENTRE_M) < BIN_SIZE_M / 2) and cube[2] < 2 * CUBE_SIZE_M)


def _tool_down(position: Array, height_m: float, yaw_rad: float) -> Array:
    pose = np.array([position[0], position[1], height_m, *_DOWN])
    return apply_delta(pose, np.array([0, 0, 0, 0, 0, yaw_rad]))
