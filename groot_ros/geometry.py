# SPDX-License-Identifier: Apache-2.0
"""Poses and their differences: used by the rows, the drivers, the limits and the replay.

A pose is 7 numbers, x y z in m and a unit quaternion x y z w, in the UR `base` frame.
A delta is 6 numbers: p_{t+1} - p_t in m and the axis-angle of R_{t+1} R_t^-1 in rad, applied on the left.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]


def pose_from_rotvec(pose6: Array) -> Array:
    """Pose (7,) of UR's x y z rx ry rz (6,), whose last three numbers are a rotation vector in rad."""
    pose6 = np.array(pose6, float)
    return np.concatenate([pose6[:3], Rotation.from_rotvec(pose6[3:]).as_quat()])


def rotvec_from_pose(pose: Array) -> Array:
    """UR's x y z rx ry rz (6,) of a pose (7,)."""
    pose = np.asarray(pose, float)
    return np.concatenate([pose[:3], _rotation(pose[3:]).as_rotvec()])


def matrix_from_pose(pose: Array) -> Array:
    """Homogeneous transform (4, 4) of a pose (7,)."""
    transform = np.eye(4)
    transform[:3, :3] = _rotation(pose[3:]).as_matrix()
    transform[:3, 3] = pose[:3]
    return transform


def pose_from_matrix(transform: Array) -> Array:
    """Pose (7,) of a homogeneous transform (4, 4)."""
    return np.concatenate([transform[:3, 3], _quaternion_of(transform[:3, :3])])


def deltas_between(poses: Array) -> Array:
    """Deltas (n, 6) between consecutive poses (n + 1, 7); unique while each rotation is less than pi."""
    rotations = _rotation(poses[:, 3:])
    turns = rotations[1:] * rotations[:-1].inv()
    return np.hstack([np.diff(poses[:, :3], axis=0), turns.as_rotvec()])


def apply_delta(pose: Array, delta: Array) -> Array:
    """The pose (7,) after a delta (6,)."""
    rotation = Rotation.from_rotvec(np.array(delta[3:], float)) * _rotation(pose[3:])
    return np.concatenate([pose[:3] + delta[:3], rotation.as_quat()])


def integrate_deltas(start: Array, deltas: Array) -> Array:
    """Poses (n + 1, 7) that begin at `start` (7,) and follow deltas (n, 6)."""
    poses = [np.asarray(start, float)]
    for delta in deltas:
        poses.append(apply_delta(poses[-1], delta))
    return continuous_quaternions(np.array(poses))


def continuous_quaternions(poses: Array) -> Array:
    """The same poses (n, 7) with continuous signs of their quaternions."""
    return np.hstack([poses[:, :3], continuous_signs(poses[:, 3:])])


def continuous_signs(quaternions: Array) -> Array:
    """The same quaternions (n, 4) with signs chosen so that neighbours have a dot product of at least 0.

    The first keeps its sign. A tool that points down is a turn of about pi, where signs flip with noise.
    """
    flips = np.sum(quaternions[1:] * quaternions[:-1], axis=1) < 0
    signs = np.concatenate([[1.0], np.where(np.cumsum(flips) % 2, -1.0, 1.0)])
    return quaternions * signs[:, None]


def pose_to_eef_9d(poses: Array) -> Array:
    """Position and the first two rows of the rotation matrix (n, 9) of poses (n, 7): GR00T's XYZ_ROT6D."""
    return np.hstack([poses[:, :3], _rotation(poses[:, 3:]).as_matrix()[:, :2, :].reshape(-1, 6)])


def poses_from_9d(values: Array) -> Array:
    """Poses (n, 7) of XYZ_ROT6D (n, 9)."""
    values = np.asarray(values, float)
    if not len(values):
        return np.zeros((0, 7))
    return continuous_quaternions(
        np.hstack([values[:, :3], Rotation.from_matrix(_matrix_of_9d(values)).as_quat()])
    )


def relative_9d(reference: Array, targets: Array) -> Array:
    """T_reference^-1 T_target (n, 9) of one XYZ_ROT6D (9,) and targets (n, 9); translations in the frame of the reference."""
    base, matrices = _matrix_of_9d(reference[None]), _matrix_of_9d(targets)
    turned = base[0].T @ matrices
    return np.hstack([(targets[:, :3] - reference[:3]) @ base[0], turned[:, :2, :].reshape(-1, 6)])


def _matrix_of_9d(poses: Array) -> Array:
    """Rotation matrices (n, 3, 3) of XYZ_ROT6D (n, 9), made orthogonal (Gram and Schmidt)."""
    first = poses[:, 3:6] / np.linalg.norm(poses[:, 3:6], axis=1, keepdims=True)
    second = poses[:, 6:9] - np.sum(first * poses[:, 6:9], axis=1, keepdims=True) * first
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], axis=1)


def interpolate_pose(start: Array, end: Array, share: float) -> Array:
    """The pose at `share` (0 to 1) of the way: straight in position, slerp on the shorter arc in rotation."""
    return interpolate_poses(start[None], end[None], np.array([share]))[0]


def interpolate_poses(starts: Array, ends: Array, shares: Array) -> Array:
    """The same for many pairs of poses (n, 7) and shares (n,)."""
    first, last = _rotation(starts[:, 3:]), _rotation(ends[:, 3:])
    turns = Rotation.from_rotvec((last * first.inv()).as_rotvec() * shares[:, None]) * first
    return np.hstack([starts[:, :3] + (ends[:, :3] - starts[:, :3]) * shares[:, None], turns.as_quat()])


def angle_between(start: Array, end: Array) -> float:
    """Angle in rad of the rotation from one pose (7,) to another."""
    return float((_rotation(end[3:]) * _rotation(start[3:]).inv()).magnitude())


def _rotation(quaternion: Array) -> Rotation:
    # A copy, because scipy refuses the read-only arrays that come from buffers.
    return Rotation.from_quat(np.array(quaternion, float))


def _quaternion_of(matrix: Array) -> Array:
    # scipy's from_matrix orthogonalises with an SVD, 0.1 ms that a 500 Hz loop does not have (Shepperd, 1978).
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
