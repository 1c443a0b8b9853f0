# SPDX-License-Identifier: Apache-2.0
"""The one reader of a dataset: meta/ and the rows and videos that it names, of LeRobot v2.0, v2.1 and v3.0.

Replay, evaluation, reports, validation, --append and LeRobot datasets as a source all use it.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array


class DatasetMeta:
    """What meta/ says; files are read when they are first needed.

    Each property and method raises GrootRosError naming the file that is missing or damaged.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def info(self) -> dict[str, Any]:
        """info.json: version, rate, features, paths."""
        return self._json('info.json')

    @cached_property
    def modality(self) -> dict[str, Any]:
        """modality.json: which slices of the columns GR00T takes under which names."""
        return self._json('modality.json')

    @cached_property
    def stats(self) -> dict[str, Any]:
        """stats.json: min, max, mean, std and quantiles of each feature."""
        return self._json('stats.json')

    @cached_property
    def conversion(self) -> dict[str, Any]:
        """conversion.json, which only our converter writes: the embodiment and the source of each episode."""
        return self._json('conversion.json')

    @cached_property
    def episodes(self) -> list[dict[str, Any]]:
        """A record for each episode: episode_index, tasks, length; in v3.0 also the places of its files."""
        if self.is_v3:
            return self._parquet('episodes')
        return self._lines('episodes.jsonl')

    @cached_property
    def episode_stats(self) -> list[dict[str, Any]]:
        """episodes_stats.jsonl of v2.1: a record of statistics for each episode."""
        return self._lines('episodes_stats.jsonl')

    @cached_property
    def tasks(self) -> dict[int, str]:
        """The text of each task by its index."""
        records = self._parquet('tasks.parquet') if self.is_v3 else self._lines('tasks.jsonl')
        try:
            return {record['task_index']: record['task'] for record in records}
        except (KeyError, TypeError) as error:
            raise GrootRosError(f'The tasks of the dataset {self.root} have no {error}.') from error

    @property
    def is_v3(self) -> bool:
        """Whether the dataset is v3.0, with many episodes in a file."""
        return str(self.info.get('codebase_version', '')).startswith('v3')

    @property
    def fps(self) -> float:
        """Rows a second, 0 if info.json does not say."""
        return float(self.info.get('fps') or 0)

    def episode(self, index: int) -> dict[str, Any]:
        """Returns the record of an episode, by its episode_index. Raises GrootRosError if there is none."""
        for record in self.episodes:
            if record.get('episode_index') == index:
                return record
        raise GrootRosError(
            f'{self.root} has no episode {index}: it has {len(self.episodes)}, counted from 0.'
        )

    def data_file(self, index: int) -> Path:
        """Returns the parquet file with the rows of an episode."""
        return self._path('data_path', index, 'data', {})

    def video_file(self, feature: str, index: int) -> Path:
        """Returns the video with the frames of an episode and of a camera's feature."""
        return self._path('video_path', index, f'videos/{feature}', {'video_key': feature})

    def first_frame(self, feature: str, index: int) -> int:
        """Returns the position of an episode's first frame in its video; in v3.0 episodes share videos."""
        if not self.is_v3:
            return 0
        return round(self.episode(index)[f'videos/{feature}/from_timestamp'] * self.fps)

    def rows(self, index: int, columns: list[str] | None = None) -> pa.Table:
        """Returns the rows of an episode as its file has them, all columns or those named.

        `column_to_array` gives the numbers of a column.
        """
        self.episode(index)
        file = self.data_file(index)
        filters = [('episode_index', '=', index)] if self.is_v3 else None
        try:
            return pq.read_table(file, columns=columns, filters=filters)
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise GrootRosError(
                f'Episode {index} of {self.root} cannot be read from {file.name} ({reason}).'
            ) from error

    def _path(self, key: str, index: int, folder: str, names: dict[str, str]) -> Path:
        try:
            if self.is_v3:
                record = self.episode(index)
                numbers = {name: record[f'{folder}/{name}'] for name in ('chunk_index', 'file_index')}
            else:
                chunk = index // int(self.info.get('chunks_size', 1000))
                numbers = {'episode_chunk': chunk, 'episode_index': index}
            return path_inside(self.root, self.info[key].format(**numbers, **names))
        except (KeyError, ValueError, TypeError) as error:
            raise GrootRosError(
                f'{key} in {self.root}/meta/info.json cannot be used for episode {index} ({error}).'
            ) from error

    def _json(self, name: str) -> dict[str, Any]:
        path = self.root / 'meta' / name
        try:
            return read_json(path)
        except (OSError, ValueError) as error:
            raise GrootRosError(
                f'{self.root} is not a dataset, or is damaged: its meta/{name} cannot be read ({error}).'
            ) from error

    def _lines(self, name: str) -> list[dict[str, Any]]:
        try:
            records, problems = read_records(self.root / 'meta' / name)
        except OSError as error:
            problems = [str(error)]
        if problems:
            raise GrootRosError(f'meta/{name} of the dataset {self.root} cannot be read: {problems[0]}.')
        return records

    def _parquet(self, name: str) -> list[dict[str, Any]]:
        try:
            return pq.read_table(self.root / 'meta' / name).to_pylist()
        except (OSError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise GrootRosError(
                f'meta/{name} of the dataset {self.root} cannot be read: {reason}.'
            ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file. Raises OSError, or ValueError if it is something else."""
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise ValueError('it is not a JSON object')
    return content


def read_records(path: Path, keys: tuple[str, ...] = ()) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the records of a JSON lines file that have some keys, and the problem of each other line.

    Raises OSError if there is no such file.
    """
    records: list[dict[str, Any]] = []
    problems: list[str] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            problems.append(f'line {number} is blank, at which the loader stops')
            continue
        try:
            record = json.loads(line)
            missing = [key for key in keys if key not in record]
        except (ValueError, TypeError) as error:
            problems.append(f'line {number} is not a record ({error})')
            continue
        if missing:
            problems.append(f'line {number} is not a record ({", ".join(missing)} missing)')
        else:
            records.append(record)
    return records, problems


def path_inside(root: Path, file: str) -> Path:
    """Returns the path of a file that a dataset names. Raises ValueError if it is outside of the dataset."""
    path = (root / file).resolve()
    if not path.is_relative_to(root.resolve()):
        raise ValueError(f'{file} is outside of the dataset')
    return path


def column_to_array(table: pa.Table, name: str) -> Array:
    """Returns a column of numbers (n,), or of vectors of one length (n, size).

    Raises ValueError for vectors of different lengths.
    """
    column = table[name].combine_chunks()
    if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        numbers = column.flatten().to_numpy(zero_copy_only=False)
        lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) > 1:
            raise ValueError(f'the vectors of {name} differ in length')
        return numbers.reshape(len(column), -1)
    return column.to_numpy(zero_copy_only=False)
