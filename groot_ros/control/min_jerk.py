# SPDX-License-Identifier: Apache-2.0
"""Smooth motions between poses, as deltas at a fixed period: used by the scripted operator and by the replay's approach."""

from dataclasses import dataclass

import numpy as np

from groot_ros.geometry import Array, angle_between, deltas_between, interpolate_pose

_PEAK_SPEED_M_S, _PEAK_ROTATION_SPEED_RAD_S = 0.3, 1.3
_PEAK_OF_MEAN = 1.875  # peak over mean speed of a minimum-jerk motion (Flash and Hogan, 1985)


@dataclass
class MinJerkMove:
    """Go to a pose (7,) with an opening, then wait there for `hold_s`."""

    pose: Array
    opening: float
    hold_s: float = 0.0


class MinJerkTrajectory:
    """Turns moves into deltas at a fixed period: minimum-jerk motions between poses."""

    def __init__(self, pose: Array, period_s: float) -> None:
        self.pose, self.opening = np.asarray(pose, float), 1.0
        self._period_s = period_s
        self._moves: list[MinJerkMove] = []
        self._start, self._elapsed_s = self.pose, 0.0

    def follow(self, moves: list[MinJerkMove]) -> None:
        """Takes up new moves, from where it stands."""
        self._moves, self._start, self._elapsed_s = list(moves), self.pose, 0.0

    @property
    def done(self) -> bool:
        """Whether every move has been made."""
        return not self._moves

    def step(self) -> Array:
        """The delta (6,) of the next period; zeros when done. `opening` is what to command with it."""
        before = self.pose
        if self._moves:
            self._advance(self._moves[0])
        return deltas_between(np.array([before, self.pose]))[0]

    def _advance(self, move: MinJerkMove) -> None:
        self._elapsed_s += self._period_s
        self.opening = move.opening
        duration_s = _duration_s(self._start, move.pose)
        share = min(self._elapsed_s / duration_s, 1.0)
        self.pose = interpolate_pose(self._start, move.pose, share**3 * (10 - 15 * share + 6 * share**2))
        if self._elapsed_s >= duration_s + move.hold_s:
            self._moves.pop(0)
            self._start, self._elapsed_s = self.pose, 0.0


def _duration_s(start: Array, end: Array) -> float:
    at_peak_s = max(
        float(np.linalg.norm(end[:3] - start[:3])) / _PEAK_SPEED_M_S,
        angle_between(start, end) / _PEAK_ROTATION_SPEED_RAD_S,
    )
    return max(at_peak_s * _PEAK_OF_MEAN, 0.05)
