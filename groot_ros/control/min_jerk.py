# SPDX-License-Identifier: Apache-2.0
"""Minimum-jerk motions between poses, as deltas at a fixed period.

Used by teleop's home button, the scripted operator and the approach before a replay.
"""

from dataclasses import dataclass

import numpy as np

from groot_ros.geometry import Array, angle_between, deltas_between, interpolate_pose

# Slow, since these motions begin by themselves: a person nearby does not see where they lead.
_PEAK_SPEED_M_S = 0.15
_PEAK_ROTATION_SPEED_RAD_S = 0.6
_MIN_DURATION_S = 0.05
_PEAK_OF_MEAN = 1.875  # peak over mean speed of a minimum-jerk motion (Flash and Hogan, 1985)


@dataclass
class MinJerkMove:
    """Move to a pose (7,) with a gripper opening (1 open, 0 closed), then stay there for `hold_s`."""

    pose: Array
    opening: float
    hold_s: float = 0.0


class MinJerkTrajectory:
    """Turns moves into deltas at a fixed period. `pose` (7,) is where the motion is now.

    A move is at most as fast as the two peak speeds, in m/s and rad/s.
    """

    def __init__(
        self,
        pose: Array,
        period_s: float,
        peak_speed_m_s: float = _PEAK_SPEED_M_S,
        peak_rotation_speed_rad_s: float = _PEAK_ROTATION_SPEED_RAD_S,
    ) -> None:
        self.pose = np.asarray(pose, float)
        self.opening = 1.0
        self._period_s = period_s
        self._peak_speed_m_s = peak_speed_m_s
        self._peak_rotation_speed_rad_s = peak_rotation_speed_rad_s
        self._moves: list[MinJerkMove] = []
        self._start = self.pose
        self._elapsed_s = 0.0

    def follow(self, moves: list[MinJerkMove]) -> None:
        """Replaces the remaining moves by new ones, which start at the present pose."""
        self._moves = list(moves)
        self._start = self.pose
        self._elapsed_s = 0.0

    @property
    def done(self) -> bool:
        """Whether every move has ended."""
        return not self._moves

    def step(self) -> Array:
        """The delta (6,) of the next period, in m and rad; zeros when done.

        `pose` and `opening` are then those of the end of this period.
        """
        before = self.pose
        if self._moves:
            self._advance(self._moves[0])
        return deltas_between(np.array([before, self.pose]))[0]

    def _advance(self, move: MinJerkMove) -> None:
        self._elapsed_s += self._period_s
        self.opening = move.opening
        duration_s = self._duration_s(move.pose)
        share = min(self._elapsed_s / duration_s, 1.0)
        smooth_share = share**3 * (10 - 15 * share + 6 * share**2)
        self.pose = interpolate_pose(self._start, move.pose, smooth_share)
        if self._elapsed_s >= duration_s + move.hold_s:
            self._moves.pop(0)
            self._start = self.pose
            self._elapsed_s = 0.0

    def _duration_s(self, end: Array) -> float:
        linear_s = float(np.linalg.norm(end[:3] - self._start[:3])) / self._peak_speed_m_s
        angular_s = angle_between(self._start, end) / self._peak_rotation_speed_rad_s
        return max(max(linear_s, angular_s) * _PEAK_OF_MEAN, _MIN_DURATION_S)
