# SPDX-License-Identifier: Apache-2.0
"""A histogram of how late the ticks of the simulated controller were."""

import numpy as np

from groot_ros.geometry import Array

_BIN_MS = 0.01
_BINS = 5000


class LatenessHistogram:
    """Counts ticks by their lateness, in bins of 0.01 ms. Adding and reading take microseconds."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS + 1, np.int64)
        self.max_ms = 0.0

    def add(self, late_ms: float) -> None:
        """Counts one tick that was sent `late_ms` after it was due."""
        index = min(max(int(late_ms / _BIN_MS), 0), _BINS)
        self._counts[index] += 1
        self.max_ms = max(self.max_ms, late_ms)

    def percentiles_ms(self, percents: list[float]) -> Array:
        """Percentiles in ms: the upper edge of a bin, at most the maximum. Zeros before the first tick."""
        sums = np.cumsum(self._counts)
        ranks = np.ceil(np.array(percents) / 100.0 * sums[-1])
        bins = np.searchsorted(sums, ranks)
        return np.minimum((bins + 1) * _BIN_MS, self.max_ms)
