# SPDX-License-Identifier: Apache-2.0
"""The moves of a scripted operator: picks the cube and places it in the bin, from random starts."""

import numpy as np

from groot_ros.control.min_jerk import MinJerkMove
from groot_ros.geometry import Array, apply_delta
from groot_ros.sim.scene import BIN_CENTRE_M, BIN_SIZE_M, CUBE_AREA_M, CUBE_SIZE_M

TASK = 'pick up the red cube and place it in the green bin'
# A little below the default limits of ur5e_driver, so that no step is clipped.
PEAK_SPEED_M_S = 0.24
PEAK_ROTATION_SPEED_RAD_S = 0.95
_DOWN = np.array([0.0, 1.0, 0.0, 0.0])
# Heights of the TCP above the table.
_HOVER_M = 0.12
_GRASP_M = 0.018
_CARRY_M = 0.20
_RELEASE_M = 0.09


def random_cube(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draws x and y in m and yaw in rad of a cube within reach."""
    x, y = rng.uniform(*CUBE_AREA_M)
    yaw = rng.uniform(-np.pi / 4, np.pi / 4)
    return float(x), float(y), float(yaw)


def random_start(rng: np.random.Generator) -> Array:
    """Draws a pose (7,) above the table, tool down with a small rotation about every axis."""
    position = rng.uniform([-0.22, -0.55, 0.22], [0.06, -0.40, 0.32])
    tilt = rng.normal(0.0, 0.06, 3)
    return apply_delta(np.concatenate([position, _DOWN]), np.concatenate([np.zeros(3), tilt]))


def pick_and_place(cube: Array, rng: np.random.Generator) -> list[MinJerkMove]:
    """Returns the moves of one demonstration for a cube at a pose (7,)."""
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
    """Yaw of the tool in rad, within 45 degrees of 0, that aligns the fingers with the faces of the cube."""
    yaw = 2 * np.arctan2(cube[5], cube[6])
    return float((yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4)


def cube_in_bin(cube: Array) -> bool:
    """Whether the centre of the cube is in the bin."""
    is_inside = np.all(np.abs(cube[:2] - BIN_CENTRE_M) < BIN_SIZE_M / 2)
    is_low = cube[2] < 2 * CUBE_SIZE_M
    return bool(is_inside and is_low)


def _tool_down(position: Array, height_m: float, yaw_rad: float) -> Array:
    pose = np.array([position[0], position[1], height_m, *_DOWN])
    return apply_delta(pose, np.array([0, 0, 0, 0, 0, yaw_rad]))
