# SPDX-License-Identifier: Apache-2.0
"""Checks of one episode: its parquet columns, its annotations and its videos."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from groot_ros.dataset.meta import path_inside, read_parquet
from groot_ros.dataset.validation.finding import ERROR, EpisodeColumns, ValidationFinding
from groot_ros.dataset.validation.video import check_video
from groot_ros.dataset.writers.features import VALIDITIES

_TIME_TOLERANCE_S = 1e-4


def check_episode(
    root: Path, info: dict[str, Any], modality: dict[str, Any], record: dict[str, Any], tasks: dict[int, str]
) -> tuple[EpisodeColumns | None, list[ValidationFinding]]:
    """Returns the findings of an episode of episodes.jsonl, and its columns if they can be read."""
    index = record['episode_index']
    size = info['chunks_size']
    file = info['data_path'].format(episode_chunk=index // size, episode_index=index)
    try:
        table = read_parquet(path_inside(root, file))
    except ValueError as error:
        return None, [
            ValidationFinding(
                ERROR, file, f'cannot be read ({str(error).splitlines()[0]})', 'convert the episode again'
            )
        ]
    episode = EpisodeColumns(file, table.num_rows, {}, {})
    findings = list(_check_length(episode, record))
    findings += _read_columns(table, info['features'], episode)
    findings += _check_annotations(table, modality, episode, tasks)
    findings += _check_timestamps(episode, info)
    for key, feature in info['features'].items():
        if feature.get('dtype') == 'video' and _used(key, modality):
            video = info.get('video_path', '').format(
                episode_chunk=index // size, episode_index=index, video_key=key
            )
            findings += check_video(root, video, key, feature, episode, info.get('fps', 0))
    return episode, findings


def _check_length(episode: EpisodeColumns, record: dict[str, Any]) -> Iterator[ValidationFinding]:
    if record['length'] != episode.rows:
        what = 'the rest is never read' if record['length'] < episode.rows else 'the loader runs past the end'
        yield ValidationFinding(
            ERROR,
            episode.file,
            f'has {episode.rows} rows, episodes.jsonl says {record["length"]}: {what}',
            'correct the length',
        )


def _read_columns(
    table: pa.Table, features: dict[str, Any], episode: EpisodeColumns
) -> Iterator[ValidationFinding]:
    for name, feature in features.items():
        if 'float' not in str(feature.get('dtype')):
            continue
        if name not in table.column_names:
            yield ValidationFinding(
                ERROR,
                episode.file,
                f'has no column {name}, which info.json lists',
                'convert the episode again',
            )
            continue
        try:
            values = np.array(table[name].to_pylist(), float).reshape(table.num_rows, -1)
        except (ValueError, TypeError):
            yield ValidationFinding(
                ERROR,
                episode.file,
                f'the vectors of {name} are not all of one length, or not numbers',
                'convert the episode again',
            )
            continue
        episode.columns[name] = values
        if values.shape[1] != int(feature['shape'][0]):
            yield ValidationFinding(
                ERROR,
                episode.file,
                f'{name} has {values.shape[1]} numbers, info.json says {feature["shape"][0]}',
                'correct info.json',
            )
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            yield ValidationFinding(
                ERROR,
                episode.file,
                f'{name} holds NaN or infinity in {len(bad)} rows',
                'convert again, or leave it out',
                int(bad[0]),
            )


def _check_annotations(
    table: pa.Table, modality: dict[str, Any], episode: EpisodeColumns, tasks: dict[int, str]
) -> Iterator[ValidationFinding]:
    for name, part in (modality.get('annotation') or {}).items():
        column = part.get('original_key', f'annotation.{name}')
        if column not in table.column_names:
            yield ValidationFinding(
                ERROR, episode.file, f'has no column {column}', 'convert the episode again'
            )
            continue
        if not pa.types.is_integer(table[column].type):
            yield ValidationFinding(
                ERROR,
                episode.file,
                f'{column} holds {table[column].type}, not indices into tasks.jsonl',
                'write int64 indices',
            )
            continue
        indices = set(table[column].to_pylist()) - {None}
        if unknown := sorted(indices - set(tasks)):
            yield ValidationFinding(
                ERROR,
                episode.file,
                f'{column} has index {unknown[0]}, which is not in tasks.jsonl',
                'add the task',
            )
        elif 'validity' not in name and any(tasks[index] in VALIDITIES for index in indices):
            yield ValidationFinding(
                ERROR,
                episode.file,
                f'{column} says {tasks[min(indices)]!r}, which is a validity and no task',
                'correct the indices',
            )


def _check_timestamps(episode: EpisodeColumns, info: dict[str, Any]) -> Iterator[ValidationFinding]:
    if 'timestamp' not in episode.columns or not episode.rows or not info.get('fps'):
        return
    stamps = episode.columns['timestamp'][:, 0]
    period_s = 1 / info['fps']
    # NVIDIA's own datasets begin one period after zero; with more, N1.5 asks for frames that do not exist.
    if abs(stamps[0]) > 1.5 * period_s:
        yield ValidationFinding(
            ERROR,
            episode.file,
            f'timestamps begin at {stamps[0]:.2f} s: GR00T N1.5 wants seconds since the start',
            'write k / fps',
        )
        return
    off = np.flatnonzero(np.abs(stamps - stamps[0] - np.arange(episode.rows) * period_s) > _TIME_TOLERANCE_S)
    if len(off):
        row = int(off[0])
        since_first_s = stamps[row] - stamps[0]
        problem = (
            f'timestamp {stamps[row]:.4f} s is {since_first_s:.4f} s after the first, '
            f'not row / fps = {row * period_s:.4f} s'
        )
        yield ValidationFinding(
            ERROR, episode.file, problem, 'set fps in info.json to the rate that was recorded', row
        )


def _used(feature: str, modality: dict[str, Any]) -> bool:
    videos = modality.get('video') or {}
    return feature in {
        part.get('original_key', f'observation.images.{name}') for name, part in videos.items()
    }
