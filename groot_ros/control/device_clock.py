# SPDX-License-Identifier: Apache-2.0
"""Maps a device's own clock to ROS time, so that neither network nor scheduling jitter reaches the stamps.

ur5e_driver uses it for the robot's time: this is where the robot's clock becomes header.stamp.
"""

from collections import deque

_JUMP_NS = 2e6
_WINDOW_S = 3.0
_RESET_NS = 1e9


class DeviceClock:
    """Follows the smallest delay seen: a stamp is device time plus that offset.

    A message can arrive late but never early, so the smallest offset is the truest one. The estimate creeps
    up by `drift`, so that it follows a device clock that runs slow by as much (100 ppm is the usual bound of
    a quartz). It jumps up if nothing near it was seen for 3 s: then one of the two clocks was set.
    """

    def __init__(self, drift: float = 1e-4) -> None:
        self._drift = drift
        self._offset_ns: float | None = None
        self._last_device_s = 0.0
        self._began_s = 0.0
        self._recent: deque[tuple[float, float]] = deque()

    def stamp_ns(self, device_s: float, arrival_ns: int) -> int:
        """ROS time in ns of a measurement at `device_s` that arrived at `arrival_ns`.

        Device time that goes back, or an offset that changes by more than 1 s, starts a new estimate.
        """
        observed_ns = arrival_ns - device_s * 1e9
        elapsed_s = device_s - self._last_device_s
        self._last_device_s = device_s
        if self._offset_ns is None or elapsed_s < 0 or abs(observed_ns - self._offset_ns) > _RESET_NS:
            self._offset_ns = observed_ns
            self._began_s = device_s
            self._recent.clear()
        min_ns = self._min_recent_ns(device_s, observed_ns)
        self._offset_ns = min(self._offset_ns + max(elapsed_s, 0.0) * self._drift * 1e9, observed_ns)
        if min_ns > self._offset_ns + _JUMP_NS and device_s - self._began_s > _WINDOW_S:
            self._offset_ns = min_ns
        return round(device_s * 1e9 + self._offset_ns)

    def _min_recent_ns(self, device_s: float, observed_ns: float) -> float:
        """The smallest offset within the window; the queue holds only what can still be the smallest."""
        while self._recent and self._recent[-1][1] >= observed_ns:
            self._recent.pop()
        self._recent.append((device_s, observed_ns))
        while self._recent[0][0] < device_s - _WINDOW_S:
            self._recent.popleft()
        return self._recent[0][1]
