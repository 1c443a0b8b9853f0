# SPDX-License-Identifier: Apache-2.0
"""Recordings that are tables of rows already; each kind of table is a subclass in a file of its own."""

import math
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groot_ros.dataset.sources.segment import Segment
from groot_ros.embodiment import OUTCOME, REWARD, CameraField, Embodiment, TopicField
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.sampling.rows import RowTable, apply_scale, rows_from_states
from groot_ros.video.frame import VideoFrame

_FRAMES_AT_ONCE = 32
# Larger numbers are no measurements, and datasets hold float32.
_MAX_NUMBER = 1e12
_MAX_TASK = 1000
_MAX_PIXELS = 8192


class Table(AbstractContextManager):
    """One episode's columns by name; `where` names it in errors, `columns` lists all of them."""

    where: str
    columns: list[str]
    task: str
    outcome: str = 'success'

    def __exit__(self, *_: object) -> None:
        """Closes the files of the table."""

    @abstractmethod
    def column(self, name: str) -> Array:
        """Returns the numbers of a column (n, ...), unchanged."""

    @abstractmethod
    def write_video(self, camera: CameraField, path: Path, rows: slice, fps: float, codec: str) -> int:
        """Writes a camera's frames of some rows into an MP4 file, and returns how many there were.

        Raises GrootRosError for images of another shape or type.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Returns the SHA-256 of what the episode is made of."""


@dataclass(kw_only=True)
class TableSegment(Segment):
    """All rows of a table."""

    table: Table
    fps: float
    codec: str

    def write_video(self, camera: CameraField, path: Path, first: int, count: int) -> int:
        """Writes a camera's frames of `count` rows from `first` on, and returns how many there were."""
        return self.table.write_video(camera, path, slice(first, first + count), self.fps, self.codec)


def table_segment(table: Table, embodiment: Embodiment, codec: str) -> TableSegment:
    """Makes the segment of a table. Raises GrootRosError for a column that is missing or has another size."""
    _check_columns(table, embodiment)
    _check_task(table)
    rows = _rows(table, embodiment)
    return TableSegment(
        rows=rows, task=table.task, outcome=table.outcome, table=table, fps=embodiment.fps, codec=codec
    )


def _rows(table: Table, embodiment: Embodiment) -> RowTable:
    states = _stacked(table, embodiment, list(embodiment.state))
    count = len(states)
    commands = np.zeros((count, 0))
    if embodiment.commands:
        commands = _stacked(table, embodiment, [source for _, source, _ in embodiment.commands])
    if len(commands) != count:
        raise GrootRosError(
            f'{table.where} has {count} states and {len(commands)} actions, so the file is damaged: '
            'leave it out with --skip-bad.'
        )
    given = commands[:-1]
    if not embodiment.eef_9d and not any(field.is_derived for field in embodiment.action):
        # Each row has its action already: the last one is repeated as the successor that nothing needs.
        given = commands
        states = np.vstack([states, states[-1:]])
        commands = np.vstack([commands, commands[-1:]])
    ticks_ns = np.round(np.arange(len(given)) * 1e9 / embodiment.fps).astype(np.int64)
    ages_s = np.zeros((len(given), len(embodiment.state)))
    rows = rows_from_states(embodiment, states, commands, given, ticks_ns, ages_s)
    if embodiment.reward not in ('', OUTCOME):
        rewards = _numbers(table, embodiment.reward)
        if rewards.shape != (count, 1):
            raise GrootRosError(
                f'{table.where} has the shape {rewards.shape} in {embodiment.reward}: '
                f'give one reward for each of its {count} rows.'
            )
        rows.more[REWARD] = rewards[: len(rows), 0]
    return rows


def _check_task(table: Table) -> None:
    if len(table.task) > _MAX_TASK or not table.task.isprintable():
        raise GrootRosError(
            f'{table.where} names a task that is not one line of at most {_MAX_TASK} characters: '
            'write a short text there.'
        )


def _check_columns(table: Table, embodiment: Embodiment) -> None:
    sources = [*embodiment.state, *(source for _, source, _ in embodiment.commands), *embodiment.cameras]
    if not all(source.column for source in sources):
        raise GrootRosError(
            f'The embodiment {embodiment.name} names no columns, it is for bags: '
            f'choose another one for {table.where}.'
        )
    wanted = [source.column for source in sources]
    if embodiment.reward not in ('', OUTCOME):
        wanted.append(embodiment.reward)
    missing = [name for name in dict.fromkeys(wanted) if name not in table.columns]
    if missing:
        raise GrootRosError(
            f'{table.where} has no {", ".join(missing)}, which the embodiment {embodiment.name} needs; '
            'it has '
            f'{", ".join(sorted(table.columns))}: correct `column` in the embodiment.'
        )
    rates = [camera.rate_hz or embodiment.fps for camera in embodiment.cameras]
    if any(abs(rate / embodiment.fps - 1) > 1e-6 for rate in rates):
        raise GrootRosError(
            f'{table.where} holds rows, which cannot be resampled to {embodiment.fps:g} rows a second: '
            'leave --fps out.'
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
    names = embodiment.column_joint_names.get(source.column, ())
    if source.joints and len(names) != values.shape[1]:
        raise GrootRosError(
            f'{table.where} has {values.shape[1]} numbers in {source.column}, and column_joint_names of the '
            f'embodiment names {len(names)} joints: name them all.'
        )
    indices = [names.index(joint) for joint in source.joints] or list(source.indices)
    if indices and max(indices) < values.shape[1]:
        values = values[:, indices]
    elif indices or values.shape[1] != source.size:
        raise GrootRosError(
            f'{table.where} has {values.shape[1]} numbers in {source.column} where '
            f'{getattr(source, "name", "the embodiment")} wants {source.size}: '
            'correct `size`, `indices` or `joints` in the embodiment.'
        )
    if source.quaternion is not None:
        _check_quaternions(table, source.column, values[:, source.quaternion])
    return apply_scale(values, source)


def _check_quaternions(table: Table, column: str, quaternions: Array) -> None:
    lengths = np.linalg.norm(quaternions, axis=1)
    if len(bad := np.flatnonzero(np.abs(lengths - 1) > 0.01)):
        raise GrootRosError(
            f'{table.where} has a quaternion of length {lengths[bad[0]]:.3g} in {column} at row {bad[0]}: '
            'it must be 1.'
        )


def _numbers(table: Table, name: str) -> Array:
    """The finite numbers (n, size) of a column; its further axes are joined."""
    try:
        values = np.asarray(table.column(name))
        if values.dtype.kind not in 'biuf':
            values = np.asarray(values.tolist(), float)
        numbers = values.astype(float).reshape(len(values), math.prod(values.shape[1:]))
    except (ValueError, TypeError, OverflowError) as error:
        raise GrootRosError(
            f'{table.where} has a column {name} that is no table of numbers: its rows '
            'differ in length, or it is text.'
        ) from error
    if len(bad := np.flatnonzero(~np.isfinite(numbers).all(axis=1))):
        raise GrootRosError(f'{table.where} holds NaN or infinity in {name} at row {bad[0]}.')
    if len(bad := np.flatnonzero((np.abs(numbers) > _MAX_NUMBER).any(axis=1))):
        raise GrootRosError(f'{table.where} holds a number above {_MAX_NUMBER:g} in {name} at row {bad[0]}.')
    return numbers


def frames_from_array(images: Any, rows: slice, where: str) -> Iterator[VideoFrame]:
    """Gives the frames of some rows of RGB images (n, height, width, 3): an array, or an HDF5 dataset.

    Raises GrootRosError for another shape or type.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise GrootRosError(
            f'{where} has the shape {images.shape} and type {images.dtype}: '
            'images must be (n, height, width, 3) uint8.'
        )
    if not all(0 < length <= _MAX_PIXELS for length in images.shape[1:3]):
        raise GrootRosError(f'{where} has images of {images.shape[2]}x{images.shape[1]} pixels.')
    for first in range(rows.start, rows.stop, _FRAMES_AT_ONCE):
        for image in images[first : min(first + _FRAMES_AT_ONCE, rows.stop)]:
            yield VideoFrame(0, image, 'rgb24')
