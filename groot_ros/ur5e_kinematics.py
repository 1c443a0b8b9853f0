# SPDX-License-Identifier: Apache-2.0
"""Closed-form kinematics of the UR5e from UR's DH parameters, for the limits and the simulated controller.

The library ur-analytic-ik was tried: it prints to stdout and loses valid solutions near the usual home pose.
"""

from dataclasses import dataclass
from itertools import product
from math import acos, atan2, cos, hypot, pi, sin

import numpy as np

from groot_ros.geometry import Array, matrix_from_pose, pose_from_matrix, pose_from_rotvec

JOINT_NAMES = (
    'shoulder_pan_joint',
    'shoulder_lift_joint',
    'elbow_joint',
    'wrist_1_joint',
    'wrist_2_joint',
    'wrist_3_joint',
)
JOINT_LIMIT_RAD = 2 * pi
DEFAULT_TCP_OFFSET = np.array([0.0, 0.0, 0.174, 0.0, 0.0, 0.0])
"""Flange to the fingertips of a Robotiq 2F-85: UR's x y z rx ry rz in m and rad."""

# https://www.universal-robots.com/articles/ur/application-installation/dh-parameters-for-calculations-of-kinematics-and-dynamics/
DH_A_M = (0.0, -0.425, -0.3922, 0.0, 0.0, 0.0)
DH_D_M = (0.1625, 0.0, 0.0, 0.1333, 0.0997, 0.0996)
DH_ALPHA_RAD = (pi / 2, 0.0, 0.0, pi / 2, -pi / 2, 0.0)
_A2, _A3 = DH_A_M[1:3]
_D1, _, _, _D4, _D5, _D6 = DH_D_M
_UP = np.array([0.0, 0.0, 1.0])
_SINGULAR = 5e-7  # an angle of 0 comes back from its cosine as up to 1.2e-7
_CLOSE_RAD = 0.05


# From the frame that turns with a joint to the next one at its zero angle: translation, then twist about x.
_LINK_TRANSFORMS = [
    np.array(
        [[1, 0, 0, a], [0, cos(alpha), -sin(alpha), 0], [0, sin(alpha), cos(alpha), d], [0, 0, 0, 1]], float
    )
    for a, d, alpha in zip(DH_A_M, DH_D_M, DH_ALPHA_RAD, strict=True)
]


@dataclass
class _Chain:
    """Joint axes (6, 3), their origins (6, 3) and the flange transform (4, 4), in `base`."""

    axes: Array
    origins: Array
    flange: Array


def forward(joints: Array, tcp_offset: Array) -> Array:
    """TCP pose (7,) in `base` for joint angles (6,) in rad, with UR's tool offset x y z rx ry rz (6,)."""
    return pose_from_matrix(_chain(joints).flange @ matrix_from_pose(pose_from_rotvec(tcp_offset)))


def jacobian(joints: Array, tcp_offset: Array) -> Array:
    """Geometric Jacobian (6, 6) of the TCP in `base`: m/s and rad/s of the TCP per rad/s of a joint."""
    chain = _chain(joints)
    tcp = chain.flange[:3, :3] @ np.asarray(tcp_offset[:3], float) + chain.flange[:3, 3]
    return np.vstack([np.cross(chain.axes, tcp - chain.origins).T, chain.axes.T])


def joint_frames(joints: Array) -> Array:
    """Transforms (6, 4, 4) in `base` of the frames of the turning joints, for joint angles (6,) in rad."""
    frames = np.empty((6, 4, 4))
    frame = np.eye(4)
    for joint, angle in enumerate(map(float, joints)):
        c = cos(angle)
        s = sin(angle)
        turned = frame.copy()
        turned[:3, 0] = c * frame[:3, 0] + s * frame[:3, 1]
        turned[:3, 1] = c * frame[:3, 1] - s * frame[:3, 0]
        frames[joint] = turned
        frame = turned @ _LINK_TRANSFORMS[joint]
    return frames


def inverse(pose: Array, near: Array, tcp_offset: Array) -> Array | None:
    """Joint angles (6,) nearest to `near` for a TCP pose (7,); None if it is out of reach."""
    tool = matrix_from_pose(pose_from_rotvec(tcp_offset))
    return inverse_flange(matrix_from_pose(pose) @ np.linalg.inv(tool), near)


def inverse_flange(flange: Array, near: Array) -> Array | None:
    """`inverse` for a flange transform (4, 4), fast enough for a 500 Hz loop.

    The wrist centre gives joints 1, 5 and 6; joints 2, 3 and 4 are a planar arm. See Hawkins,
    "Analytic inverse kinematics for the Universal Robots UR-5/UR-10 arms" (2013).
    """
    rotation = flange[:3, :3]
    wrist = flange[:3, 3] - _D6 * flange[:3, 2]
    radius = hypot(wrist[0], wrist[1])
    if radius < _D4:
        return None
    solutions = []
    # The branch of `near` is tried first, and a solution close to `near` ends the search.
    flips = (1, -1) if near[4] >= 0 else (-1, 1)
    elbows = (1, -1) if near[2] >= 0 else (-1, 1)
    for flip, elbow, shoulder in product(flips, elbows, (1, -1)):
        q1 = atan2(wrist[1], wrist[0]) + shoulder * acos(_D4 / radius) + pi / 2
        wrist_joints = _wrist_joints(flange, q1, flip, near[5])
        if wrist_joints is None:
            continue
        arm_joints = _arm_joints(rotation, wrist, q1, *wrist_joints, elbow)
        if arm_joints is None:
            continue
        solution = _nearest_turn(np.array([q1, *arm_joints, *wrist_joints]), near)
        if np.abs(solution - near).max() < _CLOSE_RAD:
            return solution
        solutions.append(solution)
    return min(solutions, key=lambda solution: float(np.abs(solution - near).max()), default=None)


def _wrist_joints(flange: Array, q1: float, flip: int, near_q6: float) -> tuple[float, float] | None:
    """Joints 5 and 6; None if they cannot reach the flange with this joint 1."""
    s1, c1 = sin(q1), cos(q1)
    cosine = (flange[0, 3] * s1 - flange[1, 3] * c1 - _D4) / _D6
    if abs(cosine) > 1 + 1e-9:
        return None
    q5 = flip * acos(min(max(cosine, -1.0), 1.0))
    s5 = sin(q5)
    if abs(s5) < _SINGULAR:  # the axis of joint 6 is parallel to joints 2 to 4: any angle works
        return q5, near_q6
    across = (flange[1, 1] * c1 - flange[0, 1] * s1) / s5
    along = (flange[0, 0] * s1 - flange[1, 0] * c1) / s5
    return q5, atan2(across, along)


def _arm_joints(
    rotation: Array, wrist: Array, q1: float, q5: float, q6: float, elbow: int
) -> tuple[float, float, float] | None:
    """Joints 2, 3 and 4; None if the planar arm is too short."""
    s1, c1 = sin(q1), cos(q1)
    s5, c5 = sin(q5), cos(q5)
    s6, c6 = sin(q6), cos(q6)
    forearm = rotation @ (c5 * c6, -c5 * s6, -s5)
    bend = atan2(forearm[2], c1 * forearm[0] + s1 * forearm[1])
    centre = wrist - _D5 * (rotation @ (-s6, -c6, 0.0))
    x = c1 * centre[0] + s1 * centre[1]
    y = centre[2] - _D1
    cosine = (x * x + y * y - _A2 * _A2 - _A3 * _A3) / (2 * _A2 * _A3)
    if abs(cosine) > 1 + 1e-9:
        return None
    q3 = elbow * acos(min(max(cosine, -1.0), 1.0))
    q2 = atan2(y, x) - atan2(_A3 * sin(q3), _A2 + _A3 * cos(q3))
    return q2, q3, bend - q2 - q3


def _chain(joints: Array) -> _Chain:
    q1, q2, q3, q4, q5, q6 = map(float, joints)
    s5, c5 = sin(q5), cos(q5)
    s6, c6 = sin(q6), cos(q6)
    outward = np.array([cos(q1), sin(q1), 0.0])
    side = np.array([sin(q1), -cos(q1), 0.0])
    shoulder = _D1 * _UP
    elbow = shoulder + _A2 * (cos(q2) * outward + sin(q2) * _UP)
    wrist1 = elbow + _A3 * (cos(q2 + q3) * outward + sin(q2 + q3) * _UP)
    bend = q2 + q3 + q4
    forward4 = cos(bend) * outward + sin(bend) * _UP
    down4 = sin(bend) * outward - cos(bend) * _UP
    wrist2 = wrist1 + _D4 * side
    wrist3 = wrist2 + _D5 * down4
    flange = np.eye(4)
    turn = np.array([[c5 * c6, -c5 * s6, -s5], [s5 * c6, -s5 * s6, c5], [-s6, -c6, 0.0]])
    flange[:3, :3] = np.column_stack([forward4, side, down4]) @ turn
    flange[:3, 3] = wrist3 + _D6 * flange[:3, 2]
    axes = np.array([_UP, side, side, side, down4, flange[:3, 2]])
    return _Chain(axes, np.array([np.zeros(3), shoulder, elbow, wrist1, wrist2, wrist3]), flange)


def _nearest_turn(solution: Array, near: Array) -> Array:
    """The same joint angles, turned by whole revolutions to be nearest to `near`, within the joint limits."""
    turned = solution + 2 * pi * np.round((near - solution) / (2 * pi))
    return np.where(np.abs(turned) <= JOINT_LIMIT_RAD, turned, solution)
