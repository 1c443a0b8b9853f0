# SPDX-License-Identifier: Apache-2.0
"""What a check found, and what checks need to know of an episode: shared by the modules that validate."""

from dataclasses import dataclass

import numpy as np

ERROR, WARNING = 'error', 'warning'


@dataclass
class Finding:
    """One fault: where it is, what it is, and how it is mended."""

    severity: str
    file: str
    problem: str
    mending: str
    row: int | None = None

    def __str__(self) -> str:
        place = self.file if self.row is None else f'{self.file} row {self.row}'
        return f'{self.severity}: {place}: {self.problem}; {self.mending}'


@dataclass
class EpisodeColumns:
    """What later checks need of an episode: its file and its numeric columns by name, (n, D) each."""

    file: str
    rows: int
    columns: dict[str, np.ndarray]
    video_shapes: dict[str, tuple[int, int]]
