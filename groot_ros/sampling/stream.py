# SPDX-License-Identifier: Apache-2.0
"""Sampling at ticks: the recorder, the converter and the policy server all use these classes, so that rows agree to the bit."""

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np

from groot_ros.geometry import Array, interpolate_poses

_SAME_RATE = 0.01
Method = Literal['linear', 'pose', 'nearest', 'hold']


@dataclass
class Sample:
    """A value at a tick, and how far from the tick the nearest measurement behind it lies."""

    value: Array
    age_ns: int


@dataclass
class Stream:
    """Time-stamped vectors of one field. Stamps must rise; one that does not is counted and left out.

    `linear` and `pose` interpolate between the neighbours of the tick, `nearest` takes the nearer one, `hold` the last one
    at or before the tick. A latency, if known, is subtracted from every stamp.
    """

    method: Method
    latency_ns: int = 0
    regressions: int = 0
    _stamps_ns: list[int] = field(default_factory=list)
    _values: list[Array] = field(default_factory=list)

    def append(self, stamp_ns: int, value: Array) -> None:
        """Adds a measurement."""
        stamp_ns -= self.latency_ns
        if self._stamps_ns and stamp_ns <= self._stamps_ns[-1]:
            self.regressions += 1
            return
        self._stamps_ns.append(stamp_ns)
        self._values.append(value)

    def extend(self, stamps_ns: np.ndarray, values: Array) -> None:
        """Adds measurements (n,), (n, size) as n times `append` would."""
        stamps_ns = stamps_ns - self.latency_ns
        before = self._stamps_ns[-1] if self._stamps_ns else np.iinfo(np.int64).min
        rising = stamps_ns > np.maximum.accumulate(np.concatenate([[before], stamps_ns]))[:-1]
        self.regressions += int(np.count_nonzero(~rising))
        self._stamps_ns.extend(stamps_ns[rising].tolist())
        self._values.extend(values[rising])

    @property
    def last_stamp_ns(self) -> int:
        """Stamp of the last measurement, 0 before the first."""
        return self._stamps_ns[-1] if self._stamps_ns else 0

    def starts_before(self, tick_ns: int) -> bool:
        """Whether a measurement lies at or before the tick."""
        return bool(self._stamps_ns) and self._stamps_ns[0] <= tick_ns

    def extends_past(self, tick_ns: int) -> bool:
        """Whether a measurement lies at or after the tick, so that later ones cannot change the sample."""
        return bool(self._stamps_ns) and self._stamps_ns[-1] >= tick_ns

    def sample(self, tick_ns: int) -> Sample | None:
        """The value at a tick, or None where no measurement lies at or before it."""
        after = bisect_right(self._stamps_ns, tick_ns)
        if after == 0:
            return None
        before = after - 1
        since_ns = tick_ns - self._stamps_ns[before]
        if after == len(self._stamps_ns) or since_ns == 0 or self.method == 'hold':
            return Sample(self._values[before], since_ns)
        until_ns = self._stamps_ns[after] - tick_ns
        start, end = self._values[before], self._values[after]
        value = self._between(start[None], end[None], np.array([since_ns]), np.array([until_ns]))[0]
        return Sample(value, min(since_ns, until_ns))

    def sample_all(self, ticks_ns: np.ndarray) -> tuple[Array, np.ndarray] | None:
        """Values (n, size) and ages (n,) in ns at many ticks, equal to the bit to `sample` at each; None where one has no measurement before it."""
        stamps_ns = np.array(self._stamps_ns, np.int64)
        after = np.searchsorted(stamps_ns, ticks_ns, side='right')
        if not len(stamps_ns) or not after.all():
            return None
        before = after - 1
        first = int(before.min())
        values = np.array(self._values[first : int(after.max()) + 1])
        since_ns = ticks_ns - stamps_ns[before]
        until_ns = stamps_ns[np.minimum(after, len(stamps_ns) - 1)] - ticks_ns
        sampled, ages_ns = values[before - first], since_ns.copy()
        inside = (after < len(stamps_ns)) & (since_ns > 0) & (self.method != 'hold')
        if inside.any():
            since, until, at = since_ns[inside], until_ns[inside], before[inside] - first
            sampled[inside] = self._between(values[at], values[at + 1], since, until)
            ages_ns[inside] = np.minimum(since, until)
        return sampled, ages_ns

    def drop_before(self, tick_ns: int) -> None:
        """Drops what no later tick needs."""
        keep = max(bisect_right(self._stamps_ns, tick_ns) - 1, 0)
        del self._stamps_ns[:keep], self._values[:keep]

    def _between(self, starts: Array, ends: Array, since_ns: np.ndarray, until_ns: np.ndarray) -> Array:
        shares = since_ns / (since_ns + until_ns)
        if self.method == 'pose':
            return interpolate_poses(starts, ends, shares)
        if self.method == 'linear':
            return starts + (ends - starts) * shares[:, None]
        return np.where((since_ns <= until_ns)[:, None], starts, ends)


@dataclass
class Tick:
    """The instant of a row; `filled` where the reference camera has no frame for it and the last one stands in."""

    stamp_ns: int
    filled: bool = False


class ReferenceTicks:
    """Ticks from the frame stamps of the reference camera, which runs at the dataset's rate.

    A frame that is missing is filled with evenly spaced ticks; a frame that comes too soon is left out and counted.
    """

    def __init__(self, fps: float) -> None:
        self._period_ns = 1e9 / fps
        self._first_ns: int | None = None
        self._last_ns = 0
        self._count = 0
        self.extra_frames = 0

    def add(self, stamp_ns: int) -> list[Tick]:
        """The ticks that a frame brings, the one of the frame itself last; empty for an extra frame."""
        if self._first_ns is None:
            self._first_ns = self._last_ns = stamp_ns
            self._count = 1
            return [Tick(stamp_ns)]
        steps = round((stamp_ns - self._last_ns) / self._period_ns)
        if steps < 1:
            self.extra_frames += 1
            return []
        spacing_ns = (stamp_ns - self._last_ns) / steps
        filled = [Tick(round(self._last_ns + spacing_ns * i), filled=True) for i in range(1, steps)]
        self._last_ns = stamp_ns
        self._count += steps
        return [*filled, Tick(stamp_ns)]

    @property
    def measured_fps(self) -> float:
        """Rate of the ticks so far, 0 before the second."""
        if self._first_ns is None or self._count < 2:
            return 0.0
        return (self._count - 1) * 1e9 / (self._last_ns - self._first_ns)


class GridTicks:
    """Ticks at whole multiples of the period since 1970, for a camera whose rate is not the dataset's.

    The grid does not depend on what was received, so it never drifts. `filled` where no frame lies within a period of the tick.
    """

    def __init__(self, fps: float, camera_hz: float) -> None:
        self._rate = Fraction(fps).limit_denominator(1001)
        self._reach_ns = 1e9 / min(fps, camera_hz)
        self._last_frame_ns = self._next = 0
        self._count = 0
        self.extra_frames = 0

    def add(self, stamp_ns: int) -> list[Tick]:
        """The ticks between the frame before and this one."""
        if not self._last_frame_ns:
            self._next = math.ceil(stamp_ns * self._rate / 1_000_000_000)
            self._last_frame_ns = stamp_ns
        if stamp_ns < self._last_frame_ns:
            self.extra_frames += 1
            return []
        ticks = []
        while (tick_ns := self._at(self._next)) <= stamp_ns:
            distance_ns = min(tick_ns - self._last_frame_ns, stamp_ns - tick_ns)
            ticks.append(Tick(tick_ns, filled=distance_ns >= self._reach_ns))
            self._next += 1
        self._last_frame_ns = stamp_ns
        self._count += len(ticks)
        return ticks

    @property
    def measured_fps(self) -> float:
        """Rate of the ticks, 0 before the second."""
        return float(self._rate) if self._count > 1 else 0.0

    def _at(self, index: int) -> int:
        return round(index * 1_000_000_000 / self._rate)


def ticks_for(fps: float, camera_hz: float) -> ReferenceTicks | GridTicks:
    """Ticks of the reference camera's frames where it runs at the dataset's rate, to 1 %; else those of a grid."""
    return ReferenceTicks(fps) if abs(camera_hz / fps - 1.0) < _SAME_RATE else GridTicks(fps, camera_hz)


def to_array(values) -> Array:
    """A float64 vector of a number or a sequence."""
    return np.atleast_1d(np.asarray(values, float))
