# SPDX-License-Identifier: Apache-2.0
"""The moves of a scripted operator: picks the cube and places it in the bin, from any state.

Its choice of grasp is a function of what the cameras show, so that a policy can learn it.
"""

import numpy as np

from groot_ros.control.min_jerk import MinJerkMove
from groot_ros.geometry import Array, apply_delta, matrix_from_pose
from groot_ros.sim.scene import BIN_CENTRE_M, BIN_SIZE_M, CUBE_AREA_M, CUBE_SIZE_M, STROKE_M

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
# Nearer than this, the tool is above the cube already.
_ALIGNED_M = 0.005
_ALIGNED_RAD = 0.05
_HELD_M = 0.02
_OPEN = 0.9
_ABOVE_M = 0.02
_SPREAD_RAD = np.array([0.06, 0.06, 0.2])


def random_cube(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draws x and y in m and yaw in rad of a cube within reach."""
    x, y = rng.uniform(*CUBE_AREA_M)
    yaw = rng.uniform(-np.pi / 4, np.pi / 4)
    return float(x), float(y), float(yaw)


def random_start(rng: np.random.Generator) -> Array:
    """Draws a pose (7,) above the table, tool down with a small rotation about every axis."""
    position = rng.uniform([-0.22, -0.55, 0.22], [0.06, -0.40, 0.32])
    turn = rng.normal(0.0, _SPREAD_RAD)
    return apply_delta(np.concatenate([position, _DOWN]), np.concatenate([np.zeros(3), turn]))


def pick_and_place(cube: Array, tool: Array, opening: float = 1.0) -> list[MinJerkMove]:
    """Returns the moves that bring the cube at a pose (7,) to the bin, from a tool pose (7,).

    `opening` is that of the gripper, 1 open to 0 closed. A cube that is held is carried on at once.
    """
    if is_held(cube, tool, opening):
        return _place(tool)
    grasp = _tool_down(cube, _GRASP_M, grasp_yaw(cube, tool_yaw(tool)))
    return [*_approach(grasp, tool, opening), *_grasp(grasp), *_place(grasp)]


def grasp_yaw(cube: Array, near_yaw_rad: float = 0.0) -> float:
    """Yaw of the tool in rad that aligns the fingers with the faces of the cube: the nearest to another yaw.

    Of two that are equally near it is the smaller one.
    """
    cube_yaw_rad = 2 * np.arctan2(cube[5], cube[6])
    turn_rad = (cube_yaw_rad - near_yaw_rad + np.pi / 4) % (np.pi / 2) - np.pi / 4
    return float(near_yaw_rad + turn_rad)


def tool_yaw(tool: Array) -> float:
    """Yaw in rad of a tool pose (7,) that points down, 0 for the pose from which the others are turned."""
    axis = matrix_from_pose(tool)[:3, 0]
    return float(np.arctan2(-axis[1], -axis[0]))


def is_held(cube: Array, tool: Array, opening: float) -> bool:
    """Whether the fingers, closed to the size of the cube, have it between them."""
    distance_m = float(np.linalg.norm(cube[:3] - tool[:3]))
    is_closed = CUBE_SIZE_M / 2 < opening * STROKE_M < 1.2 * CUBE_SIZE_M
    return distance_m < _HELD_M and is_closed


def cube_in_bin(cube: Array) -> bool:
    """Whether the centre of the cube is in the bin."""
    is_inside = np.all(np.abs(cube[:2] - BIN_CENTRE_M) < BIN_SIZE_M / 2)
    is_low = cube[2] < 2 * CUBE_SIZE_M
    return bool(is_inside and is_low)


def _approach(grasp: Array, tool: Array, opening: float) -> list[MinJerkMove]:
    """Opens where the tool is, rises if it is low and next to the cube, and goes above the cube."""
    moves = []
    is_low = tool[2] < _HOVER_M - _ABOVE_M
    if opening < _OPEN:
        moves.append(MinJerkMove(tool, 1.0, hold_s=0.4))
    if is_low and not _is_above(tool, grasp):
        moves.append(MinJerkMove(_at_height(tool, _HOVER_M), 1.0))
    if not (is_low and _is_above(tool, grasp)):
        moves.append(MinJerkMove(_at_height(grasp, _HOVER_M), 1.0))
    return moves


def _grasp(grasp: Array) -> list[MinJerkMove]:
    return [
        MinJerkMove(grasp, 1.0, hold_s=0.2),
        MinJerkMove(grasp, 0.0, hold_s=0.6),
    ]


def _place(tool: Array) -> list[MinJerkMove]:
    """Lifts the cube from where it is held, carries it over the bin, lets go, and rises."""
    above_bin = _tool_down(BIN_CENTRE_M, _CARRY_M, 0.0)
    release = _at_height(above_bin, _RELEASE_M)
    return [
        MinJerkMove(_at_height(tool, _CARRY_M), 0.0),
        MinJerkMove(above_bin, 0.0),
        MinJerkMove(release, 0.0, hold_s=0.2),
        MinJerkMove(release, 1.0, hold_s=0.6),
        MinJerkMove(above_bin, 1.0, hold_s=0.2),
    ]


def _is_above(tool: Array, grasp: Array) -> bool:
    distance_m = float(np.linalg.norm(tool[:2] - grasp[:2]))
    return distance_m < _ALIGNED_M and abs(tool_yaw(tool) - tool_yaw(grasp)) < _ALIGNED_RAD


def _at_height(pose: Array, height_m: float) -> Array:
    return np.concatenate([pose[:2], [height_m], pose[3:]])


def _tool_down(position: Array, height_m: float, yaw_rad: float) -> Array:
    pose = np.array([position[0], position[1], height_m, *_DOWN])
    return apply_delta(pose, np.array([0, 0, 0, 0, 0, yaw_rad]))
