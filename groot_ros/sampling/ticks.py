# SPDX-License-Identifier: Apache-2.0
"""Ticks, the instants of rows: from the frames of the reference camera, or on a grid of a rate of its own."""

import math
from dataclasses import dataclass
from fractions import Fraction

_SAME_RATE = 0.01


@dataclass
class Tick:
    """The instant of a row; `filled` if the reference camera has no frame of its own for it."""

    stamp_ns: int
    filled: bool = False


class ReferenceTicks:
    """Ticks from the frame stamps of the reference camera, which runs at the dataset's rate.

    Where frames are missing, evenly spaced ticks fill the gap. A frame that comes too soon is left out and
    counted.
    """

    def __init__(self, fps: float) -> None:
        self._period_ns = 1e9 / fps
        self._first_ns: int | None = None
        self._last_ns = 0
        self._count = 0
        self.extra_frames = 0

    def add(self, stamp_ns: int) -> list[Tick]:
        """The ticks up to and including a frame's own, in order; none for an extra frame."""
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
        """Rate of the ticks so far in Hz; 0 before the second tick."""
        if self._first_ns is None or self._count < 2:
            return 0.0
        return (self._count - 1) * 1e9 / (self._last_ns - self._first_ns)


class GridTicks:
    """Ticks at whole multiples of the period since 1970, for a camera whose rate is not the dataset's.

    The grid does not depend on what was received, so it never drifts. A tick is `filled` if no frame is
    within a period of it.
    """

    def __init__(self, fps: float, camera_hz: float) -> None:
        self._rate = Fraction(fps).limit_denominator(1001)
        self._reach_ns = 1e9 / min(fps, camera_hz)
        self._last_frame_ns = 0
        self._next = 0
        self._count = 0
        self.extra_frames = 0

    def add(self, stamp_ns: int) -> list[Tick]:
        """The ticks after the previous frame, up to this one; none for an extra frame."""
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
        """Rate of the ticks in Hz; 0 before the second tick."""
        return float(self._rate) if self._count > 1 else 0.0

    def _at(self, index: int) -> int:
        return round(index * 1_000_000_000 / self._rate)


def ticks_for(fps: float, camera_hz: float) -> ReferenceTicks | GridTicks:
    """Ticks of the reference camera if it runs at the dataset's rate, to 1 %; else ticks of a grid."""
    if abs(camera_hz / fps - 1.0) < _SAME_RATE:
        return ReferenceTicks(fps)
    return GridTicks(fps, camera_hz)
