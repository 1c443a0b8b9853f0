"""Sampling at ticks: the recorder, the converter and the policy server all use these classes, so that rows agree to the bit."""

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from groot_ros.geometry import Array, interpolate_pose

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

    def begins_by(self, tick_ns: int) -> bool:
        """Whether a measurement lies at or before the tick."""
        return bool(self._stamps_ns) and self._stamps_ns[0] <= tick_ns

    def covers(self, tick_ns: int) -> bool:
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
        return Sample(self._between(before, since_ns, until_ns), min(since_ns, until_ns))

    def forget_before(self, tick_ns: int) -> None:
        """Drops what no later tick needs."""
        keep = max(bisect_right(self._stamps_ns, tick_ns) - 1, 0)
        del self._stamps_ns[:keep], self._values[:keep]

    def _between(self, before: int, since_ns: int, until_ns: int) -> Array:
        start, end = self._values[before], self._values[before + 1]
        share = since_ns / (since_ns + until_ns)
        if self.method == 'pose':
            return interpolate_pose(start, end, share)
        if self.method == 'linear':
            return start + (end - start) * share
        return start if since_ns <= until_ns else end


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


def to_array(values) -> Array:
    """A float64 vector of a number or a sequence."""
    return np.atleast_1d(np.asarray(values, float))
