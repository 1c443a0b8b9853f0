# SPDX-License-Identifier: Apache-2.0
"""What a check finds, and what checks know of an episode; shared by all modules of validation."""

from dataclasses import dataclass

import numpy as np

ERROR = 'error'
WARNING = 'warning'


@dataclass
class ValidationFinding:
    """One fault: where it is, what it is, and how to correct it."""

    severity: str
    file: str
    problem: str
    remedy: str
    row: int | None = None

    def __str__(self) -> str:
        place = self.file if self.row is None else f'{self.file} row {self.row}'
        return f'{self.severity}: {place}: {self.problem}; {self.remedy}'


@dataclass
class EpisodeColumns:
    """An episode for later checks: its file, its numeric columns (n, D) by name, and sizes of its videos."""

    file: str
    rows: int
    columns: dict[str, np.ndarray]
    video_shapes: dict[str, tuple[int, int]]
