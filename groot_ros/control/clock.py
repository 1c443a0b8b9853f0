"""Maps a device's own clock to ROS time, so that neither network nor scheduling jitter reaches the stamps."""

_RESET_S = 1.0


class DeviceClock:
    """Follows the smallest delay seen: a stamp is device time plus that offset.

    A message can arrive late but never early, so the least offset is the truest one. The estimate creeps up by
    `drift` so that it follows a device clock that runs slow by as much; 100 ppm is the usual quartz bound.
    """

    def __init__(self, drift: float = 1e-4) -> None:
        self._drift = drift
        self._offset_ns: float | None = None
        self._last_device_s = 0.0

    def stamp_ns(self, device_s: float, arrival_ns: int) -> int:
        """ROS time in ns of a measurement at `device_s` that arrived at `arrival_ns`; a device restart starts anew."""
        observed_ns = arrival_ns - device_s * 1e9
        elapsed_s = device_s - self._last_device_s
        self._last_device_s = device_s
        if self._offset_ns is None or elapsed_s < 0 or abs(observed_ns - self._offset_ns) > _RESET_S * 1e9:
            self._offset_ns = observed_ns
        else:
            self._offset_ns = min(self._offset_ns + elapsed_s * self._drift * 1e9, observed_ns)
        return round(device_s * 1e9 + self._offset_ns)
