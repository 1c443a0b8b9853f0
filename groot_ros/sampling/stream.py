# SPDX-License-Identifier: Apache-2.0
"""Sampling of one stream of time-stamped vectors at ticks."""

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from groot_ros.geometry import Array, interpolate_poses

Method = Literal['linear', 'pose', 'nearest', 'hold']


@dataclass
class Sample:
    """A value (size,) at a tick, and the time in ns from the tick to the nearest measurement used."""

    value: Array
    age_ns: int


@dataclass
class Stream:
    """Time-stamped vectors of one field.

    Stamps must rise; a measurement whose stamp does not is counted and left out.

    `linear` and `pose` interpolate between the neighbours of the tick, `nearest` takes the nearer one, `hold`
    the last one at or before the tick. `latency_ns` is subtracted from every stamp.
    """

    method: Method
    latency_ns: int = 0
    regressions: int = 0
    _stamps_ns: list[int] = field(default_factory=list)
    _values: list[Array] = field(default_factory=list)

    def append(self, stamp_ns: int, value: Array) -> None:
        """Adds a value (size,); one whose stamp does not rise is counted in `regressions` and left out."""
        stamp_ns -= self.latency_ns
        if self._stamps_ns and stamp_ns <= self._stamps_ns[-1]:
            self.regressions += 1
            return
        self._stamps_ns.append(stamp_ns)
        self._values.append(value)

    def extend(self, stamps_ns: np.ndarray, values: Array) -> None:
        """Adds measurements with stamps (n,) and values (n, size), as n calls of `append` would."""
        stamps_ns = stamps_ns - self.latency_ns
        before = self._stamps_ns[-1] if self._stamps_ns else np.iinfo(np.int64).min
        newest_before = np.maximum.accumulate(np.concatenate([[before], stamps_ns]))[:-1]
        rising = stamps_ns > newest_before
        self.regressions += int(np.count_nonzero(~rising))
        self._stamps_ns.extend(stamps_ns[rising].tolist())
        self._values.extend(values[rising])

    @property
    def last_stamp_ns(self) -> int:
        """Stamp of the last measurement; 0 if there is none."""
        return self._stamps_ns[-1] if self._stamps_ns else 0

    def starts_before(self, tick_ns: int) -> bool:
        """Whether there is a measurement at or before the tick, so that it can be sampled."""
        return bool(self._stamps_ns) and self._stamps_ns[0] <= tick_ns

    def extends_past(self, tick_ns: int) -> bool:
        """Whether there is a measurement at or after the tick, so that its sample is final."""
        return bool(self._stamps_ns) and self._stamps_ns[-1] >= tick_ns

    def sample(self, tick_ns: int) -> Sample | None:
        """The value (size,) at a tick, or None if there is no measurement at or before it.

        After the last measurement every method holds it: the caller must judge by `age_ns`.
        """
        after = bisect_right(self._stamps_ns, tick_ns)
        if after == 0:
            return None
        before = after - 1
        since_ns = tick_ns - self._stamps_ns[before]
        if after == len(self._stamps_ns) or since_ns == 0 or self.method == 'hold':
            return Sample(self._values[before], since_ns)
        until_ns = self._stamps_ns[after] - tick_ns
        start = self._values[before][None]
        end = self._values[after][None]
        value = self._between(start, end, np.array([since_ns]), np.array([until_ns]))[0]
        return Sample(value, min(since_ns, until_ns))

    def sample_all(self, ticks_ns: np.ndarray) -> tuple[Array, np.ndarray] | None:
        """Values (n, size) and ages (n,) in ns at ticks (n,), equal to the bit to `sample` at each tick.

        None if one of the ticks has no measurement at or before it.
        """
        stamps_ns = np.array(self._stamps_ns, np.int64)
        after = np.searchsorted(stamps_ns, ticks_ns, side='right')
        if not len(stamps_ns) or not after.all():
            return None
        before = after - 1
        first = int(before.min())
        values = np.array(self._values[first : int(after.max()) + 1])
        since_ns = ticks_ns - stamps_ns[before]
        until_ns = stamps_ns[np.minimum(after, len(stamps_ns) - 1)] - ticks_ns
        sampled = values[before - first]
        ages_ns = since_ns.copy()
        inside = (after < len(stamps_ns)) & (since_ns > 0) & (self.method != 'hold')
        if inside.any():
            start = before[inside] - first
            sampled[inside] = self._between(
                values[start], values[start + 1], since_ns[inside], until_ns[inside]
            )
            ages_ns[inside] = np.minimum(since_ns[inside], until_ns[inside])
        return sampled, ages_ns

    def drop_before(self, tick_ns: int) -> None:
        """Drops measurements that no tick from `tick_ns` on needs."""
        keep = max(bisect_right(self._stamps_ns, tick_ns) - 1, 0)
        del self._stamps_ns[:keep], self._values[:keep]

    def _between(self, starts: Array, ends: Array, since_ns: np.ndarray, until_ns: np.ndarray) -> Array:
        shares = since_ns / (since_ns + until_ns)
        if self.method == 'pose':
            return interpolate_poses(starts, ends, shares)
        if self.method == 'linear':
            return starts + (ends - starts) * shares[:, None]
        return np.where((since_ns <= until_ns)[:, None], starts, ends)


def to_array(values) -> Array:
    """A float64 vector (n,) of a sequence of n numbers, or (1,) of one number."""
    return np.atleast_1d(np.asarray(values, float))
