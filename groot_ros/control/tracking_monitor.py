# SPDX-License-Identifier: Apache-2.0
"""Notices a robot that does not follow its set-points. Used by hardware/ur5e/session.py."""

from bisect import bisect_left
from collections import deque
from itertools import islice, pairwise
from operator import itemgetter

import numpy as np

from groot_ros.geometry import Array, angle_between

_MIN_SQUARE_M2 = 1e-18  # of a segment's length: keeps the division below finite
_LAG_MARGIN_M = 0.01
_LAG_MARGIN_RAD = 0.05


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
        self._path: deque[tuple[float, Array]] = deque()

    def reset(self) -> None:
        """Forgets the path, for a new start of servoing."""
        self._path.clear()

    def add_setpoint(self, time_s: float, pose: Array) -> None:
        """Adds a set-point (7,) to the path and drops those older than `memory_s`."""
        self._path.append((time_s, np.asarray(pose, float)))
        while self._path[0][0] < time_s - self._memory_s:
            self._path.popleft()

    def problem(self, target: Array, measured: Array) -> str:
        """Why the robot, with these target and measured poses (7,), does not follow, as a clause; or ''."""
        if self.distance_m(target[:3]) > self._tolerance_m:
            return 'the robot does not follow its set-points: another program may run on it'
        return self._lag_problem('target', target) or self._lag_problem('measured pose', measured)

    def _lag_problem(self, name: str, pose: Array) -> str:
        if not self._path:
            return ''
        newest = self._path[-1][1]
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
        from_s = self._path[-1][0] - self._max_lag_s
        # And the one before: beats are 40 ms apart.
        first = max(bisect_left(self._path, from_s, key=itemgetter(0)) - 1, 0)
        poses = [pose for _, pose in islice(self._path, first, None)]
        length_m = sum(float(np.linalg.norm(b[:3] - a[:3])) for a, b in pairwise(poses))
        return length_m, sum(angle_between(a, b) for a, b in pairwise(poses))

    def distance_m(self, target_m: Array) -> float:
        """Distance in m of the robot's target (3,) from the path; 0 while the path is empty."""
        if not self._path:
            return 0.0
        points = np.array([pose[:3] for _, pose in self._path])
        if len(points) == 1:
            return float(np.linalg.norm(target_m - points[0]))
        starts = points[:-1]
        segments = np.diff(points, axis=0)
        squares = np.maximum(np.sum(segments * segments, axis=1), _MIN_SQUARE_M2)
        shares = np.clip(np.sum((target_m - starts) * segments, axis=1) / squares, 0.0, 1.0)
        nearest = starts + segments * shares[:, None]
        return float(np.linalg.norm(nearest - target_m, axis=1).min())
