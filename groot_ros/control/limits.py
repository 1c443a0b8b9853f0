# SPDX-License-Identifier: Apache-2.0
"""What a TCP target must keep to before it may reach the robot: pure numpy, used by the command gate of ur5e_driver."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from groot_ros.geometry import Array, apply_delta
from groot_ros.ur5e_kinematics import JOINT_LIMIT_RAD, inverse, jacobian

_NO_MOTION = 1e-18  # square of 1 nm/s; smaller squares lose all their digits


class RefusedError(Exception):
    """The command must not reach the robot; the text says why."""


@dataclass
class Limits:
    """Bounds in the UR `base` frame. The box is of the TCP; its lower z is the floor."""

    workspace_min_m: Array = field(default_factory=lambda: np.array([-0.6, -0.85, 0.005]))
    workspace_max_m: Array = field(default_factory=lambda: np.array([0.6, -0.2, 0.6]))
    max_linear_speed_m_s: float = 0.5
    max_linear_acceleration_m_s2: float = 10.0
    max_angular_speed_rad_s: float = 1.5
    max_angular_acceleration_rad_s2: float = 30.0
    joint_lower_rad: Array = field(default_factory=lambda: np.full(6, -JOINT_LIMIT_RAD))
    joint_upper_rad: Array = field(default_factory=lambda: np.full(6, JOINT_LIMIT_RAD))
    max_joint_speed_rad_s: float = 2.0
    max_step_m: float = 0.075
    max_step_rad: float = 0.3
    min_manipulability: float = 0.01

    @property
    def smoothing_s(self) -> float:
        """Window in s of the set-points' moving average that keeps every change of at most the full speed within the accelerations."""
        return max(
            self.max_linear_speed_m_s / self.max_linear_acceleration_m_s2,
            self.max_angular_speed_rad_s / self.max_angular_acceleration_rad_s2,
        )


def clip_delta(delta: Array, duration_s: float, limits: Limits) -> tuple[Array, bool]:
    """The delta (6,) shortened to the largest step and speed, and whether that changed it.

    Translation and rotation keep their directions. Raises RefusedError for numbers that are not finite or a bad duration.
    """
    if not np.all(np.isfinite(delta)) or not np.isfinite(duration_s):
        raise RefusedError('the command holds numbers that are not finite')
    if not 0.002 <= duration_s <= 1.0:
        raise RefusedError(f'the duration of {duration_s:.3f} s is not within 0.002 to 1 s')
    reach_m = min(limits.max_step_m, limits.max_linear_speed_m_s * duration_s)
    reach_rad = min(limits.max_step_rad, limits.max_angular_speed_rad_s * duration_s)
    shortened = np.concatenate([_shortened(delta[:3], reach_m), _shortened(delta[3:], reach_rad)])
    return shortened, not np.array_equal(shortened, delta)


def min_duration_s(delta: Array, limits: Limits) -> float:
    """The shortest time in s that a delta (6,) may take."""
    lengths = (
        np.linalg.norm(delta[:3]) / limits.max_linear_speed_m_s,
        np.linalg.norm(delta[3:]) / limits.max_angular_speed_rad_s,
    )
    return max(*map(float, lengths), 0.002)


def max_share(velocity: Array, recent: Iterable[Array], limits: Limits) -> float:
    """Largest share, 0 to 1, of a TCP velocity (6,) that differs from each recent one by at most the full speed.

    With `smoothing_s` this bounds the acceleration: a reversal at full speed first comes to rest.
    """
    shares = [1.0]
    for earlier in recent:
        shares.append(_share(velocity[:3], earlier[:3], limits.max_linear_speed_m_s))
        shares.append(_share(velocity[3:], earlier[3:], limits.max_angular_speed_rad_s))
    return min(shares)


def clip_to_workspace(target: Array, delta: Array, limits: Limits) -> tuple[Array, bool]:
    """The pose (7,) after a delta (6,), held inside the box, and whether the box changed it."""
    moved = apply_delta(target, delta)
    inside = np.clip(moved[:3], limits.workspace_min_m, limits.workspace_max_m)
    clipped = not np.array_equal(inside, moved[:3])
    return np.concatenate([inside, moved[3:]]), clipped


def solve_joints(target: Array, joints: Array, duration_s: float, tcp_offset: Array, limits: Limits) -> Array:
    """Joint angles (6,) of a target pose (7,), coming from `joints` (6,) within `duration_s`.

    Raises RefusedError where the pose is out of reach, near a singularity, outside a joint's range or too fast for it: on
    the real controller an unsolvable pose ends the control script. Manipulability is |det J| (Yoshikawa, 1985).
    """
    solution = inverse(target, joints, tcp_offset)
    if solution is None:
        raise RefusedError('the target is out of reach')
    if abs(np.linalg.det(jacobian(solution, tcp_offset))) < limits.min_manipulability:
        raise RefusedError('the target is too near a singularity')
    outside = np.flatnonzero((solution < limits.joint_lower_rad) | (solution > limits.joint_upper_rad))
    if outside.size:
        raise RefusedError(
            f'joint {outside[0] + 1} would have to turn to {solution[outside[0]]:.2f} rad, out of its range'
        )
    speeds = np.abs(solution - joints) / duration_s
    if speeds.max() > limits.max_joint_speed_rad_s:
        raise RefusedError(f'joint {int(speeds.argmax()) + 1} would have to move at {speeds.max():.1f} rad/s')
    return solution


def _shortened(vector: Array, reach: float) -> Array:
    length = float(np.linalg.norm(vector))
    return vector if length <= reach else vector * (reach / length)


def _share(velocity: Array, earlier: Array, reach: float) -> float:
    """Largest s in [0, 1] with |s * velocity - earlier| <= reach, for |earlier| <= reach: the root of a quadratic."""
    square, mixed = float(velocity @ velocity), float(velocity @ earlier)
    if square < _NO_MOTION:
        return 1.0
    room = max(reach * reach - float(earlier @ earlier), 0.0)
    return float(np.clip((mixed + np.sqrt(mixed * mixed + square * room)) / square, 0.0, 1.0))
