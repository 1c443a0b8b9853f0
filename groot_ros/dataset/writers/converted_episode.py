# SPDX-License-Identifier: Apache-2.0
"""A converted episode that has no number in the dataset yet: an Arrow file of its rows, and its videos.

Rows are Arrow columns from here on; a writer maps the file and adds the columns that depend on the number.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from groot_ros.dataset.meta import column_to_array
from groot_ros.dataset.writers.statistics import episode_stats_with_quantiles
from groot_ros.embodiment import ACTION_9D, ACTION_COLUMN, DONE, REWARD, STATE_9D, STATE_COLUMN
from groot_ros.geometry import Array
from groot_ros.sampling.rows import RowTable


@dataclass
class ConvertedEpisode:
    """Episode `number` of the recording that was converted into `folder`.

    `source`, `sha256`, `outcome` and `notes` say where it came from and go into meta/conversion.json; `stats`
    are LeRobot's statistics by column and by camera feature.
    """

    folder: Path
    number: int
    source: str
    sha256: str
    task: str
    outcome: str
    notes: dict[str, Any]
    length: int
    stats: dict[str, Any]

    @property
    def provenance(self) -> dict[str, Any]:
        """The entry of this episode in meta/conversion.json, without its number in the dataset."""
        return {
            'source': self.source,
            'sha256': self.sha256,
            'outcome': self.outcome,
            'notes': self.notes,
        }

    def video_file(self, camera: str) -> Path:
        """Returns the video of a camera."""
        return self.folder / f'{self.number}_{camera}.mp4'

    def write_rows(self, rows: RowTable, fps: float) -> None:
        """Writes the columns that do not depend on the episode's number, and notes their statistics."""
        table = _columns(rows, fps)
        with pa.OSFile(str(self._rows_file), 'wb') as sink, pa.ipc.new_file(sink, table.schema) as file:
            file.write_table(table)
        for name in table.column_names:
            self.stats[name] = episode_stats_with_quantiles(column_to_array(table, name))

    def read_rows(self) -> pa.Table:
        """Returns the columns of `write_rows`, mapped from the file and not copied."""
        return pa.ipc.open_file(pa.memory_map(str(self._rows_file))).read_all()

    @property
    def _rows_file(self) -> Path:
        return self.folder / f'{self.number}.arrow'


def _columns(rows: RowTable, fps: float) -> pa.Table:
    count = len(rows)
    columns = {STATE_COLUMN: _vectors(rows.states), ACTION_COLUMN: _vectors(rows.actions)}
    columns |= {name: _vectors(rows.more[name]) for name in (STATE_9D, ACTION_9D) if name in rows.more}
    columns |= {'timestamp': pa.array(np.arange(count) / fps), 'frame_index': pa.array(np.arange(count))}
    if REWARD in rows.more:
        columns[REWARD] = pa.array(rows.more[REWARD])
        columns[DONE] = pa.array(np.arange(count) == count - 1)
    return pa.table(columns)


def _vectors(values: Array) -> pa.ListArray:
    count, size = values.shape
    offsets = np.arange(count + 1, dtype=np.int32) * size
    return pa.ListArray.from_arrays(offsets, np.ascontiguousarray(values, float).ravel())
