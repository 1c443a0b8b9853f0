# SPDX-License-Identifier: Apache-2.0
"""Episodes that lie in tables already: demonstrations in HDF5 (Isaac Lab, Mimic), episodes of LeRobot v2 datasets with other columns."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from groot_ros.dataset.sources.discover import Recording, need_h5py
from groot_ros.dataset.sources.segment import EpisodeMetadata, Segment, encoded
from groot_ros.dataset.writers.features import VALIDITIES, inside
from groot_ros.embodiment import OUTCOME, REWARD, CameraField, Embodiment, TopicField
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.sampling.rows import apply_scale, rows_from_states
from groot_ros.video.frame import VideoFrame
from groot_ros.video.mp4 import cut_mp4, find_keyframes

_FRAMES_AT_ONCE = 32


class Table(AbstractContextManager):
    """One episode's columns by name; `columns` names all of them."""

    where: str
    columns: list[str]
    facts: EpisodeMetadata

    def __exit__(self, *_: object) -> None:
        """Releases the files."""

    def column(self, name: str) -> Array:
        """The numbers of a column (n, ...), as they stand there."""
        raise NotImplementedError

    def write_video(self, camera: CameraField, path: Path, span: slice, fps: float, codec: str) -> int:
        """Writes the frames of some rows, and returns how many there were."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """SHA-256 of what the episode is made of."""
        raise NotImplementedError


def open_table(item: Recording, path: Path, embodiment: Embodiment) -> Table:
    """The table behind an item whose file lies at `path`. Raises GrootRosError for one that cannot be read."""
    return (
        _Demonstration(item, path, embodiment)
        if item.kind == 'hdf5'
        else _LerobotEpisode(item, path, embodiment)
    )


@dataclass
class TableSegment(Segment):
    """All rows of a table."""

    table: Table
    embodiment: Embodiment
    codec: str

    def write_video(self, camera: CameraField, path: Path, first: int, count: int) -> int:
        """Of the rows from `first` on."""
        return self.table.write_video(
            camera, path, slice(first, first + count), self.embodiment.fps, self.codec
        )


def table_stretch(table: Table, embodiment: Embodiment, codec: str) -> TableSegment:
    """The episode of a table. Raises GrootRosError naming a column that is missing or of another size."""
    _check_columns(table, embodiment)
    states = _stacked(table, embodiment, list(embodiment.state))
    commands = _stacked(table, embodiment, [source for _, source, _ in embodiment.commands])
    count = len(states)
    if commands.shape[1] and len(commands) != count:
        raise GrootRosError(
            f'{table.where} has {count} states and {len(commands)} actions: the file is damaged.'
        )
    commands = commands if commands.shape[1] else np.zeros((count, 0))
    if embodiment.eef_9d or any(field.is_derived for field in embodiment.action):
        given = commands[:-1]
    else:  # every row has its action already, so that the last one needs no successor
        given, states, commands = (
            commands,
            np.vstack([states, states[-1:]]),
            np.vstack([commands, commands[-1:]]),
        )
    ticks_ns = np.round(np.arange(len(given)) * 1e9 / embodiment.fps).astype(np.int64)
    rows = rows_from_states(
        embodiment, states, commands, given, ticks_ns, np.zeros((len(given), len(embodiment.state)))
    )
    if embodiment.reward and embodiment.reward != OUTCOME:
        rows.more[REWARD] = _numbers(table, embodiment.reward).reshape(count, -1)[: len(rows), 0]
    return TableSegment(rows, table.facts, table, embodiment, codec)


def _check_columns(table: Table, embodiment: Embodiment) -> None:
    sources = [*embodiment.state, *(source for _, source, _ in embodiment.commands), *embodiment.cameras]
    if not all(source.column for source in sources):
        raise GrootRosError(
            f'The embodiment {embodiment.name} names no columns, it is for bags: choose another one for {table.where}.'
        )
    wanted = [source.column for source in sources] + [embodiment.reward] * (
        embodiment.reward not in ('', OUTCOME)
    )
    if missing := [name for name in dict.fromkeys(wanted) if name not in table.columns]:
        raise GrootRosError(
            f'{table.where} lacks {", ".join(missing)}, which the embodiment {embodiment.name} needs; it has '
            f'{", ".join(sorted(table.columns))}: mend `column` in the embodiment.'
        )
    if any(
        camera.rate_hz and abs(camera.rate_hz / embodiment.fps - 1) > 1e-6 for camera in embodiment.cameras
    ):
        raise GrootRosError(
            f'{table.where} holds rows, which have no time between them: it cannot be converted at {embodiment.fps:g} rows a second.'
        )


def _stacked(table: Table, embodiment: Embodiment, sources: list[TopicField]) -> Array:
    columns = [_taken(table, embodiment, source) for source in sources]
    if len({len(column) for column in columns}) > 1:
        lengths = ', '.join(
            f'{source.column} {len(column)}' for source, column in zip(sources, columns, strict=True)
        )
        raise GrootRosError(f'{table.where} has columns of different lengths: {lengths}.')
    if columns and len(columns[0]) < 2:
        raise GrootRosError(f'{table.where} has {len(columns[0])} rows: at least two are needed.')
    return np.hstack(columns) if columns else np.zeros((0, 0))


def _taken(table: Table, embodiment: Embodiment, source: TopicField) -> Array:
    values = _numbers(table, source.column)
    values = values.reshape(len(values), -1)
    names = embodiment.column_joint_names.get(source.column, ())
    if source.joints and len(names) != values.shape[1]:
        raise GrootRosError(
            f'{table.where} has {values.shape[1]} numbers in {source.column}, and column_joint_names names {len(names)} joints.'
        )
    indices = [names.index(joint) for joint in source.joints] or list(source.indices)
    if indices and max(indices) < values.shape[1]:
        values = values[:, indices]
    if values.shape[1] != source.size:
        raise GrootRosError(
            f'{table.where} has {values.shape[1]} numbers in {source.column} where {getattr(source, "name", "the embodiment")} wants {source.size}: '
            'correct `size`, `indices` or `joints`.'
        )
    if len(bad := np.flatnonzero(~np.isfinite(values).all(axis=1))):
        raise GrootRosError(f'{table.where} holds NaN or infinity in {source.column} at row {bad[0]}.')
    return apply_scale(values, source)


def _numbers(table: Table, name: str) -> Array:
    try:
        return np.asarray(table.column(name), float)
    except (ValueError, TypeError) as error:
        raise GrootRosError(
            f'{table.where} has a column {name} that is no table of numbers: its rows differ in length, or it holds text.'
        ) from error


def frames_of(pictures: Any, span: slice, where: str) -> Iterator[VideoFrame]:
    """Frames of an array of RGB pictures, or of a dataset of HDF5, some at a time. Raises GrootRosError for another shape or type."""
    if pictures.ndim != 4 or pictures.shape[3] != 3 or pictures.dtype != np.uint8:
        raise GrootRosError(
            f'{where} has the shape {pictures.shape} and type {pictures.dtype}: pictures are (n, height, width, 3) uint8.'
        )
    for first in range(span.start, span.stop, _FRAMES_AT_ONCE):
        for picture in pictures[first : min(first + _FRAMES_AT_ONCE, span.stop)]:
            yield VideoFrame(0, picture, 'rgb24')


class _Demonstration(Table):
    """A group of an HDF5 file, such as data/demo_3; columns are datasets below it, such as obs/eef_pos."""

    def __init__(self, item: Recording, path: Path, embodiment: Embodiment) -> None:
        need_h5py()
        import h5py

        self.where = str(item)
        self._file = h5py.File(path, 'r')
        self._group = self._file['data'][item.entry]
        self._embodiment = embodiment
        self.columns: list[str] = []
        self._group.visititems(
            lambda name, node: self.columns.append(name) if isinstance(node, h5py.Dataset) else None
        )
        succeeded = self._group.attrs.get('success', True)
        self.facts = EpisodeMetadata(self._task(), 'success' if succeeded else 'failure')

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def column(self, name: str) -> Array:
        """A dataset, whole."""
        return self._group[name][()]

    def write_video(self, camera: CameraField, path: Path, span: slice, fps: float, codec: str) -> int:
        """Encoded from pictures (n, height, width, 3) uint8."""
        pictures = self._group[camera.column]
        return encoded(frames_of(pictures, span, f'{self.where} {camera.column}'), camera, path, fps, codec)

    def fingerprint(self) -> str:
        """Of everything but the pictures, whose shapes count."""
        digest = hashlib.sha256(self._group.name.encode())
        for name in sorted(self.columns):
            dataset = self._group[name]
            digest.update(f'{name} {dataset.shape} {dataset.dtype}'.encode())
            if dataset.ndim < 3:
                digest.update(
                    repr(dataset[()].tolist()).encode()
                    if dataset.dtype.hasobject
                    else np.ascontiguousarray(dataset[()]).tobytes()
                )
        return digest.hexdigest()

    def _task(self) -> str:
        for attributes in (self._group.attrs, self._file['data'].attrs):
            for key in ('task', 'language_instruction', 'task_description'):
                if key in attributes:
                    text = attributes[key]
                    return self._text(text.decode() if isinstance(text, bytes) else str(text))
        try:
            return self._embodiment.tasks.get(
                json.loads(self._file['data'].attrs.get('env_args', '{}')).get('env_name', ''), ''
            )
        except (ValueError, AttributeError):
            return ''

    def _text(self, task: str) -> str:
        return self._embodiment.tasks.get(task, task)


class _LerobotEpisode(Table):
    """An episode of a LeRobot v2 dataset; columns are those of its parquet file and its video features."""

    def __init__(self, item: Recording, path: Path, embodiment: Embodiment) -> None:
        self.where = f'{item.location} episode {item.entry}'
        self._root = path
        info = self._read(path / 'meta/info.json', json.loads)
        if abs(float(info.get('fps', 0)) / embodiment.fps - 1) > 1e-6:
            said = f'the embodiment {embodiment.name} says {embodiment.fps:g}'
            raise GrootRosError(
                f'{item.location} has {info.get("fps")} rows a second but {said}: set its fps.'
            )
        index = int(item.entry)
        place = {'episode_chunk': index // int(info.get('chunks_size', 1000)), 'episode_index': index}
        try:
            self._parquet = inside(path, info['data_path'].format(**place))
            self._table = pq.read_table(self._parquet)
            features = [name for name, feature in info['features'].items() if feature.get('dtype') == 'video']
            self._videos = {
                name: inside(path, info['video_path'].format(**place, video_key=name)) for name in features
            }
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise GrootRosError(f'{self.where} cannot be read ({str(error).splitlines()[0]}).') from error
        self.columns = [*self._table.column_names, *self._videos]
        self.facts = EpisodeMetadata(self._task(index, embodiment))

    def column(self, name: str) -> Array:
        """A column of the parquet file."""
        return np.array(self._table[name].to_pylist(), float)

    def write_video(self, camera: CameraField, path: Path, span: slice, fps: float, codec: str) -> int:
        """Copied where it is of this size and codec and can be cut, else encoded anew."""
        video, count = self._videos[camera.column], span.stop - span.start
        try:
            with av.open(str(video)) as container:
                stream = container.streams.video[0]
                name, size, rate = (
                    stream.codec_context.codec.canonical_name,
                    (stream.width, stream.height),
                    float(stream.average_rate or 0),
                )
            keyframes, in_order = find_keyframes(video)
            if name == codec and size == (camera.width, camera.height) and abs(rate / fps - 1) < 1e-3:
                if count == self._table.num_rows and span.start == 0:
                    shutil.copyfile(video, path)
                    return count
                if in_order and span.start in keyframes:
                    return cut_mp4(video, path, span.start, count, fps)
            return encoded(self._frames(video, span), camera, path, fps, codec)
        except (OSError, av.FFmpegError, IndexError) as error:
            raise GrootRosError(
                f'The video {video} cannot be decoded ({str(error).splitlines()[0]}).'
            ) from error

    def fingerprint(self) -> str:
        """Of its files."""
        digest = hashlib.sha256()
        for file in (self._parquet, *self._videos.values()):
            digest.update(file.read_bytes() if file.is_file() else b'')
        return digest.hexdigest()

    def _frames(self, video: Path, span: slice) -> Iterator[VideoFrame]:
        with av.open(str(video)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index >= span.stop:
                    return
                if index >= span.start:
                    yield VideoFrame(0, frame.to_ndarray(format='rgb24'), 'rgb24')

    def _task(self, index: int, embodiment: Embodiment) -> str:
        tasks = {record['task_index']: record['task'] for record in self._records('tasks.jsonl')}
        own = (
            tasks.get(self._table['task_index'][0].as_py())
            if 'task_index' in self._table.column_names and self._table.num_rows
            else None
        )
        episode = next(
            (record for record in self._records('episodes.jsonl') if record['episode_index'] == index), {}
        )
        texts = [own, *episode.get('tasks', [])]
        text = next((text for text in texts if text and text not in VALIDITIES), '')
        return embodiment.tasks.get(text, text)

    def _records(self, name: str) -> list[dict[str, Any]]:
        return self._read(
            self._root / 'meta' / name,
            lambda text: [json.loads(line) for line in text.splitlines() if line.strip()],
        )

    def _read(self, path: Path, parse: Callable[[str], Any]) -> Any:
        try:
            return parse(path.read_text())
        except (OSError, ValueError) as error:
            raise GrootRosError(
                f'{self.where} cannot be read: {path.name} is missing or damaged ({error}).'
            ) from error
