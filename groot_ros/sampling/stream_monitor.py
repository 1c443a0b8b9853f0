# SPDX-License-Identifier: Apache-2.0
"""Rate, jitter, age and gaps of a live stream, for /diagnostics and for the recorder."""

from collections import deque
from dataclasses import dataclass

import numpy as np

_WINDOW_NS = 2_000_000_000
_SILENT_S = 0.5
_SLOW_SHARE = 0.9
_GAP_STEPS = 5.0
_CLOCK_S = 1.0
_MIN_STEPS = 5


@dataclass
class Health:
    """The state of one part of a node: `level` 0 is good, 1 a warning, 2 an error."""

    part: str
    level: int
    text: str
    values: dict[str, str]


@dataclass
class StreamStats:
    """The last two seconds of a stream, in Hz and s.

    `age_s` is that of the newest stamp, `silent_s` the time since the newest arrival; both are -1 before one.
    `level` is as in Health, and `problem` says why it is not 0.
    """

    rate_hz: float = 0.0
    jitter_s: float = 0.0
    max_gap_s: float = 0.0
    age_s: float = -1.0
    silent_s: float = -1.0
    level: int = 0
    problem: str = ''


class StreamMeter:
    """Measures one stream by stamps and arrivals.

    Without an expected rate, a slow or silent stream is no problem.
    """

    def __init__(self, name: str, expected_hz: float = 0.0) -> None:
        self.name = name
        self.expected_hz = expected_hz
        self._recent: deque[tuple[int, int]] = deque()

    def add(self, stamp_ns: int, now_ns: int) -> None:
        """Adds one message that was measured at `stamp_ns` and arrived at `now_ns`."""
        recent = self._recent
        recent.append((stamp_ns, now_ns))
        while len(recent) > 1 and recent[0][1] < now_ns - _WINDOW_NS:
            recent.popleft()

    def stats(self, now_ns: int) -> StreamStats:
        """Statistics of the messages that arrived in the two seconds before `now_ns`."""
        if not self._recent:
            return StreamStats(level=2, problem='nothing came') if self.expected_hz else StreamStats()
        stamps_ns, arrivals_ns = np.array(self._recent, np.int64).T
        recent = arrivals_ns >= now_ns - _WINDOW_NS
        steps_s = np.diff(stamps_ns[recent]) / 1e9
        age_s = (now_ns - int(stamps_ns[-1])) / 1e9
        silent_s = (now_ns - int(arrivals_ns[-1])) / 1e9
        stats = StreamStats(age_s=age_s, silent_s=silent_s)
        if len(steps_s):
            duration_ns = int(arrivals_ns[-1] - arrivals_ns[recent][0])
            stats.rate_hz = len(steps_s) * 1e9 / max(duration_ns, 1)
            stats.jitter_s = float(np.abs(steps_s - np.median(steps_s)).max())
            stats.max_gap_s = float(steps_s.max())
        if self.expected_hz:
            stats.level, stats.problem = self._judge(stats, steps_s)
        return stats

    def health(self, now_ns: int) -> Health:
        """Returns the statistics at `now_ns` as an entry of /diagnostics."""
        stats = self.stats(now_ns)
        values = {
            'rate (Hz)': f'{stats.rate_hz:.2f}',
            'expected rate (Hz)': f'{self.expected_hz:g}',
            'age (s)': f'{stats.age_s:.3f}',
            'jitter (s)': f'{stats.jitter_s:.4f}',
            'max gap between stamps (s)': f'{stats.max_gap_s:.3f}',
        }
        return Health(self.name, stats.level, stats.problem or 'flows', values)

    def _judge(self, stats: StreamStats, steps_s: np.ndarray) -> tuple[int, str]:
        """Level and problem of a stream whose rate is known."""
        if stats.silent_s > max(5.0 / self.expected_hz, _SILENT_S):
            return 2, f'silent for {stats.silent_s:.1f} s'
        if abs(stats.age_s) > _CLOCK_S:
            direction = 'past' if stats.age_s > 0 else 'future'
            return 2, f'stamped {abs(stats.age_s):.1f} s in the {direction}: its clock is not this one'
        if (steps_s <= 0).any():
            return 1, 'stamps went back'
        if len(steps_s) < _MIN_STEPS:
            return 0, ''
        if stats.rate_hz < _SLOW_SHARE * self.expected_hz:
            return 2, f'comes at {stats.rate_hz:.1f} Hz instead of {self.expected_hz:g}'
        if stats.max_gap_s > _GAP_STEPS / self.expected_hz:
            return 1, f'had a gap of {stats.max_gap_s * 1e3:.0f} ms'
        return 0, ''
