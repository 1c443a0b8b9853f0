"""Time-stamped TCP waypoints read at any instant: what the 500 Hz servo loop of hardware/ur5e_child.py follows."""

from bisect import bisect_right

import numpy as np

from groot_ros.geometry import Array, interpolate_pose


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
        """Adds a segment that leaves the last waypoint at `start_s`, or when that is reached, and arrives at `end_s`.

        Raises ValueError where the segment would end before it begins.
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
        """Pose (7,) at a time; forgets the segments that ended before it."""
        index = bisect_right(self._times_s, time_s)
        if index == 0:
            return self._poses[0]
        if index == len(self._times_s):
            del self._times_s[:-1], self._poses[:-1]
            return self._poses[-1]
        del self._times_s[: index - 1], self._poses[: index - 1]
        share = (time_s - self._times_s[0]) / (self._times_s[1] - self._times_s[0])
        return interpolate_pose(self._poses[0], self._poses[1], share)
