# SPDX-License-Identifier: Apache-2.0
"""What an episode left behind, as numbers: stamps, arrivals, rows, looks of frames. Filled while recording, or from a bag."""

from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from groot_ros.embodiment import Embodiment
from groot_ros.geometry import Array
from groot_ros.message_fields import header_stamp_ns


@dataclass
class StreamTrace:
    """Stamps and arrivals of a topic in ns, by message, and how many the middleware lost."""

    stamps_ns: array = field(default_factory=lambda: array('q'))
    arrivals_ns: array = field(default_factory=lambda: array('q'))
    lost: int = 0

    def note(self, stamp_ns: int, arrival_ns: int) -> None:
        """One message."""
        self.stamps_ns.append(stamp_ns)
        self.arrivals_ns.append(arrival_ns)

    @property
    def rate_hz(self) -> float:
        """Messages a second by their stamps, 0 before the second one."""
        if len(self.stamps_ns) < 2 or self.stamps_ns[-1] <= self.stamps_ns[0]:
            return 0.0
        return (len(self.stamps_ns) - 1) * 1e9 / (self.stamps_ns[-1] - self.stamps_ns[0])

    @property
    def max_gap_ns(self) -> int:
        """The largest step between stamps."""
        return int(np.diff(np.array(self.stamps_ns, np.int64)).max()) if len(self.stamps_ns) > 1 else 0


class FrameStats:
    """Tells brightness and repetition of a camera's frames, one a row."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None

    def note(self, look: np.ndarray) -> tuple[float, bool]:
        """Mean brightness (0 to 255) of the next row's frame, and whether it is the picture of the row before."""
        repeated = self._last is not None and np.array_equal(look, self._last)
        self._last = look
        return float(look.mean()), repeated


@dataclass
class RobotTrace:
    """What robot_status said: commands passed, clipped and refused at its first and last message, and who commanded."""

    counts: list[tuple[int, int, int]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def note(self, status: Any) -> bool:
        """A groot_ros/RobotStatus; returns whether another source commands now."""
        counts = (int(status.accepted), int(status.clipped), int(status.refused))
        self.counts = [*self.counts[:1], counts]
        if not self.sources or self.sources[-1] != status.source:
            self.sources.append(status.source)
            return True
        return False


class EpisodeTrace:
    """Everything that quality/checks.py looks at. `overflows` counts messages that a recorder had no room for."""

    def __init__(self, embodiment: Embodiment, topics: list[str] | None = None) -> None:
        self.embodiment = embodiment
        self.streams = {topic: StreamTrace() for topic in topics or []}
        self.robot = RobotTrace()
        self.overflows = self.regressions = self.extra_frames = self.late = 0
        self._ticks_ns, self._segments, self._filled = array('q'), array('i'), array('b')
        self._states, self._ages_s, self._frame_ages_s, self._commands = (
            array('d'),
            array('d'),
            array('d'),
            array('d'),
        )
        self._brightness, self._repeated = array('d'), array('b')

    def message(self, topic: str, stamp_ns: int, arrival_ns: int) -> None:
        """A message of a topic."""
        self.streams.setdefault(topic, StreamTrace()).note(stamp_ns, arrival_ns)

    def row(self, row: Any) -> None:
        """A groot_ros/Row."""
        self._ticks_ns.append(header_stamp_ns(row))
        self._segments.append(row.segment)
        self._filled.append(row.frame_filled)
        self._states.extend(row.state)
        self._commands.extend(row.commands)
        self._ages_s.extend(row.ages)
        self._frame_ages_s.extend(row.frame_ages)
        self._brightness.extend(row.frame_brightness)
        self._repeated.extend(map(bool, row.frame_repeated))
        self.late += row.late

    @property
    def rows(self) -> int:
        """RowTable so far."""
        return len(self._ticks_ns)

    @property
    def filled(self) -> int:
        """RowTable whose frame stood in for a missing one."""
        return sum(self._filled)

    @property
    def lost(self) -> int:
        """Messages that the middleware or the recorder lost."""
        return self.overflows + sum(stream.lost for stream in self.streams.values())

    @property
    def ticks_ns(self) -> np.ndarray:
        """Ticks (n,)."""
        return np.array(self._ticks_ns, np.int64)

    @property
    def segments(self) -> np.ndarray:
        """Segment of each row (n,)."""
        return np.array(self._segments, np.int64)

    @property
    def filled_rows(self) -> np.ndarray:
        """Whether each row was filled (n,)."""
        return np.array(self._filled, bool)

    @property
    def states(self) -> Array:
        """States (n, D); NaN where a stream was missing."""
        return self._by_row(self._states)

    @property
    def ages_s(self) -> Array:
        """Age of each state field at each tick (n, F)."""
        return self._by_row(self._ages_s)

    @property
    def frame_ages_s(self) -> Array:
        """From each tick to the frame of each camera (n, C)."""
        return self._by_row(self._frame_ages_s)

    @property
    def brightness(self) -> Array:
        """Mean brightness of each camera's frame (n, C), 0 to 255."""
        return self._by_row(self._brightness)

    @property
    def repeated(self) -> np.ndarray:
        """Whether each camera's frame is the picture of the row before (n, C)."""
        return self._by_row(self._repeated).astype(bool)

    @property
    def commands(self) -> Array:
        """Commands in force at each tick (n, A); no columns where the embodiment has none."""
        return self._by_row(self._commands)

    def _by_row(self, values: array) -> Array:
        return np.array(values, float).reshape(self.rows, -1) if self.rows else np.zeros((0, 0))
