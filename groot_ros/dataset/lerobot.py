"""Writes a LeRobot v2.1 dataset for GR00T: into a folder beside its target, which is renamed when all is done."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from groot_ros.dataset.layout import INVALID, VALID, data_file, info, modality, video_file, write_json, write_jsonl
from groot_ros.dataset.parts import PartEpisode
from groot_ros.dataset.statistics import episode_statistics, statistics
from groot_ros.embodiment import Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.rows import Rows


class DatasetWriter:
    """Add episodes, then `finish`. Nothing stands at `root` before that; `abandon` leaves no trace.

    A writer that is neither finished nor abandoned leaves `parts` for the next one.
    """

    def __init__(self, root: Path, embodiment: Embodiment) -> None:
        if root.exists():
            raise GrootRosError(f'{root} exists already: choose another --output, or delete it first.')
        self.root, self.embodiment = root, embodiment
        self._partial = root.with_name(f'.{root.name}.partial')
        self.parts = self._partial / 'parts'
        try:
            for left in self._partial.glob('*'):
                if left != self.parts:
                    shutil.rmtree(left)
            (self._partial / 'meta').mkdir(parents=True)
        except OSError as error:
            raise GrootRosError(f'The dataset cannot be written to {root.parent} ({error.strerror}): choose another --output.') from error
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._statistics: list[dict[str, Any]] = []
        self._provenance: list[dict[str, Any]] = []
        self._rows = 0
        self._columns: dict[str, list[np.ndarray]] = {'observation.state': [], 'action': [], 'timestamp': []}

    @property
    def episodes(self) -> int:
        """Episodes added so far."""
        return len(self._episodes)

    def add_episode(self, part: PartEpisode) -> None:
        """Writes the rows of the next episode, and moves its videos to their place."""
        rows, count, episode = part.rows, len(part.rows.states), self.episodes
        for feature, video in part.videos.items():
            place = video_file(self._partial, feature, episode)
            place.parent.mkdir(parents=True, exist_ok=True)
            _link(video, place)
        # An interrupted or recovered demonstration may break off anywhere: only a success is called valid.
        validity = VALID if part.provenance.outcome == 'success' else INVALID
        task_index, validity_index = self._task_index(part.task), self._task_index(validity)
        timestamps = np.arange(count) / self.embodiment.fps
        table = self._table(rows, timestamps, task_index, validity_index)
        path = data_file(self._partial, episode)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        for name, values in zip(self._columns, (rows.states, rows.actions, timestamps), strict=True):
            self._columns[name].append(values.astype(np.float32))
        self._statistics.append(self._episode_statistics(table, part))
        self._episodes.append({'episode_index': episode, 'tasks': [part.task, validity], 'length': count})
        self._provenance.append({'episode_index': episode, **vars(part.provenance)})
        self._rows += count

    def finish(self) -> Path:
        """Writes meta/ and moves the dataset to its place."""
        if not self._episodes:
            raise GrootRosError('No episode was converted: there is nothing to write.')
        meta = self._partial / 'meta'
        write_json(meta / 'info.json', info(self.embodiment, self.episodes, self._rows, len(self._tasks)))
        write_json(meta / 'modality.json', modality(self.embodiment))
        write_json(meta / 'stats.json', {name: statistics(np.concatenate(values)) for name, values in self._columns.items()})
        write_json(meta / 'conversion.json', {'embodiment': self.embodiment.model_dump(mode='json'), 'episodes': self._provenance})
        write_jsonl(meta / 'tasks.jsonl', [{'task_index': index, 'task': task} for task, index in self._tasks.items()])
        write_jsonl(meta / 'episodes.jsonl', self._episodes)
        write_jsonl(meta / 'episodes_stats.jsonl', self._statistics)
        shutil.rmtree(self.parts, ignore_errors=True)
        self._partial.rename(self.root)
        return self.root

    def abandon(self) -> None:
        """Removes what was written."""
        shutil.rmtree(self._partial, ignore_errors=True)

    def _episode_statistics(self, table: pa.Table, part: PartEpisode) -> dict[str, Any]:
        vectors = {'observation.state': part.rows.states, 'action': part.rows.actions}
        columns = {name: vectors[name] if name in vectors else table[name].to_numpy() for name in table.column_names}
        return {'episode_index': self.episodes, 'stats': {**part.pictures, **{name: episode_statistics(values) for name, values in columns.items()}}}

    def _task_index(self, text: str) -> int:
        return self._tasks.setdefault(text, len(self._tasks))

    def _table(self, rows: Rows, timestamps: np.ndarray, task_index: int, validity_index: int) -> pa.Table:
        count = len(rows.states)
        annotation = self.embodiment.annotation
        constants = {
            f'annotation.{annotation.task}': task_index, f'annotation.{annotation.validity}': validity_index,
            'task_index': task_index, 'episode_index': self.episodes,
        }  # fmt: skip
        return pa.table({
            'observation.state': pa.array(list(rows.states), pa.list_(pa.float64())),
            'action': pa.array(list(rows.actions), pa.list_(pa.float64())),
            'timestamp': timestamps,
            'frame_index': np.arange(count),
            'index': np.arange(self._rows, self._rows + count),
            **{name: np.full(count, value) for name, value in constants.items()},
        })  # fmt: skip


def _link(video: Path, place: Path) -> None:
    """The part keeps its file, should this run be interrupted; file systems without hard links, as of a USB disk, take a copy."""
    try:
        os.link(video, place)
    except OSError:
        shutil.copy2(video, place)
