# SPDX-License-Identifier: Apache-2.0
"""One camera's videos while a bag is read, a file for each segment. Both ways to read a bag use it."""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from groot_ros.video.mp4 import Mp4Copier, Mp4Encoder

OpenVideo = Callable[[Path], Mp4Copier | Mp4Encoder]


class VideoSink:
    """Takes one frame a tick, of all segments in turn; `videos` and `frames` have an entry for each segment.

    A frame is written when the next one of its segment comes, since the last tick of a segment has no row.
    """

    def __init__(self, prefix: Path, open_video: OpenVideo) -> None:
        self.videos: list[Path] = []
        self.frames: list[int] = []
        self._prefix = prefix
        self._open_video = open_video
        self._count = 0
        self._ends: deque[int] = deque()
        self._open_file()

    def add(self, frame: Any) -> None:
        """Takes the frame, or its access unit, of the next tick."""
        while self._ends and self._count == self._ends[0]:
            self._ends.popleft()
            self._close_file()
            self._open_file()
        if self._waiting is not None:
            self._writer.add(self._waiting)
        self._waiting = frame
        self._count += 1

    def end_segment_at(self, ticks: int) -> None:
        """Notes a pause after `ticks` ticks of the bag; the frames of the last ones may come later."""
        self._ends.append(ticks)

    def close(self) -> None:
        """Ends the file of the last segment."""
        self._close_file()

    def _open_file(self) -> None:
        self.videos.append(self._prefix.with_name(f'{self._prefix.name}_{len(self.videos)}.mp4'))
        self._writer: Any = self._open_video(self.videos[-1])
        self._waiting: Any = None

    def _close_file(self) -> None:
        self.frames.append(self._writer.frames)
        self._writer.close()
