# SPDX-License-Identifier: Apache-2.0
"""Notices a robot that does not follow its set-points: another program may run on it. Used by ur5e_driver."""

from collections import deque

import numpy as np

from groot_ros.geometry import Array

_MIN_SQUARE_M2 = 1e-18  # of a segment's length: keeps the division below finite


class TrackingMonitor:
    """Compares the robot's own target with the set-points of the last `memory_s`.

    servoL lags by its lookahead time, so the robot's target is somewhere on the recent path of set-points. If
    it is farther from all of that path than `tolerance_m`, the robot obeys something else, or nothing.
    """

    def __init__(self, tolerance_m: float = 0.02, memory_s: float = 1.0) -> None:
        self._tolerance_m = tolerance_m
        self._memory_s = memory_s
        self._path: deque[tuple[float, Array]] = deque()

    def reset(self) -> None:
        """Forgets the path, for a new start of servoing."""
        self._path.clear()

    def add_setpoint(self, time_s: float, position_m: Array) -> None:
        """Adds a set-point (3,) to the path and drops those older than `memory_s`."""
        self._path.append((time_s, np.asarray(position_m, float)))
        while self._path[0][0] < time_s - self._memory_s:
            self._path.popleft()

    def distance_m(self, target_m: Array) -> float:
        """Distance in m of the robot's target (3,) from the path; 0 while the path is empty."""
        if not self._path:
            return 0.0
        points = np.array([position for _, position in self._path])
        if len(points) == 1:
            return float(np.linalg.norm(target_m - points[0]))
        starts = points[:-1]
        segments = np.diff(points, axis=0)
        squares = np.maximum(np.sum(segments * segments, axis=1), _MIN_SQUARE_M2)
        shares = np.clip(np.sum((target_m - starts) * segments, axis=1) / squares, 0.0, 1.0)
        nearest = starts + segments * shares[:, None]
        return float(np.linalg.norm(nearest - target_m, axis=1).min())

    def has_diverged(self, target_m: Array) -> bool:
        """Whether the robot's target (3,) has left the path."""
        return self.distance_m(target_m) > self._tolerance_m
