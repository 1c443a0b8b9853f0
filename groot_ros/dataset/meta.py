# SPDX-License-Identifier: Apache-2.0
"""The one reader of a dataset: meta/ and the rows and videos that it names, of LeRobot v2.0, v2.1 and v3.0.

Replay, evaluation, reports, validation, --append and LeRobot datasets as a source all use it.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel

from groot_ros.config_files import parse_json, read_text
from groot_ros.dataset.meta_models import (
    Conversion,
    EpisodeRecord,
    EpisodeStatistics,
    Info,
    ModalityFile,
    Statistics,
    TaskRecord,
    problem_of,
)
from groot_ros.dataset.parquet_pages import check_pages
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array

# Far more than datasets of years have, and less than the memory of a laptop.
_MAX_JSON_BYTES = 256 << 20
_MAX_VALUES = 100_000_000
_PANDAS_INDEX = '__index_level_0__'
_MAX_TEXT_BYTES = 256 << 20
# A batch that is measured needs at most this part of it.
_BATCHES = 8


class DatasetMeta:
    """What meta/ says; files are read and checked when they are first needed.

    Each property and method raises GrootRosError naming the file that is missing or damaged.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def info(self) -> dict[str, Any]:
        """info.json: version, rate, features, paths."""
        return self._json('info.json', Info)

    @cached_property
    def modality(self) -> dict[str, Any]:
        """modality.json: which slices of the columns GR00T takes under which names."""
        return self._json('modality.json', ModalityFile)

    @cached_property
    def stats(self) -> dict[str, Any]:
        """stats.json: min, max, mean, std and quantiles of each feature."""
        return self._json('stats.json', Statistics)

    @cached_property
    def conversion(self) -> dict[str, Any]:
        """conversion.json, which only our converter writes: the embodiment and the source of each episode."""
        return self._json('conversion.json', Conversion)

    @cached_property
    def episodes(self) -> list[dict[str, Any]]:
        """A record for each episode: episode_index, tasks, length; in v3.0 also the places of its files."""
        if self.is_v3:
            return self._parquet('episodes', EpisodeRecord)
        return self._lines('episodes.jsonl', EpisodeRecord)

    @cached_property
    def _episodes_by_index(self) -> dict[int, dict[str, Any]]:
        """The first record of each episode_index."""
        return {record['episode_index']: record for record in reversed(self.episodes)}

    @cached_property
    def episode_stats(self) -> list[dict[str, Any]]:
        """episodes_stats.jsonl of v2.1: a record of statistics for each episode."""
        return self._lines('episodes_stats.jsonl', EpisodeStatistics)

    @cached_property
    def tasks(self) -> dict[int, str]:
        """The text of each task by its index."""
        if self.is_v3:
            records = self._parquet('tasks.parquet', TaskRecord)
        else:
            records = self._lines('tasks.jsonl', TaskRecord)
        return {record['task_index']: record['task'] for record in records}

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
        if index in self._episodes_by_index:
            return self._episodes_by_index[index]
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
        return round(self.video_start_s(feature, index) * self.fps)

    def video_start_s(self, feature: str, index: int) -> float:
        """Returns the time of an episode's first frame in its video, in s."""
        if not self.is_v3:
            return 0.0
        key = f'videos/{feature}/from_timestamp'
        began_s = seconds_of(self.episode(index).get(key))
        if began_s is None or not 0 <= began_s <= _MAX_VALUES:
            raise GrootRosError(f'Episode {index} of {self.root} has no usable {key} in meta/episodes.')
        return began_s

    def rows(self, index: int, columns: list[str] | None = None) -> pa.Table:
        """Returns the rows of an episode as its file has them, all columns or those named.

        `column_to_array` gives the numbers of a column.
        """
        self.episode(index)
        file = self.data_file(index)
        filters = [('episode_index', '=', index)] if self.is_v3 else None
        try:
            return read_parquet(file, columns, filters)
        except ValueError as error:
            reason = str(error)
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

    def _json(self, name: str, model: type[BaseModel]) -> dict[str, Any]:
        path = self.root / 'meta' / name
        try:
            content = read_json(path)
        except (OSError, ValueError) as error:
            raise GrootRosError(
                f'{self.root} is not a dataset, or is damaged: its meta/{name} cannot be read ({error}).'
            ) from error
        if problem := problem_of(model, content):
            raise GrootRosError(f'The dataset {self.root} is damaged: in its meta/{name}, {problem}.')
        return content

    def _lines(self, name: str, model: type[BaseModel]) -> list[dict[str, Any]]:
        try:
            records, problems = read_records(self.root / 'meta' / name, model)
        except (OSError, ValueError) as error:
            problems = [str(error)]
        if problems:
            raise GrootRosError(f'meta/{name} of the dataset {self.root} cannot be read: {problems[0]}.')
        return records

    def _parquet(self, name: str, model: type[BaseModel]) -> list[dict[str, Any]]:
        place = self.root / 'meta' / name
        files = sorted(place.rglob('*.parquet')) if place.is_dir() else [place]
        try:
            records = [record for file in files for record in _read_records_of(file)]
            problems = (problem_of(model, record) for record in records)
            if problem := next(filter(None, problems), ''):
                raise ValueError(problem)
        except ValueError as error:
            raise GrootRosError(f'meta/{name} of the dataset {self.root} cannot be read: {error}.') from error
        return records


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file. Raises OSError, or ValueError if it is something else."""
    content = parse_json(read_text(path, _MAX_JSON_BYTES))
    if not isinstance(content, dict):
        raise ValueError('it is not a JSON object')
    return content


def read_records(path: Path, model: type[BaseModel]) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the records of a JSON lines file that fit a model, and the problem of each other line.

    Raises OSError if there is no such file, ValueError if it is no text.
    """
    records: list[dict[str, Any]] = []
    problems: list[str] = []
    for number, line in enumerate(read_text(path, _MAX_JSON_BYTES).splitlines(), 1):
        if not line.strip():
            problems.append(f'line {number} is blank, at which the loader stops')
            continue
        try:
            record = parse_json(line)
            problem = problem_of(model, record)
        except ValueError as error:
            problem = str(error)
        if problem:
            problems.append(f'line {number} is not a record ({problem})')
        else:
            records.append(record)
    return records, problems


def seconds_of(value: Any) -> float | None:
    """Returns a time in s; some datasets have it as text. None if it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _read_records_of(file: Path) -> list[dict[str, Any]]:
    """The rows of a table of meta/ without their empty values. Raises ValueError for one that is damaged.

    Statistics of the episodes are most of such a table, and are left out. LeRobot writes tasks as the index
    of a table of pandas, which calls it `__index_level_0__`.
    """
    try:
        names = pq.read_schema(file).names
    except Exception as error:  # as in read_parquet
        raise ValueError((str(error) or type(error).__name__).splitlines()[0][:300].rstrip('.')) from error
    table = read_parquet(file, [name for name in names if not name.startswith('stats/')])
    if 'task' not in names and _PANDAS_INDEX in names:
        table = table.rename_columns({_PANDAS_INDEX: 'task'})
    return [
        {key: value for key, value in record.items() if value is not None} for record in table.to_pylist()
    ]


def read_parquet(file: Path, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
    """Returns the table of a parquet file. Raises ValueError for one that is damaged, missing or huge."""
    try:
        with pq.ParquetFile(file) as opened:
            _check_size(file, opened, columns)
        return pq.read_table(file, columns=columns, filters=filters, partitioning=None)
    except Exception as error:  # Arrow raises many kinds of exceptions for a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(reason[:300].rstrip('.')) from error


def _check_size(path: Path, file: pq.ParquetFile, columns: list[str] | None) -> None:
    """Raises ValueError for more values or text in the columns than memory takes.

    What repeats has few bytes in a file. A file that is large itself, with images in it, may be read.
    """
    metadata = file.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    names = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    read = [number for number, name in enumerate(names) if not columns or name.split('.')[0] in columns]
    chunks = {number: [group.column(number) for group in groups] for number in read}
    values = sum(chunk.num_values for column in chunks.values() for chunk in column)
    size = sum(chunk.total_uncompressed_size for column in chunks.values() for chunk in column)
    if values > _MAX_VALUES or size > max(_MAX_VALUES * 8, _bytes_allowed(path)):
        raise ValueError(f'it says that it has {values} values, and {_MAX_VALUES} can be read')
    check_pages(path, {names[number]: chunks[number] for number in read})
    for number in read:
        if metadata.schema.column(number).physical_type == 'BYTE_ARRAY':
            _check_text(path, names[number], chunks[number])


def _check_text(path: Path, name: str, chunks: list[pq.ColumnChunkMetaData]) -> None:
    """Raises ValueError for a column of text that is too long when each row gets its own copy.

    A file may have one long text in a dictionary, and a million rows of a few bits that name it.
    """
    allowed = _bytes_allowed(path)
    longest = max((chunk.total_uncompressed_size for chunk in chunks), default=0)
    if longest * sum(chunk.num_values for chunk in chunks) <= allowed:
        return
    rows = max(_MAX_TEXT_BYTES // max(longest, 1) // _BATCHES, 1)
    total = 0
    with pq.ParquetFile(path, read_dictionary=[name]) as opened:
        for batch in opened.iter_batches(rows, columns=[name]):
            total += _text_bytes(batch.column(0))
            if total > allowed:
                raise ValueError(f'its column {name} has more than {allowed >> 20} MB of text')


def _bytes_allowed(path: Path) -> int:
    """The bytes of text or images that may come out of a file: what it has itself, or what memory takes."""
    return max(_MAX_TEXT_BYTES, 2 * path.stat().st_size)


def _text_bytes(column: pa.Array) -> int:
    """The bytes of a column of text, or of lists or structures of it, when each value is written out."""
    while pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = column.flatten()
    if pa.types.is_struct(column.type):
        return sum(_text_bytes(part) for part in column.flatten())
    if not pa.types.is_dictionary(column.type):
        return column.nbytes
    lengths = pc.fill_null(pc.binary_length(column.dictionary), 0).to_numpy(zero_copy_only=False)
    places = column.indices.drop_null().to_numpy(zero_copy_only=False)
    return int(lengths.astype(np.int64)[places].sum())


def path_inside(root: Path, file: str) -> Path:
    """Returns the path of a file that a dataset names. Raises ValueError if it is outside of the dataset.

    A dataset in the cache of Hugging Face is a folder of links into the `blobs` next to it.
    """
    try:
        path = (root / file).resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise ValueError(f'{file[:100]} is not a path ({error})') from error
    inside = [root.resolve()]
    if inside[0].parent.name == 'snapshots':
        inside.append(inside[0].parents[1] / 'blobs')
    if not any(path.is_relative_to(folder) for folder in inside):
        raise ValueError(f'{file} is outside of the dataset')
    if path.exists() and not path.is_file():  # who opens a pipe waits for ever
        raise ValueError(f'{file} is not a file')
    return path


def column_to_array(table: pa.Table, name: str) -> Array:
    """Returns a column of numbers (n,), or of vectors of one length (n, size).

    Raises GrootRosError for vectors of different lengths, nulls, text, and a column that is not there.
    """
    if name not in table.column_names:
        raise GrootRosError(f'The dataset is damaged: there is no column {name}.')
    column = table[name].combine_chunks()
    if not pa.types.is_list(column.type) and not pa.types.is_fixed_size_list(column.type):
        return _numbers(column, name)
    if column.null_count:
        raise GrootRosError(f'The dataset is damaged: {name} has rows without a vector.')
    lengths = np.unique(pc.list_value_length(column).to_numpy(zero_copy_only=False))
    if len(lengths) > 1:
        raise GrootRosError(f'The dataset is damaged: the vectors of {name} differ in length.')
    size = int(lengths[0]) if len(lengths) else 0
    return _numbers(column.flatten(), name).reshape(len(column), size)


def _numbers(column: pa.Array, name: str) -> Array:
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise GrootRosError(f'The dataset is damaged: {name} holds {kind} instead of numbers.')
    if column.null_count:
        raise GrootRosError(f'The dataset is damaged: {name} has rows without a number.')
    return column.to_numpy(zero_copy_only=False)
