# SPDX-License-Identifier: Apache-2.0
"""The trace of an episode: the numbers that the checks need. Filled while recording, or from a bag."""

from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from groot_ros.embodiment import Embodiment
from groot_ros.geometry import Array
from groot_ros.message_fields import header_stamp_ns


@dataclass
class StreamTrace:
    """Stamp and arrival of each message of a topic in ns, and how many messages were lost."""

    stamps_ns: array = field(default_factory=lambda: array('q'))
    arrivals_ns: array = field(default_factory=lambda: array('q'))
    lost: int = 0

    def add(self, stamp_ns: int, arrival_ns: int) -> None:
        """Adds one message with its stamp and its time of arrival."""
        self.stamps_ns.append(stamp_ns)
        self.arrivals_ns.append(arrival_ns)

    @property
    def rate_hz(self) -> float:
        """Messages per second by their stamps, 0 before the second message."""
        if len(self.stamps_ns) < 2 or self.stamps_ns[-1] <= self.stamps_ns[0]:
            return 0.0
        return (len(self.stamps_ns) - 1) * 1e9 / (self.stamps_ns[-1] - self.stamps_ns[0])

    @property
    def max_gap_ns(self) -> int:
        """The longest step between two stamps in ns, 0 before the second message."""
        if len(self.stamps_ns) < 2:
            return 0
        return int(np.diff(np.array(self.stamps_ns, np.int64)).max())

    @property
    def delays_s(self) -> Array:
        """Time from stamp to arrival of each message (n,) in s."""
        return (np.array(self.arrivals_ns, np.int64) - np.array(self.stamps_ns, np.int64)) / 1e9


class FrameStats:
    """Brightness and repetition of the frames of one camera, one frame per row."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None

    def add(self, thumbnail: np.ndarray) -> tuple[float, bool]:
        """Mean brightness (0 to 255) of the next row's frame, and whether it equals the row before."""
        repeated = self._last is not None and np.array_equal(thumbnail, self._last)
        self._last = thumbnail
        return float(thumbnail.mean()), repeated


@dataclass
class RobotTrace:
    """What robot_status reported.

    `counts` are the commands accepted, clipped and refused at the first and the last message. `sources` are
    the sources that commanded the arm, in order.
    """

    counts: list[tuple[int, int, int]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def add(self, status: Any) -> bool:
        """Adds a groot_ros/RobotStatus; returns whether another source commands now."""
        counts = (int(status.accepted), int(status.clipped), int(status.refused))
        self.counts = [*self.counts[:1], counts]
        if self.sources and self.sources[-1] == status.source:
            return False
        self.sources.append(status.source)
        return True


class EpisodeTrace:
    """All numbers of an episode. `overflows` counts messages that did not fit into the recorder's queue."""

    def __init__(self, embodiment: Embodiment, topics: list[str] | None = None) -> None:
        self.embodiment = embodiment
        self.streams = {topic: StreamTrace() for topic in topics or []}
        self.robot = RobotTrace()
        self.overflows = 0
        self.regressions = 0
        self.extra_frames = 0
        self.late = 0
        self._ticks_ns = array('q')
        self._segments = array('i')
        self._filled = array('b')
        self._states = array('d')
        self._commands = array('d')
        self._ages_s = array('d')
        self._frame_ages_s = array('d')
        self._brightness = array('d')
        self._repeated = array('b')

    @property
    def row_streams(self) -> list[str]:
        """Topics of this trace that rows are made from."""
        return [topic for topic in self.embodiment.required_topics if topic in self.streams]

    def add_message(self, topic: str, stamp_ns: int, arrival_ns: int) -> None:
        """Adds a message of a topic."""
        self.streams.setdefault(topic, StreamTrace()).add(stamp_ns, arrival_ns)

    def add_row(self, row: Any) -> None:
        """Adds a row, given as a groot_ros/Row message."""
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
        """Number of rows so far."""
        return len(self._ticks_ns)

    @property
    def filled(self) -> int:
        """Number of rows whose frame is a copy of the previous one, because none arrived."""
        return sum(self._filled)

    @property
    def lost(self) -> int:
        """Number of messages that the middleware or the recorder lost."""
        return self.overflows + sum(stream.lost for stream in self.streams.values())

    @property
    def ticks_ns(self) -> np.ndarray:
        """Time of each tick (n,) in ns."""
        return np.array(self._ticks_ns, np.int64)

    @property
    def segments(self) -> np.ndarray:
        """Number of the segment of each row (n,): a pause begins a new one."""
        return np.array(self._segments, np.int64)

    @property
    def filled_rows(self) -> np.ndarray:
        """Whether the frame of each row is a copy of the previous one (n,)."""
        return np.array(self._filled, bool)

    @property
    def states(self) -> Array:
        """States (n, D); NaN where a stream was missing."""
        return self._by_row(self._states)

    @property
    def ages_s(self) -> Array:
        """Age of each state field at each tick (n, F) in s."""
        return self._by_row(self._ages_s)

    @property
    def frame_ages_s(self) -> Array:
        """Time from each tick to the frame of each camera (n, C) in s."""
        return self._by_row(self._frame_ages_s)

    @property
    def brightness(self) -> Array:
        """Mean brightness of each camera's frame (n, C), 0 to 255."""
        return self._by_row(self._brightness)

    @property
    def repeated(self) -> np.ndarray:
        """Whether each camera's frame is the image of the row before (n, C)."""
        return self._by_row(self._repeated).astype(bool)

    @property
    def commands(self) -> Array:
        """Commands in force at each tick (n, A); no columns where the embodiment has none."""
        return self._by_row(self._commands)

    def _by_row(self, values: array) -> Array:
        if not self.rows:
            return np.zeros((0, 0))
        return np.array(values, float).reshape(self.rows, -1)
