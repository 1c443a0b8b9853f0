"""Rate, age and gaps of a stream, for /diagnostics."""

from dataclasses import dataclass

_WINDOW_NS = 2_000_000_000


@dataclass
class Health:
    """A judgement of one part of a node: `level` 0 is good, 1 a warning, 2 an error."""

    part: str
    level: int
    text: str
    values: dict[str, str]


class StreamMeter:
    """Counts the messages of one stream over windows of 2 s of arrival time."""

    def __init__(self, name: str, expected_hz: float) -> None:
        self._name, self._expected_hz = name, expected_hz
        self._count = self._window_began_ns = self._last_stamp_ns = self._largest_gap_ns = 0
        self._rate_hz = 0.0

    def note(self, stamp_ns: int, now_ns: int) -> None:
        """One message, measured at `stamp_ns` and published at `now_ns`."""
        if self._last_stamp_ns:
            self._largest_gap_ns = max(self._largest_gap_ns, stamp_ns - self._last_stamp_ns)
        self._last_stamp_ns = stamp_ns
        self._window_began_ns = self._window_began_ns or now_ns
        self._count += 1
        if now_ns - self._window_began_ns >= _WINDOW_NS:
            self._rate_hz = (self._count - 1) / ((now_ns - self._window_began_ns) / 1e9)
            self._count, self._window_began_ns = 1, now_ns

    def health(self, now_ns: int) -> Health:
        """How the stream stands: an error when it is silent, a warning when it is slower than 9 tenths of what is expected."""
        age_s = (now_ns - self._last_stamp_ns) / 1e9 if self._last_stamp_ns else float('inf')
        values = {
            'rate (Hz)': f'{self._rate_hz:.2f}', 'expected rate (Hz)': f'{self._expected_hz:g}', 'age (s)': f'{age_s:.3f}',
            'largest gap between stamps (s)': f'{self._largest_gap_ns / 1e9:.3f}',
        }  # fmt: skip
        if age_s > max(5.0 / self._expected_hz, 0.5):
            return Health(self._name, 2, 'silent', values)
        if self._rate_hz and self._rate_hz < 0.9 * self._expected_hz:
            return Health(self._name, 1, 'slower than expected', values)
        return Health(self._name, 0, 'flows', values)
