# SPDX-License-Identifier: Apache-2.0
"""How late the ticks of the simulated controller were."""

import numpy as np

from groot_ros.geometry import Array

_BIN_MS = 0.01
_BINS = 5000


class Lateness:
    """A histogram of tick lateness: noting and reading it take some microseconds, however long it has run."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS + 1, np.int64)
        self.max_ms = 0.0

    def note(self, late_ms: float) -> None:
        """One tick, sent `late_ms` after its instant."""
        self._counts[min(max(int(late_ms / _BIN_MS), 0), _BINS)] += 1
        self.max_ms = max(self.max_ms, late_ms)

    def percentiles_ms(self, percents: list[float]) -> Array:
        """Percentiles in ms, to the upper edge of a bin of 0.01 ms and at most the largest; zeros before the first tick."""
        sums = np.cumsum(self._counts)
        bins = np.searchsorted(sums, np.ceil(np.array(percents) / 100.0 * sums[-1]))
        return np.minimum((bins + 1) * _BIN_MS, self.max_ms)
