# SPDX-License-Identifier: Apache-2.0
"""Turns time-stamped TCP waypoints into 500 Hz set-points. Used by hardware/ur5e/servo_process.py.

Interpolation of measurements at ticks is elsewhere: sampling/stream.py.
"""

from bisect import bisect_right

import numpy as np

from groot_ros.geometry import Array, angle_between, interpolate_pose

# Set-points of a loop that was late may run this much faster than planned, up to the maximum speed.
MAX_CATCH_UP = 1.25
# A cycle that was not late gains one period, up to the rounding of the clock, and never has to be limited.
_ON_TIME = 1.0 + 1e-9


class PoseTrajectory:
    """Straight SE(3) segments between waypoints. Before the first and after the last waypoint it holds."""

    def __init__(self, time_s: float, pose: Array) -> None:
        self._times_s = [time_s]
        self._poses = [np.asarray(pose, float)]

    @property
    def end(self) -> tuple[float, Array]:
        """Time in s and pose (7,) of the last waypoint."""
        return self._times_s[-1], self._poses[-1]

    def append(self, start_s: float, end_s: float, pose: Array) -> None:
        """Adds a segment to `pose` (7,), from `start_s` or the end of the last one if later, to `end_s`.

        Raises ValueError if the segment would end before it begins.
        """
        last_s, last = self.end
        start_s = max(start_s, last_s)
        if end_s <= start_s:
            raise ValueError(f'a segment from {start_s:.4f} s cannot end at {end_s:.4f} s')
        if start_s > last_s:
            self._times_s.append(start_s)
            self._poses.append(last)
        self._times_s.append(end_s)
        self._poses.append(np.asarray(pose, float))

    def sample(self, time_s: float) -> Array:
        """Pose (7,) at a time, which must not decrease: segments that ended before it are forgotten."""
        index = bisect_right(self._times_s, time_s)
        if index == 0:
            return self._poses[0]
        if index == len(self._times_s):
            del self._times_s[:-1]
            del self._poses[:-1]
            return self._poses[-1]
        del self._times_s[: index - 1]
        del self._poses[: index - 1]
        share = (time_s - self._times_s[0]) / (self._times_s[1] - self._times_s[0])
        return interpolate_pose(self._poses[0], self._poses[1], share)

    def max_speed_share(self, from_s: float, until_s: float, max_speeds: tuple[float, float]) -> float:
        """Largest speed of the segments between two times, as a share of the maximum in m/s and rad/s."""
        shares = [0.0]
        for index in range(len(self._times_s) - 1):
            start_s, end_s = self._times_s[index : index + 2]
            if end_s > from_s and start_s < until_s:
                start, end = self._poses[index : index + 2]
                linear = float(np.linalg.norm(end[:3] - start[:3])) / (end_s - start_s)
                angular = angle_between(start, end) / (end_s - start_s)
                shares.append(max(linear / max_speeds[0], angular / max_speeds[1]))
        return max(shares)


class SetpointGenerator:
    """The set-points of a servo loop: a trajectory, averaged over the last `window_s`.

    A moving average turns every jump of the velocity by dv into an acceleration of dv / window_s, adds half
    the window as delay, and stays in every convex box that holds the waypoints. Its time follows the clock
    but gains at most 1.25 periods a cycle, and less where that would exceed `max_speeds` (m/s, rad/s), which
    may change: after a stall of the process the arm continues from where it was, without a jump.
    """

    def __init__(
        self,
        time_s: float,
        pose: Array,
        window_s: float,
        period_s: float,
        max_speeds: tuple[float, float] = (np.inf, np.inf),
    ) -> None:
        self._trajectory = PoseTrajectory(time_s, pose)
        self.max_speeds = max_speeds
        self._time_s = time_s
        self._period_s = period_s
        count = max(int(np.ceil(window_s / period_s - 1e-9)), 1)
        self._recent = np.tile(np.asarray(pose, float), (count, 1))
        self._oldest = 0

    def _max_gain_s(self) -> float:
        """How far the time may advance in this cycle: catching up never exceeds the maximum speeds."""
        until_s = self._time_s + MAX_CATCH_UP * self._period_s
        share = self._trajectory.max_speed_share(self._time_s, until_s, self.max_speeds)
        return self._period_s * min(MAX_CATCH_UP, max(1.0, 1.0 / max(share, 1e-9)))

    def append(self, start_s: float, end_s: float, pose: Array) -> None:
        """Adds a waypoint: the pose (7,) to be at by `end_s`, after a straight motion from `start_s` on.

        A late one is shifted in time and keeps its duration: it is never faster.
        """
        earliest_s = max(self._time_s, self._trajectory.end[0])
        late_s = max(earliest_s - start_s, 0.0)
        self._trajectory.append(start_s + late_s, end_s + late_s, pose)

    def brake(self) -> Array:
        """Drops the waypoints ahead: the set-points slow down on their path, within the window.

        Returns the pose (7,) at which they come to rest.
        """
        rest = self._trajectory.sample(self._time_s)
        self._trajectory = PoseTrajectory(self._time_s, rest)
        return rest

    @property
    def resting(self) -> bool:
        """Whether every set-point of the window is the same."""
        return bool(np.all(self._recent == self._recent[0]))

    def advance(self, now_s: float) -> Array:
        """The set-point (7,) of this cycle, at `now_s` of the clock that the waypoints use.

        It is a position in m and a unit quaternion x y z w, to be called once a period.
        """
        gain_s = max(now_s - self._time_s, 0.0)
        if gain_s > self._period_s * _ON_TIME:
            gain_s = min(gain_s, self._max_gain_s())
        self._time_s += gain_s
        pose = self._trajectory.sample(self._time_s)
        newest = self._recent[self._oldest - 1]
        self._recent[self._oldest, :3] = pose[:3]
        self._recent[self._oldest, 3:] = pose[3:] if pose[3:] @ newest[3:] >= 0 else -pose[3:]
        self._oldest = (self._oldest + 1) % len(self._recent)
        # The normalised mean of close quaternions is their mean rotation (Markley et al., 2007).
        mean = self._recent.mean(axis=0)
        mean[3:] /= np.linalg.norm(mean[3:])
        return mean
