# SPDX-License-Identifier: Apache-2.0
"""Compares tool and payload on the robot with the parameters of ur5e_driver, which replace them at enable."""

import numpy as np

from groot_ros.control.command_gate import MAX_MODEL_ERROR_M, MAX_MODEL_ERROR_RAD
from groot_ros.geometry import (
    Array,
    angle_between,
    matrix_from_pose,
    pose_from_matrix,
    pose_from_rotvec,
    rotvec_from_pose,
)
from groot_ros.ur5e_kinematics import forward

UNKNOWN_PAYLOAD_KG = -1.0
_MAX_PAYLOAD_DIFFERENCE_KG = 0.1


def tool_offset(state: np.void) -> Array:
    """The TCP offset (6,) that the robot uses, x y z rx ry rz in m and rad, from a STATE record.

    It follows from the joints and the TCP with the nominal kinematics, so it is exact to some mm.
    """
    flange = matrix_from_pose(forward(state['joint_positions'], np.zeros(6)))
    tcp = matrix_from_pose(pose_from_rotvec(state['tcp_pose']))
    return rotvec_from_pose(pose_from_matrix(np.linalg.inv(flange) @ tcp))


def differences(state: np.void, tcp_offset: Array, payload_kg: float) -> list[str]:
    """Sentences about what a STATE record from before the first enable has unlike the two parameters."""
    found = []
    robot_offset = tool_offset(state)
    here, there = pose_from_rotvec(np.asarray(tcp_offset, float)), pose_from_rotvec(robot_offset)
    distance_m = float(np.linalg.norm(here[:3] - there[:3]))
    if distance_m > MAX_MODEL_ERROR_M or angle_between(here, there) > MAX_MODEL_ERROR_RAD:
        found.append(
            f'The TCP offset on the robot is about {_numbers(robot_offset)}, and the parameter tcp_offset is '
            f'{_numbers(tcp_offset)} (m, rad): tcp_pose shows the first until ~/enable sets the second. '
            'Set the same TCP on the teach pendant, or correct tcp_offset.'
        )
    robot_kg = float(state['payload_kg'])
    if robot_kg != UNKNOWN_PAYLOAD_KG and abs(robot_kg - payload_kg) > _MAX_PAYLOAD_DIFFERENCE_KG:
        found.append(
            f'The payload on the robot is {robot_kg:.2f} kg, and the parameter payload_kg is '
            f'{payload_kg:.2f} kg, which ~/enable and ~/freedrive set: with a wrong one the arm sinks or '
            'rises in freedrive. Correct the one that is wrong.'
        )
    return found


def describe(state: np.void) -> dict[str, str]:
    """TCP offset and payload on the robot, for /diagnostics."""
    robot_kg = float(state['payload_kg'])
    return {
        'TCP offset (m, rad)': _numbers(tool_offset(state)),
        'payload (kg)': 'unknown' if robot_kg == UNKNOWN_PAYLOAD_KG else f'{robot_kg:.2f}',
    }


def _numbers(values: Array) -> str:
    return '[' + ', '.join(f'{value:.3f}' for value in np.round(values, 3) + 0.0) + ']'
