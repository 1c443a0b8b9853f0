# SPDX-License-Identifier: Apache-2.0
"""Clearance of the links, gripper and camera from the floor, from walls and from each other, by capsules.

Used by control/limits.py for every command. It is not a safety function: it knows the robot and planes only.
"""

from dataclasses import dataclass, field

import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.ur5e_kinematics import joint_frames

# Capsules in the frame that turns with a joint: joint index, start (3,), end (3,) and radius, all in m.
# They enclose the outlines of UR's drawing of the UR5e; the tool parts are those of LinkClearance.tool.
_LINKS: dict[str, tuple[int, tuple[float, float, float], tuple[float, float, float], float]] = {
    'base': (0, (0.0, 0.0, -0.1), (0.0, 0.0, 0.02), 0.075),
    'upper arm': (1, (0.0, 0.0, 0.138), (-0.425, 0.0, 0.138), 0.065),
    'elbow': (2, (0.0, 0.0, -0.02), (0.0, 0.0, 0.13), 0.06),
    'forearm': (2, (0.0, 0.0, 0.007), (-0.3922, 0.0, 0.007), 0.054),
    'wrist 1': (3, (0.0, 0.0, -0.02), (0.0, 0.0, 0.12), 0.047),
    'wrist 2': (4, (0.0, 0.0, -0.02), (0.0, 0.0, 0.09), 0.047),
    'wrist 3': (5, (0.0, 0.0, 0.03), (0.0, 0.0, 0.08), 0.045),
}
_FLANGE_M = 0.0996  # from the frame of joint 6 to the flange, along z
_POINT_M2 = 1e-18  # square of the length below which a segment is a point
_FLOOR = 2  # index in min x, y, z, max x, y, z
# The base and the upper arm cannot come below the floor that the arm stands on.
_MAY_BE_LOW = ('base', 'upper arm')
# Links that share a joint always touch, and the joints keep the rest apart.
_APART = (
    ('base', ('forearm', 'wrist 1', 'wrist 2', 'wrist 3')),
    ('upper arm', ('wrist 1', 'wrist 2', 'wrist 3')),
    ('elbow', ('wrist 3',)),
    ('forearm', ('wrist 3',)),
)
_TOOL_MEETS = ('base', 'upper arm', 'elbow', 'forearm')


@dataclass(frozen=True)
class ToolCapsule:
    """A part of the gripper or camera: a capsule in the flange frame (ROS `tool0`), all numbers in m."""

    name: str
    start_m: tuple[float, float, float]
    end_m: tuple[float, float, float]
    radius_m: float


# A Robotiq 2F-85 with its coupling; the fingers end at the TCP, 0.174 m from the flange.
ROBOTIQ_2F_85 = (
    ToolCapsule('gripper', (0.0, 0.0, 0.03), (0.0, 0.0, 0.08), 0.055),
    ToolCapsule('fingers', (0.0, 0.0, 0.09), (0.0, 0.0, 0.15), 0.02),
)


@dataclass
class LinkClearance:
    """Which capsules are checked, and the box in `base` that they keep inside.

    `min_m` and `max_m` are the walls x, y, z (3,) in m of every moving link and of the tool, infinite where
    there is no wall; the z of `min_m` is the floor.
    """

    min_m: Array = field(default_factory=lambda: np.array([-np.inf, -np.inf, 0.0]))
    max_m: Array = field(default_factory=lambda: np.full(3, np.inf))
    tool: tuple[ToolCapsule, ...] = ROBOTIQ_2F_85
    _names: list[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parts = list(_LINKS.items())
        parts += [
            (part.name, (5, _from_flange(part.start_m), _from_flange(part.end_m), part.radius_m))
            for part in self.tool
        ]
        self._names = [name for name, _ in parts]
        self._joints = np.array([joint for _, (joint, _, _, _) in parts])
        self._starts = np.array([start for _, (_, start, _, _) in parts], float)
        self._ends = np.array([end for _, (_, _, end, _) in parts], float)
        self._radii = np.array([radius for _, (_, _, _, radius) in parts], float)
        self._planes = [(part, plane) for part in range(len(parts)) for plane in self._planes_of(part)]
        self._part, self._plane = np.array(self._planes).T
        pairs = [(name, other) for name, others in _APART for other in others]
        pairs += [(name, part.name) for name in _TOOL_MEETS for part in self.tool]
        indices = np.array([(self._names.index(a), self._names.index(b)) for a, b in pairs])
        self._first, self._second = indices.T

    def _planes_of(self, part: int) -> list[int]:
        """Which of min x, y, z, max x, y, z a part keeps from: the base stands still, at the floor."""
        name = self._names[part]
        if name == 'base':
            return []
        return [plane for plane in range(6) if plane != _FLOOR or name not in _MAY_BE_LOW]

    @classmethod
    def from_numbers(cls, tool_capsules: Array, min_m: Array, max_m: Array) -> 'LinkClearance':
        """From the parameter `tool_capsules` (7 numbers a capsule) and the walls (3,) in m.

        Raises GrootRosError for a wrong count, a number that is not finite, or a radius that is not positive.
        """
        numbers = np.asarray(tool_capsules, float).ravel()
        if len(numbers) % 7 or not np.all(np.isfinite(numbers)):
            raise GrootRosError(
                'The parameter tool_capsules must be 7 finite numbers a capsule: x y z, x y z, radius.'
            )
        parts = []
        for index, row in enumerate(numbers.reshape(-1, 7)):
            if row[6] <= 0:
                raise GrootRosError(
                    f'Capsule {index + 1} of tool_capsules has the radius {row[6]:g} m: use a positive one.'
                )
            parts.append(
                ToolCapsule(f'tool part {index + 1}', tuple(row[:3]), tuple(row[3:6]), float(row[6]))
            )
        return cls(min_m, max_m, tuple(parts))

    def clearances(self, joints: Array) -> Array:
        """Every clearance (n,) in m at joint angles (6,) in rad; a negative one is a penetration.

        They are always in the same order, and `describe` names each.
        """
        frames = joint_frames(joints)[self._joints]
        starts = np.einsum('nij,nj->ni', frames[:, :3, :3], self._starts) + frames[:, :3, 3]
        ends = np.einsum('nij,nj->ni', frames[:, :3, :3], self._ends) + frames[:, :3, 3]
        pairs = segment_distances(
            starts[self._first], ends[self._first], starts[self._second], ends[self._second]
        )
        pairs = pairs - self._radii[self._first] - self._radii[self._second]
        return np.concatenate([self._plane_clearances(starts, ends), pairs])

    def _plane_clearances(self, starts: Array, ends: Array) -> Array:
        low = np.minimum(starts, ends) - self._radii[:, None]
        high = np.maximum(starts, ends) + self._radii[:, None]
        return np.hstack([low - self.min_m, self.max_m - high])[self._part, self._plane]

    def describe(self, index: int) -> str:
        """Which two things a clearance is between, such as 'forearm and the floor'."""
        if index >= len(self._planes):
            pair = index - len(self._planes)
            return f'{self._names[self._second[pair]]} and {self._names[self._first[pair]]}'
        part, plane = self._planes[index]
        if plane == _FLOOR:
            return f'{self._names[part]} and the floor'
        position_m = [*self.min_m, *self.max_m][plane]
        return f'{self._names[part]} and the wall at {"xyz"[plane % 3]} = {position_m:g} m'

    def closest(self, joints: Array) -> tuple[float, str]:
        """The smallest clearance in m at joint angles (6,) in rad, and which two things it is between."""
        clearances = self.clearances(joints)
        index = int(clearances.argmin())
        return float(clearances[index]), self.describe(index)


def segment_distances(a0: Array, a1: Array, b0: Array, b1: Array) -> Array:
    """Distances (n,) between segments a0-a1 and b0-b1, each (n, 3).

    The nearest points are at the inner minimum of both segments or at one of the four ends: Ericson,
    "Real-Time Collision Detection" (2005), section 5.1.9.
    """
    along_a, along_b, between = a1 - a0, b1 - b0, a0 - b0
    aa = np.maximum(np.einsum('ij,ij->i', along_a, along_a), _POINT_M2)
    bb = np.maximum(np.einsum('ij,ij->i', along_b, along_b), _POINT_M2)
    ab = np.einsum('ij,ij->i', along_a, along_b)
    ac = np.einsum('ij,ij->i', along_a, between)
    bc = np.einsum('ij,ij->i', along_b, between)
    inner = aa * bb - ab * ab
    share_a = np.clip(
        np.divide(ab * bc - ac * bb, inner, out=np.zeros_like(inner), where=inner > 1e-12), 0.0, 1.0
    )
    share_b = np.clip((ab * share_a + bc) / bb, 0.0, 1.0)
    share_a = np.clip((ab * share_b - ac) / aa, 0.0, 1.0)
    nearest = between + share_a[:, None] * along_a - share_b[:, None] * along_b
    return np.sqrt(np.einsum('ij,ij->i', nearest, nearest))


def _from_flange(point_m: tuple[float, float, float]) -> tuple[float, float, float]:
    return (point_m[0], point_m[1], point_m[2] + _FLANGE_M)
