# SPDX-License-Identifier: Apache-2.0
"""What the writers of LeRobot v2.1 and v3.0 have in common: numbers, tasks, columns, and a dataset that stands whole or not at all."""

import contextlib
import os
import shutil
from abc import ABC, abstractmethod
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from groot_ros.dataset.convert_source import ConvertedEpisode
from groot_ros.dataset.writers.features import INVALID, VALID, modality, write_json
from groot_ros.dataset.writers.statistics import fingerprints, relative_statistics, statistics
from groot_ros.embodiment import ACTION_9D, ACTION_COLUMN, DONE, REWARD, STATE_9D, STATE_COLUMN, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array

RELEASES_WITH_FINGERPRINTS, RELEASES_WITH_RELATIVE = ('n1.7',), ('n1.6', 'n1.7')


class OutputMode(StrEnum):
    """What to do with a dataset that stands at the output."""

    REFUSE = 'refuse'
    APPEND = 'append'
    OVERWRITE = 'overwrite'


class DatasetWriter(ABC):
    """Add episodes, then `finish`. Nothing changes at `root` before that; `abandon` leaves no trace.

    A writer that is neither finished nor abandoned leaves `parts` for the next one. `known` are the fingerprints of what the
    dataset holds already. Raises GrootRosError where `root` exists and is neither to be extended nor replaced.
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
        self.root, self.embodiment, self.codec = root, embodiment, codec
        self._release, self._horizon = gr00t_version, horizon
        self._partial = root.with_name(f'.{root.name}.partial')
        self._before = root.with_name(f'.{root.name}.before')
        self.parts = self._partial / 'parts'
        self._put_back()
        if root.exists() and existing is OutputMode.REFUSE:
            raise GrootRosError(
                f'{root} exists already: choose another --output, extend it with --append, or replace it with --overwrite.'
            )
        if root.exists() and not (root / 'meta/info.json').is_file():
            raise GrootRosError(f'{root} is no dataset, and is left as it is: choose another --output.')
        try:
            for left in self._partial.glob('*'):
                if left != self.parts:
                    shutil.rmtree(left)
            (self._partial / 'meta').mkdir(parents=True)
        except OSError as error:
            raise GrootRosError(
                f'The dataset cannot be written to {root.parent} ({error.strerror}): choose another --output.'
            ) from error
        self.known: set[str] = set()
        self.tasks: dict[str, int] = {}
        self.provenance: list[dict[str, Any]] = []
        self.lengths: list[int] = []
        self._columns: dict[str, list[Array]] = {}
        if root.exists() and existing is OutputMode.APPEND:
            try:
                self._extend()
            except GrootRosError:
                self.abandon()
                raise

    @property
    def episodes(self) -> int:
        """Episodes so far, those of a dataset that is extended among them."""
        return len(self.lengths)

    @property
    def rows(self) -> int:
        """RowTable so far."""
        return sum(self.lengths)

    def add_episode(self, part: ConvertedEpisode) -> None:
        """Takes the next episode, and links its videos to their place."""
        # An interrupted or recovered demonstration may break off anywhere: only a success is called valid.
        validity = VALID if part.provenance.outcome == 'success' else INVALID
        table = self._table(part, self._task_index(part.task), self._task_index(validity))
        self._write_episode(part, table, [part.task, validity])
        self.note_columns(
            {name: part.rows.more[name] for name in (STATE_9D, ACTION_9D, REWARD) if name in part.rows.more}
        )
        self.note_columns(
            {
                STATE_COLUMN: part.rows.states,
                ACTION_COLUMN: part.rows.actions,
                'timestamp': table['timestamp'].to_numpy(),
            }
        )
        self.provenance.append({'episode_index': self.episodes, **vars(part.provenance)})
        self.lengths.append(table.num_rows)

    def finish(self) -> Path:
        """Writes meta/ and moves the dataset to its place."""
        if not self.lengths:
            raise GrootRosError('No episode was converted: there is nothing to write.')
        meta = self._partial / 'meta'
        self._write_meta(meta)
        write_json(meta / 'modality.json', modality(self.embodiment))
        write_json(
            meta / 'conversion.json',
            {'embodiment': self.embodiment.values(), 'episodes': self.provenance},
        )
        shutil.rmtree(self.parts, ignore_errors=True)
        if self.root.exists():
            self.root.rename(self._before)
        self._partial.rename(self.root)
        shutil.rmtree(self._before, ignore_errors=True)
        return self.root

    def abandon(self) -> None:
        """Removes what was written; a dataset that stood at `root` stays."""
        shutil.rmtree(self._partial, ignore_errors=True)

    @abstractmethod
    def _write_episode(self, part: ConvertedEpisode, table: pa.Table, tasks: list[str]) -> None:
        """Puts an episode, with the number `episodes`, into files or on a list."""

    @abstractmethod
    def _write_meta(self, meta: Path) -> None:
        """Writes everything of meta/ that the versions do not share."""

    @abstractmethod
    def _extend(self) -> None:
        """Takes over the dataset at `root`. Raises GrootRosError where its rows are others."""

    def note_columns(self, columns: dict[str, Array]) -> None:
        """Numbers that statistics are made of, in float32 as GR00T does it."""
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(np.asarray(values, np.float32))

    def gr00t_statistics(self, features: dict[str, Any]) -> dict[str, Any]:
        """stats.json of GR00T, over all rows."""
        found: dict[str, Any] = {
            name: statistics(np.concatenate(values)) for name, values in self._columns.items()
        }
        if self._release in RELEASES_WITH_FINGERPRINTS:
            found['__fingerprints__'] = fingerprints(features)
        return found

    def relative_statistics(self) -> dict[str, Any] | None:
        """relative_stats.json of GR00T, where the release wants it and the rows have absolute poses."""
        if self._release not in RELEASES_WITH_RELATIVE or not self.embodiment.eef_9d:
            return None
        pairs = zip(self._columns[STATE_9D], self._columns[ACTION_9D], strict=True)
        return relative_statistics(list(pairs), self._horizon, self._release in RELEASES_WITH_FINGERPRINTS)

    def _put_back(self) -> None:
        """A run that was killed between its two last renames left the dataset under another name."""
        if self._before.exists() and not self.root.exists():
            self._before.rename(self.root)
        shutil.rmtree(self._before, ignore_errors=True)

    def _task_index(self, text: str) -> int:
        return self.tasks.setdefault(text, len(self.tasks))

    def _table(self, part: ConvertedEpisode, task_index: int, validity_index: int) -> pa.Table:
        rows, count, annotation = part.rows, len(part.rows), self.embodiment.annotation
        constants = {
            f'annotation.{annotation.task}': task_index, f'annotation.{annotation.validity}': validity_index,
            'task_index': task_index, 'episode_index': self.episodes,
        }  # fmt: skip
        poses = {name: rows.more[name] for name in (STATE_9D, ACTION_9D) if name in rows.more}
        vectors = {STATE_COLUMN: rows.states, ACTION_COLUMN: rows.actions, **poses}
        outcome = (
            {REWARD: rows.more[REWARD], DONE: np.arange(count) == count - 1} if REWARD in rows.more else {}
        )
        return pa.table({
            **{name: pa.array(list(values), pa.list_(pa.float64())) for name, values in vectors.items()},
            'timestamp': np.arange(count) / self.embodiment.fps,
            'frame_index': np.arange(count),
            'index': np.arange(self.rows, self.rows + count),
            **outcome,
            **{name: np.full(count, value) for name, value in constants.items()},
        })  # fmt: skip


def link(file: Path, place: Path) -> None:
    """The file under a second name; file systems without hard links, as of a USB disk, take a copy."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        place.unlink()
    try:
        os.link(file, place)
    except OSError:
        shutil.copy2(file, place)


def column_to_array(table: pa.Table, name: str) -> Array:
    """A column of numbers or of vectors of one length, (n,) or (n, size)."""
    column = table[name].combine_chunks()
    if not pa.types.is_list(column.type) and not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy(zero_copy_only=False)
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
