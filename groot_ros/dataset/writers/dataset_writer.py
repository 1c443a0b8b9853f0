# SPDX-License-Identifier: Apache-2.0
"""What all writers share: numbers, tasks, columns, and a dataset that appears whole or not at all."""

import contextlib
import os
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from groot_ros.dataset.meta import column_to_array
from groot_ros.dataset.options import OutputMode
from groot_ros.dataset.writers.converted_episode import ConvertedEpisode
from groot_ros.dataset.writers.features import INVALID, VALID, modality, write_json
from groot_ros.dataset.writers.statistics import fingerprints, relative_statistics, statistics
from groot_ros.embodiment import ACTION_9D, ACTION_COLUMN, REWARD, STATE_9D, STATE_COLUMN, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array

_VERSIONS_WITH_FINGERPRINTS = ('n1.7',)
_VERSIONS_WITH_RELATIVE = ('n1.6', 'n1.7')
_FLOAT_COLUMNS = (STATE_9D, ACTION_9D, REWARD, STATE_COLUMN, ACTION_COLUMN, 'timestamp')


class DatasetWriter(ABC):
    """Add episodes, then `finish`. Nothing changes at `root` before that; `abandon` leaves no trace.

    A writer that is neither finished nor abandoned leaves the folder `parts` for the next one. `known` are
    the fingerprints of what the dataset already has. Raises GrootRosError if `root` exists and is neither to
    be extended nor replaced.
    """

    def __init__(
        self,
        root: Path,
        embodiment: Embodiment,
        codec: str,
        existing: OutputMode = OutputMode.REFUSE,
        gr00t_version: str = '',
        horizon: int = 16,
    ) -> None:
        self.root = root
        self.embodiment = embodiment
        self.codec = codec
        self.known: set[str] = set()
        self.tasks: dict[str, int] = {}
        self.provenance: list[dict[str, Any]] = []
        self.lengths: list[int] = []
        self._gr00t_version = gr00t_version
        self._horizon = horizon
        self._columns: dict[str, list[Array]] = {}
        self._partial = root.with_name(f'.{root.name}.partial')
        self._previous = root.with_name(f'.{root.name}.before')
        self.parts = self._partial / 'parts'
        self._restore_previous()
        self._check_output(existing)
        self._make_partial()
        if root.exists() and existing is OutputMode.APPEND:
            try:
                self._extend()
            except GrootRosError:
                self.abandon()
                raise

    @property
    def episodes(self) -> int:
        """The number of episodes so far, including those of a dataset that is extended."""
        return len(self.lengths)

    @property
    def rows(self) -> int:
        """The number of rows so far."""
        return sum(self.lengths)

    def add_episode(self, episode: ConvertedEpisode) -> None:
        """Takes the next episode, gives it its number, and links its videos to their place."""
        # An interrupted or recovered demonstration may break off anywhere: only a success is called valid.
        validity = VALID if episode.outcome == 'success' else INVALID
        table = self._numbered_table(
            episode.read_rows(), self._task_index(episode.task), self._task_index(validity)
        )
        self._write_episode(episode, table)
        self._collect_columns(table)
        self.provenance.append({'episode_index': self.episodes, **episode.provenance})
        self.lengths.append(table.num_rows)

    def finish(self) -> Path:
        """Writes meta/ and moves the dataset to its place. Raises GrootRosError if there is no episode."""
        if not self.lengths:
            raise GrootRosError('No episode was converted: there is nothing to write.')
        meta = self._partial / 'meta'
        self._write_meta(meta)
        write_json(meta / 'modality.json', modality(self.embodiment))
        conversion = {'embodiment': self.embodiment.values(), 'episodes': self.provenance}
        write_json(meta / 'conversion.json', conversion)
        shutil.rmtree(self.parts, ignore_errors=True)
        if self.root.exists():
            self.root.rename(self._previous)
        self._partial.rename(self.root)
        shutil.rmtree(self._previous, ignore_errors=True)
        return self.root

    def abandon(self) -> None:
        """Removes what was written; a dataset that was at `root` before stays."""
        shutil.rmtree(self._partial, ignore_errors=True)

    @abstractmethod
    def _write_episode(self, episode: ConvertedEpisode, table: pa.Table) -> None:
        """Writes the episode with the number `episodes` into files, or keeps it for `_write_meta`."""

    @abstractmethod
    def _write_meta(self, meta: Path) -> None:
        """Writes everything of meta/ that the formats do not share."""

    @abstractmethod
    def _extend(self) -> None:
        """Takes over the dataset at `root`. Raises GrootRosError if its rows have another form."""

    def _collect_columns(self, table: pa.Table) -> None:
        """Keeps the numbers that statistics are made of, in float32 as GR00T computes them."""
        for name in _FLOAT_COLUMNS:
            if name in table.column_names:
                values = np.asarray(column_to_array(table, name), np.float32)
                self._columns.setdefault(name, []).append(values)

    def _gr00t_statistics(self, features: dict[str, Any]) -> dict[str, Any]:
        """GR00T's stats.json, over all rows."""
        stats: dict[str, Any] = {}
        for name, values in self._columns.items():
            stats[name] = statistics(np.concatenate(values))
        if self._gr00t_version in _VERSIONS_WITH_FINGERPRINTS:
            stats['__fingerprints__'] = fingerprints(features)
        return stats

    def _relative_statistics(self) -> dict[str, Any] | None:
        """GR00T's relative_stats.json, if its version wants it and the rows have absolute poses."""
        if self._gr00t_version not in _VERSIONS_WITH_RELATIVE or not self.embodiment.eef_9d:
            return None
        pairs = list(zip(self._columns[STATE_9D], self._columns[ACTION_9D], strict=True))
        with_fingerprint = self._gr00t_version in _VERSIONS_WITH_FINGERPRINTS
        return relative_statistics(pairs, self._horizon, with_fingerprint)

    def _restore_previous(self) -> None:
        """A run that was killed between its two last renames left the dataset under another name."""
        if self._previous.exists() and not self.root.exists():
            self._previous.rename(self.root)
        shutil.rmtree(self._previous, ignore_errors=True)

    def _check_output(self, existing: OutputMode) -> None:
        if self.root.exists() and existing is OutputMode.REFUSE:
            raise GrootRosError(
                f'{self.root} exists already: choose another --output, extend it with --append, '
                'or replace it with --overwrite.'
            )
        if self.root.exists() and not (self.root / 'meta/info.json').is_file():
            raise GrootRosError(f'{self.root} is no dataset, and is left as it is: choose another --output.')

    def _make_partial(self) -> None:
        try:
            for left in self._partial.glob('*'):
                if left != self.parts:
                    shutil.rmtree(left)
            (self._partial / 'meta').mkdir(parents=True)
        except OSError as error:
            raise GrootRosError(
                f'The dataset cannot be written to {self.root.parent} ({error.strerror}): '
                'choose another --output.'
            ) from error

    def _task_index(self, text: str) -> int:
        return self.tasks.setdefault(text, len(self.tasks))

    def _numbered_table(self, rows: pa.Table, task_index: int, validity_index: int) -> pa.Table:
        """Adds the columns that depend on the episode's number and on the tasks of the dataset."""
        annotation = self.embodiment.annotation
        constants = {
            f'annotation.{annotation.task}': task_index,
            f'annotation.{annotation.validity}': validity_index,
            'task_index': task_index,
            'episode_index': self.episodes,
        }
        index = np.arange(self.rows, self.rows + len(rows))
        table = rows.add_column(rows.column_names.index('frame_index') + 1, 'index', pa.array(index))
        for name, value in constants.items():
            table = table.append_column(name, pa.array(np.full(len(rows), value)))
        return table


def link(file: Path, place: Path) -> None:
    """Gives a file a second name; file systems without hard links, such as that of a USB disk, get a copy."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        place.unlink()
    try:
        os.link(file, place)
    except OSError:
        shutil.copy2(file, place)
