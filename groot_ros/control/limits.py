# SPDX-License-Identifier: Apache-2.0
"""Limits that every TCP target keeps to before it reaches the robot. Pure numpy, used by the command gate."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from groot_ros.control.link_clearance import ROBOTIQ_2F_85, LinkClearance
from groot_ros.control.setpoints import MAX_CATCH_UP
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array, angle_between, apply_delta, interpolate_pose
from groot_ros.settings import setting
from groot_ros.ur5e_kinematics import JOINT_LIMIT_RAD, inverse, jacobian

_MIN_DURATION_S = 0.002
_MAX_DURATION_S = 0.25
# No source sends more in one command: beyond this a number is wrong, and clipping it would hide that.
_MAX_SANE_M = 0.5
_MAX_SANE_RAD = np.pi / 2
# The straight line between two targets is checked at points that are at most this far apart.
_PATH_STEP_M = 0.01
_PATH_STEP_RAD = 0.05
# Fingers that are tilted at the floor are a little below the TCP.
_FLOOR_TOLERANCE_M = 0.01
_SAME_M = 1e-9  # clearances that differ by less are equal
_NO_MOTION = 1e-18  # square of 1 nm/s; smaller squares lose all their digits


# Limits that may be lowered while the arm moves, and raised again up to what they began with. The others may
# not: a nearer wall would move the target at once, another acceleration needs another window of set-points.
LOWERABLE = (
    'max_linear_speed_m_s',
    'max_angular_speed_rad_s',
    'max_joint_speed_rad_s',
    'max_step_m',
    'max_step_rad',
)


class RefusedError(Exception):
    """The command must not reach the robot. The text says why, as a clause without a full stop."""


@dataclass
class Limits:
    """Bounds of the TCP in the UR `base` frame, and of the joints. They are parameters of ur5e_driver.

    The exception is `min_manipulability`, for which there is no reason to change it in a cell.
    """

    workspace_min_m: Array = setting(
        np.array([-0.6, -0.85, 0.005]),
        'lower corner of the workspace of the TCP in `base`, m; its z is the floor',
    )
    workspace_max_m: Array = setting(
        np.array([0.6, -0.2, 0.6]), 'upper corner of the workspace of the TCP in `base`, m'
    )
    link_walls_min_m: Array = setting(
        np.full(3, -10.0),
        'walls that all links and the tool keep inside, lower x y z in `base`, m; the floor of '
        'workspace_min_m holds too; -10 is out of reach',
    )
    link_walls_max_m: Array = setting(
        np.full(3, 10.0), 'walls that all links and the tool keep inside, upper x y z in `base`, m'
    )
    max_linear_speed_m_s: float = setting(
        0.25, 'maximum TCP speed, m/s; more only where nobody can be near the arm', 0.01, 1.0
    )
    max_linear_acceleration_m_s2: float = setting(
        5.0, 'maximum TCP acceleration of the set-points, m/s^2: lower is smoother and adds delay', 0.5, 50.0
    )
    max_angular_speed_rad_s: float = setting(1.0, 'maximum rotation speed of the TCP, rad/s', 0.01, 3.0)
    max_angular_acceleration_rad_s2: float = setting(
        20.0, 'maximum rotation acceleration of the set-points, rad/s^2', 1.0, 150.0
    )
    joint_lower_rad: Array = setting(
        np.full(6, -JOINT_LIMIT_RAD), 'lower ends of the joint ranges that commands may use, rad'
    )
    joint_upper_rad: Array = setting(
        np.full(6, JOINT_LIMIT_RAD), 'upper ends of the joint ranges that commands may use, rad'
    )
    max_joint_speed_rad_s: float = setting(
        2.0, 'maximum joint speed that a command may need, rad/s', 0.1, 3.1
    )
    max_step_m: float = setting(0.075, 'maximum translation of one command, m', 0.001, 0.2)
    max_step_rad: float = setting(0.3, 'maximum rotation of one command, rad', 0.01, 1.0)
    min_manipulability: float = 0.01
    tool_capsules: Array = setting(
        np.array([[*part.start_m, *part.end_m, part.radius_m] for part in ROBOTIQ_2F_85]).ravel(),
        'gripper and camera as capsules in the flange frame: x y z of both ends, radius; 7 numbers each, m',
    )

    def __post_init__(self) -> None:
        _check_array('workspace_min_m', self.workspace_min_m, 3)
        _check_array('workspace_max_m', self.workspace_max_m, 3)
        _check_array('link_walls_min_m', self.link_walls_min_m, 3)
        _check_array('link_walls_max_m', self.link_walls_max_m, 3)
        _check_array('joint_lower_rad', self.joint_lower_rad, 6)
        _check_array('joint_upper_rad', self.joint_upper_rad, 6)
        _check_order('workspace_min_m', self.workspace_min_m, 'workspace_max_m', self.workspace_max_m)
        _check_order('link_walls_min_m', self.link_walls_min_m, 'link_walls_max_m', self.link_walls_max_m)
        _check_order('joint_lower_rad', self.joint_lower_rad, 'joint_upper_rad', self.joint_upper_rad)
        if (
            max(np.abs(self.joint_lower_rad).max(), np.abs(self.joint_upper_rad).max())
            > JOINT_LIMIT_RAD + 1e-3
        ):
            raise GrootRosError(
                'joint_lower_rad and joint_upper_rad must be within -2 pi to 2 pi rad: degrees?'
            )
        lowest_m = self.link_walls_min_m.copy()
        lowest_m[2] = max(lowest_m[2], self.workspace_min_m[2] - _FLOOR_TOLERANCE_M)
        self.clearance = LinkClearance.from_numbers(self.tool_capsules, lowest_m, self.link_walls_max_m)
        self._began_with = {name: getattr(self, name) for name in LOWERABLE}
        # Of the speeds that it began with: the set-points of the servo process keep this window.
        self._smoothing_s = MAX_CATCH_UP * max(
            self.max_linear_speed_m_s / self.max_linear_acceleration_m_s2,
            self.max_angular_speed_rad_s / self.max_angular_acceleration_rad_s2,
        )

    @property
    def smoothing_s(self) -> float:
        """Window in s of the moving average of the set-points.

        It keeps every change of velocity by at most the maximum speed within the maximum accelerations, also
        where the set-points catch up after a stall. It stays when a speed is lowered.
        """
        return self._smoothing_s

    @property
    def max_speeds(self) -> tuple[float, float]:
        """The maximum speeds of the TCP, in m/s and rad/s."""
        return self.max_linear_speed_m_s, self.max_angular_speed_rad_s

    def lower(self, name: str, value: float) -> None:
        """Sets one of LOWERABLE, for all commands from now on.

        Raises GrootRosError unless it is above 0 and at most what these limits began with.
        """
        began = self._began_with[name]
        if not 0.0 < value <= began:
            raise GrootRosError(
                f'{name} can be lowered, and raised again to {began:g}, which the node started with; '
                f'{value:g} is not within 0 to {began:g}. Restart the node with another limit.'
            )
        setattr(self, name, value)


def clip_delta(delta: Array, duration_s: float, limits: Limits) -> tuple[Array, bool]:
    """The delta (6,) shortened to the maximum step and speed, and whether that changed it.

    Translation and rotation keep their directions. Raises RefusedError for numbers that are not finite, that
    no sane source sends (0.5 m, pi / 2 rad), and for a duration outside 0.002 to 0.25 s.
    """
    if not np.all(np.isfinite(delta)) or not np.isfinite(duration_s):
        raise RefusedError('the command holds numbers that are not finite')
    if not _MIN_DURATION_S <= duration_s <= _MAX_DURATION_S:
        raise RefusedError(f'the duration of {duration_s:.3f} s is not within 0.002 to 0.25 s')
    if np.abs(delta[:3]).max() > _MAX_SANE_M:
        raise RefusedError(
            f'the translation of {np.abs(delta[:3]).max():.3g} m in one command is not plausible'
        )
    if np.abs(delta[3:]).max() > _MAX_SANE_RAD:
        raise RefusedError(
            f'the rotation of {np.abs(delta[3:]).max():.3g} rad in one command is not plausible'
        )
    max_m = min(limits.max_step_m, limits.max_linear_speed_m_s * duration_s)
    max_rad = min(limits.max_step_rad, limits.max_angular_speed_rad_s * duration_s)
    clipped = np.concatenate([_shorten(delta[:3], max_m), _shorten(delta[3:], max_rad)])
    return clipped, not np.array_equal(clipped, delta)


def min_duration_s(delta: Array, limits: Limits) -> float:
    """The shortest time in s in which the arm may move by a delta (6,)."""
    linear_s = float(np.linalg.norm(delta[:3])) / limits.max_linear_speed_m_s
    angular_s = float(np.linalg.norm(delta[3:])) / limits.max_angular_speed_rad_s
    return max(linear_s, angular_s, _MIN_DURATION_S)


def max_share(velocity: Array, recent: Iterable[Array], limits: Limits) -> float:
    """Largest share, 0 to 1, of a TCP velocity (6,) that is within the maximum speed of each recent one.

    With `smoothing_s` this bounds the acceleration: a reversal at full speed first comes to rest.
    """
    shares = [1.0]
    for earlier in recent:
        shares.append(_share(velocity[:3], earlier[:3], limits.max_linear_speed_m_s))
        shares.append(_share(velocity[3:], earlier[3:], limits.max_angular_speed_rad_s))
    return min(shares)


def clip_to_workspace(target: Array, delta: Array, limits: Limits) -> tuple[Array, bool]:
    """The pose (7,) after a delta (6,), clamped to the workspace box, and whether the box changed it.

    Only the position is clamped, each axis on its own; the orientation is as commanded.
    """
    moved = apply_delta(target, delta)
    inside = np.clip(moved[:3], limits.workspace_min_m, limits.workspace_max_m)
    clipped = not np.array_equal(inside, moved[:3])
    return np.concatenate([inside, moved[3:]]), clipped


def solve_path(
    start: Array, end: Array, joints: Array, duration_s: float, tcp_offset: Array, limits: Limits
) -> Array:
    """Joint angles (6,) at the end of the straight line between two poses (7,), starting from `joints` (6,).

    Every 10 mm and 0.05 rad of the line is checked as `solve_joints` and `check_clearance` do, since the ends
    of a line say nothing about a singularity or a wall between them. Raises RefusedError.
    """
    distance_m = float(np.linalg.norm(end[:3] - start[:3]))
    turn_rad = angle_between(start, end)
    count = max(int(np.ceil(max(distance_m / _PATH_STEP_M, turn_rad / _PATH_STEP_RAD))), 1)
    for index in range(1, count + 1):
        pose = end if index == count else interpolate_pose(start, end, index / count)
        solution = solve_joints(pose, joints, duration_s / count, tcp_offset, limits)
        check_clearance(joints, solution, limits)
        joints = solution
    return joints


def check_clearance(joints: Array, solution: Array, limits: Limits) -> None:
    """Raises RefusedError if a link, the gripper or the camera would touch the floor, a wall or another link.

    An arm that is too near already may leave: motion passes that makes the smallest clearance larger, and no
    clearance below 0 smaller.
    """
    after = limits.clearance.clearances(solution)
    nearest = int(after.argmin())
    if after[nearest] >= 0.0:
        return
    before = limits.clearance.clearances(joints)
    deeper = np.flatnonzero((after < 0.0) & (after < before - _SAME_M))
    if after[nearest] <= before.min():
        raise RefusedError(f'{limits.clearance.describe(nearest)} would touch')
    if deeper.size:
        raise RefusedError(f'{limits.clearance.describe(int(deeper[0]))} would touch')


def solve_joints(target: Array, joints: Array, duration_s: float, tcp_offset: Array, limits: Limits) -> Array:
    """Joint angles (6,) of a target pose (7,), starting from `joints` (6,) and reached within `duration_s`.

    Raises RefusedError if the pose is out of reach, nearer to a singularity or farther out of the range of a
    joint than `joints` is, or too fast for a joint: on the real controller a pose without a solution ends the
    control script. Manipulability is |det J| (Yoshikawa, 1985).
    """
    solution = inverse(target, joints, tcp_offset)
    if solution is None:
        raise RefusedError('the target is out of reach')
    speeds = np.abs(solution - joints) / duration_s
    if not speeds.max() <= limits.max_joint_speed_rad_s:
        raise RefusedError(f'joint {int(speeds.argmax()) + 1} would have to move at {speeds.max():.1f} rad/s')
    manipulability = _manipulability(solution, tcp_offset)
    if manipulability < limits.min_manipulability and manipulability <= _manipulability(joints, tcp_offset):
        raise RefusedError('the target is too near a singularity')
    outside_rad = _out_of_range(solution, limits)
    farther = np.flatnonzero((outside_rad > 0) & (outside_rad >= _out_of_range(joints, limits)))
    if farther.size:
        joint = farther[0]
        raise RefusedError(
            f'joint {joint + 1} would have to turn to {solution[joint]:.2f} rad, out of its range'
        )
    return solution


def _manipulability(joints: Array, tcp_offset: Array) -> float:
    return abs(float(np.linalg.det(jacobian(joints, tcp_offset))))


def _out_of_range(joints: Array, limits: Limits) -> Array:
    """How far each joint (6,) is outside its range, in rad; 0 or less inside."""
    return np.maximum(limits.joint_lower_rad - joints, joints - limits.joint_upper_rad)


def _check_array(name: str, values: Array, size: int) -> None:
    if np.shape(values) != (size,) or not np.all(np.isfinite(values)):
        raise GrootRosError(
            f'The parameter {name} must be {size} finite numbers, not {np.asarray(values).tolist()}.'
        )


def _check_order(lower_name: str, lower: Array, upper_name: str, upper: Array) -> None:
    if not np.all(lower < upper):
        raise GrootRosError(f'Each number of {lower_name} must be below that of {upper_name}.')


def _shorten(vector: Array, max_length: float) -> Array:
    length = float(np.linalg.norm(vector))
    return vector if length <= max_length else vector * (max_length / length)


def _share(velocity: Array, earlier: Array, bound: float) -> float:
    """Largest s in [0, 1] with |s * velocity - earlier| <= bound, for |earlier| <= bound (a quadratic)."""
    square = float(velocity @ velocity)
    mixed = float(velocity @ earlier)
    if square < _NO_MOTION:
        return 1.0
    room = max(bound * bound - float(earlier @ earlier), 0.0)
    return float(np.clip((mixed + np.sqrt(mixed * mixed + square * room)) / square, 0.0, 1.0))
