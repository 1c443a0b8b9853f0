# SPDX-License-Identifier: Apache-2.0
"""Poses and their differences, for rows, drivers, limits and policies.

A pose is 7 numbers, x y z in m and a unit quaternion x y z w, in the UR `base` frame.
A delta is 6 numbers: p_{t+1} - p_t in m and the axis-angle of R_{t+1} R_t^-1 in rad, applied on the left.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]


def pose_from_rotvec(pose6: Array) -> Array:
    """Pose (7,) from UR's x y z rx ry rz (6,), whose last three numbers are a rotation vector in rad."""
    pose6 = np.array(pose6, float)
    return np.concatenate([pose6[:3], Rotation.from_rotvec(pose6[3:]).as_quat()])


def rotvec_from_pose(pose: Array) -> Array:
    """UR's x y z rx ry rz (6,) from a pose (7,)."""
    pose = np.asarray(pose, float)
    return np.concatenate([pose[:3], _rotation(pose[3:]).as_rotvec()])


def matrix_from_pose(pose: Array) -> Array:
    """Homogeneous transform (4, 4) from a pose (7,)."""
    transform = np.eye(4)
    transform[:3, :3] = _rotation(pose[3:]).as_matrix()
    transform[:3, 3] = pose[:3]
    return transform


def pose_from_matrix(transform: Array) -> Array:
    """Pose (7,) from a homogeneous transform (4, 4)."""
    return np.concatenate([transform[:3, 3], _quaternion_from_matrix(transform[:3, :3])])


def deltas_between(poses: Array) -> Array:
    """Deltas (n, 6) between consecutive poses (n + 1, 7); unique if each rotation is less than pi."""
    rotations = _rotation(poses[:, 3:])
    turns = rotations[1:] * rotations[:-1].inv()
    return np.hstack([np.diff(poses[:, :3], axis=0), turns.as_rotvec()])


def apply_delta(pose: Array, delta: Array) -> Array:
    """The pose (7,) after a delta (6,)."""
    rotation = Rotation.from_rotvec(np.array(delta[3:], float)) * _rotation(pose[3:])
    return np.concatenate([pose[:3] + delta[:3], rotation.as_quat()])


def integrate_deltas(start: Array, deltas: Array) -> Array:
    """Poses (n + 1, 7) that start at `start` (7,) and follow deltas (n, 6)."""
    poses = [np.asarray(start, float)]
    for delta in deltas:
        poses.append(apply_delta(poses[-1], delta))
    return continuous_quaternions(np.array(poses))


def continuous_quaternions(poses: Array) -> Array:
    """The same poses (n, 7), with the signs of `continuous_signs`."""
    return np.hstack([poses[:, :3], continuous_signs(poses[:, 3:])])


def continuous_signs(quaternions: Array) -> Array:
    """The same quaternions (n, 4), with signs that give neighbours a dot product of at least 0.

    The first keeps its sign. A tool that points down is a rotation of about pi, where signs flip with noise.
    """
    flips = np.sum(quaternions[1:] * quaternions[:-1], axis=1) < 0
    signs = np.concatenate([[1.0], np.where(np.cumsum(flips) % 2, -1.0, 1.0)])
    return quaternions * signs[:, None]


def pose_to_eef_9d(poses: Array) -> Array:
    """GR00T's XYZ_ROT6D (n, 9) from poses (n, 7): position, and the first two rows of the rotation matrix."""
    return np.hstack([poses[:, :3], _rotation(poses[:, 3:]).as_matrix()[:, :2, :].reshape(-1, 6)])


def poses_from_9d(values: Array) -> Array:
    """Poses (n, 7) from XYZ_ROT6D (n, 9)."""
    values = np.asarray(values, float)
    if not len(values):
        return np.zeros((0, 7))
    quaternions = Rotation.from_matrix(_matrix_from_9d(values)).as_quat()
    return continuous_quaternions(np.hstack([values[:, :3], quaternions]))


def relative_9d(reference: Array, targets: Array) -> Array:
    """T_reference^-1 T_target (n, 9) for a reference (9,) and targets (n, 9), all XYZ_ROT6D.

    Translations are in the frame of the reference.
    """
    base = _matrix_from_9d(reference[None])[0]
    rotations = base.T @ _matrix_from_9d(targets)
    translations = (targets[:, :3] - reference[:3]) @ base
    return np.hstack([translations, rotations[:, :2, :].reshape(-1, 6)])


def absolute_9d(reference: Array, relatives: Array) -> Array:
    """T_reference T_relative (n, 9), all XYZ_ROT6D: the inverse of `relative_9d`."""
    base = _matrix_from_9d(reference[None])[0]
    rotations = base @ _matrix_from_9d(relatives)
    translations = relatives[:, :3] @ base.T + reference[:3]
    return np.hstack([translations, rotations[:, :2, :].reshape(-1, 6)])


def _matrix_from_9d(poses: Array) -> Array:
    """Rotation matrices (n, 3, 3) from XYZ_ROT6D (n, 9), made orthogonal (Gram-Schmidt)."""
    first = poses[:, 3:6] / np.linalg.norm(poses[:, 3:6], axis=1, keepdims=True)
    second = poses[:, 6:9] - np.sum(first * poses[:, 6:9], axis=1, keepdims=True) * first
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], axis=1)


def interpolate_pose(start: Array, end: Array, share: float) -> Array:
    """The pose at `share` (0 to 1) of the way: linear in position, SLERP on the shorter arc in rotation."""
    return interpolate_poses(start[None], end[None], np.array([share]))[0]


def interpolate_poses(starts: Array, ends: Array, shares: Array) -> Array:
    """`interpolate_pose` for many pairs of poses (n, 7) and shares (n,)."""
    first = _rotation(starts[:, 3:])
    last = _rotation(ends[:, 3:])
    turned = Rotation.from_rotvec((last * first.inv()).as_rotvec() * shares[:, None])
    positions = starts[:, :3] + (ends[:, :3] - starts[:, :3]) * shares[:, None]
    return np.hstack([positions, (turned * first).as_quat()])


def angle_between(start: Array, end: Array) -> float:
    """Angle of the rotation from one pose (7,) to another, rad, 0 to pi.

    Raises ValueError for a quaternion of zeros. Plain numbers: scipy takes ten times longer for one pair, and
    the driver asks at each state of the robot.
    """
    ax, ay, az, aw = start[3:].tolist()
    bx, by, bz, bw = end[3:].tolist()
    # The quaternion b * conjugate(a), of any length.
    x = aw * bx - bw * ax - (by * az - bz * ay)
    y = aw * by - bw * ay - (bz * ax - bx * az)
    z = aw * bz - bw * az - (bx * ay - by * ax)
    w = ax * bx + ay * by + az * bz + aw * bw
    if x == y == z == w == 0.0:
        raise ValueError('a quaternion of zeros is no rotation')
    return 2.0 * math.atan2(math.hypot(x, y, z), abs(w))


def _rotation(quaternion: Array) -> Rotation:
    # A copy, because scipy rejects read-only arrays, which come from buffers.
    return Rotation.from_quat(np.array(quaternion, float))


def _quaternion_from_matrix(matrix: Array) -> Array:
    # Shepperd (1978). scipy's from_matrix orthogonalises with an SVD: 0.1 ms, too long in a 500 Hz loop.
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    candidates = (
        (1 + a - e - i, b + d, g + c, h - f),
        (b + d, 1 - a + e - i, h + f, c - g),
        (c + g, f + h, 1 - a - e + i, d - b),
        (h - f, c - g, d - b, 1 + a + e + i),
    )
    best = max(range(4), key=lambda k: candidates[k][k])
    quaternion = np.array(candidates[best])
    return quaternion / np.linalg.norm(quaternion)
