# SPDX-License-Identifier: Apache-2.0
"""Notices a robot that does not follow its set-points. Used by hardware/ur5e/session.py."""

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

import numpy as np

from groot_ros.geometry import Array, angle_between

_MIN_SQUARE_M2 = 1e-18  # of a segment's length: keeps the division below finite
_LAG_MARGIN_M = 0.01
_LAG_MARGIN_RAD = 0.05


@dataclass(frozen=True)
class _Setpoint:
    """A set-point (7,), and how far the path went up to it: `length_m` and `turn_rad`."""

    time_s: float
    pose: Array
    length_m: float
    turn_rad: float


class _Segments:
    """The straight segments between points (n, 3), n of 2 or more."""

    def __init__(self, points: Array) -> None:
        self.starts = points[:-1]
        self.vectors = np.diff(points, axis=0)
        self.squares = np.maximum(np.sum(self.vectors * self.vectors, axis=1), _MIN_SQUARE_M2)

    def distance_m(self, point: Array) -> float:
        """Distance in m of a point (3,) from the nearest segment."""
        shares = np.sum((point - self.starts) * self.vectors, axis=1) / self.squares
        nearest = self.starts + self.vectors * np.clip(shares, 0.0, 1.0)[:, None]
        return float(np.sqrt(np.min(np.sum((nearest - point) ** 2, axis=1))))


class TrackingMonitor:
    """Compares the robot with the set-points (7,) of the last `memory_s`.

    servoL lags by its lookahead time, so the robot's target is somewhere on the recent path of set-points. If
    it is farther from all of that path than `tolerance_m`, the robot obeys something else. If it is farther
    behind the newest set-point than the set-points went within the lookahead time and `margin_s`, the robot
    is deaf, and would leap if it followed again.
    """

    def __init__(
        self,
        lookahead_s: float = 0.1,
        margin_s: float = 0.1,
        tolerance_m: float = 0.02,
        memory_s: float = 1.0,
    ) -> None:
        self._max_lag_s = lookahead_s + margin_s
        self._tolerance_m = tolerance_m
        self._memory_s = memory_s
        self._path: deque[_Setpoint] = deque()
        self._segments: _Segments | None = None

    def reset(self) -> None:
        """Forgets the path, for a new start of servoing."""
        self._path.clear()
        self._segments = None

    def add_setpoint(self, time_s: float, pose: Array) -> None:
        """Adds a set-point (7,) to the path and drops those older than `memory_s`."""
        pose = np.asarray(pose, float)
        length_m = turn_rad = 0.0
        if self._path:
            last = self._path[-1]
            length_m = last.length_m + float(np.linalg.norm(pose[:3] - last.pose[:3]))
            turn_rad = last.turn_rad + angle_between(last.pose, pose)
        self._path.append(_Setpoint(time_s, pose, length_m, turn_rad))
        while self._path[0].time_s < time_s - self._memory_s:
            self._path.popleft()
        self._segments = None

    def problem(self, target: Array, measured: Array) -> str:
        """Why the robot, with these target and measured poses (7,), does not follow, as a clause; or ''."""
        if self.distance_m(target[:3]) > self._tolerance_m:
            return 'the robot does not follow its set-points: another program may run on it'
        return self._lag_problem('target', target) or self._lag_problem('measured pose', measured)

    def _lag_problem(self, name: str, pose: Array) -> str:
        if not self._path:
            return ''
        newest = self._path[-1].pose
        lag_m = float(np.linalg.norm(newest[:3] - pose[:3]))
        lag_rad = angle_between(newest, pose)
        if lag_m <= _LAG_MARGIN_M and lag_rad <= _LAG_MARGIN_RAD:
            return ''
        max_lag_m, max_lag_rad = self._recent_lengths()
        if lag_m <= max_lag_m + _LAG_MARGIN_M and lag_rad <= max_lag_rad + _LAG_MARGIN_RAD:
            return ''
        return f"the robot's {name} is {1e3 * lag_m:.0f} mm and {lag_rad:.2f} rad behind its set-point"

    def _recent_lengths(self) -> tuple[float, float]:
        """How far the set-points went and turned within the longest lag that is ordinary, in m and rad."""
        newest = self._path[-1]
        from_s = newest.time_s - self._max_lag_s
        # And the one before: beats are 40 ms apart.
        first = self._path[max(bisect_left(self._path, from_s, key=lambda point: point.time_s) - 1, 0)]
        return newest.length_m - first.length_m, newest.turn_rad - first.turn_rad

    def distance_m(self, target_m: Array) -> float:
        """Distance in m of the robot's target (3,) from the path; 0 while the path is empty."""
        if not self._path:
            return 0.0
        if len(self._path) == 1:
            return float(np.linalg.norm(target_m - self._path[0].pose[:3]))
        if self._segments is None:  # once for each set-point; states of the robot come more often
            self._segments = _Segments(np.array([point.pose[:3] for point in self._path]))
        return self._segments.distance_m(target_m)
