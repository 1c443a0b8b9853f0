# SPDX-License-Identifier: Apache-2.0
"""A segment: rows without a pause that become one episode of a dataset, and a way to write their videos."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groot_ros.embodiment import CameraField
from groot_ros.sampling.rows import RowTable


@dataclass(kw_only=True)
class Segment(ABC):
    """Rows without a pause between them; `task` is empty if the source names none."""

    rows: RowTable
    task: str = ''
    outcome: str = 'success'
    notes: dict[str, Any] = field(default_factory=dict)

    def last_start(self, row: int) -> int:
        """Returns the last row up to `row` at which the videos can begin without encoding them again."""
        return row

    @abstractmethod
    def write_video(self, camera: CameraField, path: Path, first: int, count: int) -> int:
        """Writes a camera's frames of `count` rows from `first` on, and returns how many there were."""
