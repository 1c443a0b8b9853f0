# SPDX-License-Identifier: Apache-2.0
"""Notices a robot that does not follow its set-points, as when another program runs on it. Used by ur5e_driver."""

from collections import deque

import numpy as np

from groot_ros.geometry import Array


class TrackingMonitor:
    """Compares the robot's own target with where it was told to be during the last `memory_s`.

    servoL lags by its lookahead time, so the target lies somewhere on the recent path of set-points: farther from all of it
    than `tolerance_m`, the robot obeys somebody else, or nobody.
    """

    def __init__(self, tolerance_m: float = 0.02, memory_s: float = 1.0) -> None:
        self._tolerance_m, self._memory_s = tolerance_m, memory_s
        self._path: deque[tuple[float, Array]] = deque()

    def reset(self) -> None:
        """Forgets the path, as when servoing begins anew."""
        self._path.clear()

    def add_setpoint(self, time_s: float, position_m: Array) -> None:
        """Notes a set-point (3,)."""
        self._path.append((time_s, np.asarray(position_m, float)))
        while self._path[0][0] < time_s - self._memory_s:
            self._path.popleft()

    def distance_m(self, target_m: Array) -> float:
        """Distance in m of the robot's target (3,) from the remembered path; 0 while nothing is remembered."""
        if not self._path:
            return 0.0
        points = np.array([position for _, position in self._path])
        starts, ways = points[:-1], np.diff(points, axis=0)
        if not len(starts):
            return float(np.linalg.norm(target_m - points[0]))
        lengths = np.maximum(np.sum(ways * ways, axis=1), 1e-18)
        shares = np.clip(np.sum((target_m - starts) * ways, axis=1) / lengths, 0.0, 1.0)
        return float(np.linalg.norm(starts + ways * shares[:, None] - target_m, axis=1).min())

    def has_diverged(self, target_m: Array) -> bool:
        """Whether the robot's target (3,) has left the path."""
        return self.distance_m(target_m) > self._tolerance_m
