# SPDX-License-Identifier: Apache-2.0
"""Notices a robot that does not follow its set-points. Used by hardware/ur5e/session.py."""

from collections import deque

import numpy as np

from groot_ros.geometry import Array, angle_between

_MIN_SQUARE_M2 = 1e-18  # of a segment's length: keeps the division below finite
_LAG_MARGIN_S = 0.1
_LAG_MARGIN_M = 0.01
_LAG_MARGIN_RAD = 0.05


class TrackingMonitor:
    """Compares the robot with the set-points (7,) of the last `memory_s`.

    servoL lags by its lookahead time, so the robot's target is somewhere on the recent path of set-points. If
    it is farther from all of that path than `tolerance_m`, the robot obeys something else. If it is farther
    behind the newest set-point than `max_speeds` (m/s, rad/s) times the lookahead time and a margin allow,
    the robot is deaf, and would leap if it followed again.
    """

    def __init__(
        self,
        max_speeds: tuple[float, float] = (np.inf, np.inf),
        lookahead_s: float = 0.1,
        tolerance_m: float = 0.02,
        memory_s: float = 1.0,
    ) -> None:
        self._max_lag_m = max_speeds[0] * (lookahead_s + _LAG_MARGIN_S) + _LAG_MARGIN_M
        self._max_lag_rad = max_speeds[1] * (lookahead_s + _LAG_MARGIN_S) + _LAG_MARGIN_RAD
        self._tolerance_m = tolerance_m
        self._memory_s = memory_s
        self._path: deque[tuple[float, Array]] = deque()
        self._newest: Array | None = None

    def reset(self) -> None:
        """Forgets the path, for a new start of servoing."""
        self._path.clear()
        self._newest = None

    def add_setpoint(self, time_s: float, pose: Array) -> None:
        """Adds a set-point (7,) to the path and drops those older than `memory_s`."""
        self._newest = np.asarray(pose, float)
        self._path.append((time_s, self._newest[:3]))
        while self._path[0][0] < time_s - self._memory_s:
            self._path.popleft()

    def problem(self, target: Array, measured: Array) -> str:
        """Why the robot, with these target and measured poses (7,), does not follow, as a clause; or ''."""
        if self.distance_m(target[:3]) > self._tolerance_m:
            return 'the robot does not follow its set-points: another program may run on it'
        return self._lag_problem('target', target) or self._lag_problem('measured pose', measured)

    def _lag_problem(self, name: str, pose: Array) -> str:
        if self._newest is None:
            return ''
        lag_m = float(np.linalg.norm(self._newest[:3] - pose[:3]))
        lag_rad = angle_between(self._newest, pose)
        if lag_m <= self._max_lag_m and lag_rad <= self._max_lag_rad:
            return ''
        return f"the robot's {name} is {1e3 * lag_m:.0f} mm and {lag_rad:.2f} rad behind its set-point"

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
