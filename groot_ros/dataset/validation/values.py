# SPDX-License-Identifier: Apache-2.0
"""Checks over all episodes: statistics, constant actions, sizes, camera shapes, and duplicate episodes."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from groot_ros.dataset.modality_config import Gr00tVersion
from groot_ros.dataset.validation.finding import ERROR, WARNING, EpisodeColumns, ValidationFinding
from groot_ros.dataset.writers.statistics import KEYS, statistics
from groot_ros.embodiment import ACTION_COLUMN, STATE_COLUMN
from groot_ros.geometry import Array

_STATS_FILE = 'meta/stats.json'


def check_dataset_values(
    info: dict[str, Any],
    modality: dict[str, Any],
    stats: dict[str, Any],
    episodes: list[EpisodeColumns],
    horizon: int,
    gr00t_version: Gr00tVersion,
) -> list[ValidationFinding]:
    """Returns the findings over all episodes whose columns could be read."""
    return [
        *_check_statistics(info, stats, episodes),
        *_check_lengths(episodes, horizon),
        *_check_sizes(modality, gr00t_version, horizon),
        *_check_aspect(episodes),
        *_check_constant(modality, episodes),
        *_check_duplicates(episodes),
    ]


def _check_statistics(
    info: dict[str, Any], stats: dict[str, Any], episodes: list[EpisodeColumns]
) -> Iterator[ValidationFinding]:
    for name, feature in info['features'].items():
        if 'float' not in str(feature.get('dtype')):
            continue
        columns = [episode.columns[name] for episode in episodes if name in episode.columns]
        if name not in stats:
            yield ValidationFinding(
                ERROR,
                _STATS_FILE,
                f'has no statistics of {name}',
                'convert again, or run gr00t/data/stats.py',
            )
        elif columns and len({column.shape[1] for column in columns}) == 1:
            yield from _compare(name, stats[name], np.concatenate(columns))


def _compare(name: str, given: dict[str, Any], values: Array) -> Iterator[ValidationFinding]:
    with np.errstate(all='ignore'):
        true = statistics(values)
    for key in KEYS:
        numbers = np.atleast_1d(np.asarray(given.get(key, np.nan), float)).ravel()
        scale = np.maximum(np.abs(true['max']), np.abs(true['min'])) + 1e-6
        if numbers.shape != np.shape(true[key]) or not np.all(np.abs(numbers - true[key]) <= 1e-3 * scale):
            yield ValidationFinding(
                ERROR,
                _STATS_FILE,
                f'{key} of {name} is not what the rows give',
                'compute the statistics again',
            )
            return


def _check_lengths(episodes: list[EpisodeColumns], horizon: int) -> Iterator[ValidationFinding]:
    for episode in episodes:
        if episode.rows < horizon:
            yield ValidationFinding(
                ERROR,
                episode.file,
                f'has {episode.rows} rows, fewer than the horizon of {horizon}: no sample',
                'leave it out',
            )


def _check_sizes(
    modality: dict[str, Any], gr00t_version: Gr00tVersion, horizon: int
) -> Iterator[ValidationFinding]:
    for group, limit in (('state', gr00t_version.state_size), ('action', gr00t_version.action_size)):
        parts = (modality.get(group) or {}).values()
        size = sum(
            max(part.get('end', 0) - part.get('start', 0), 0) for part in parts if 'original_key' not in part
        )
        if size > limit:
            yield ValidationFinding(
                ERROR,
                'meta/modality.json',
                f'{group} has {size} numbers, this GR00T version takes {limit}',
                'leave some out',
            )
    if horizon > gr00t_version.horizon:
        yield ValidationFinding(
            ERROR,
            'meta/info.json',
            f'chunks of {horizon} steps, this GR00T version takes {gr00t_version.horizon}',
            'give a smaller --horizon',
        )


def _check_aspect(episodes: list[EpisodeColumns]) -> Iterator[ValidationFinding]:
    ratios = {
        (key, round(width / height, 3)) for e in episodes for key, (height, width) in e.video_shapes.items()
    }
    if len({ratio for _, ratio in ratios}) > 1:
        names = ', '.join(f'{key} {ratio}' for key, ratio in sorted(ratios))
        yield ValidationFinding(
            ERROR,
            'meta/info.json',
            f'the cameras differ in aspect ratio ({names}), which GR00T cannot stack',
            'letterbox them',
        )


def _check_constant(modality: dict[str, Any], episodes: list[EpisodeColumns]) -> Iterator[ValidationFinding]:
    """GR00T normalises with q01 and q99: if they are equal, it always commands that value."""
    columns = [episode.columns[ACTION_COLUMN] for episode in episodes if ACTION_COLUMN in episode.columns]
    if not columns or len({column.shape[1] for column in columns}) > 1:
        return
    actions = np.concatenate(columns)
    if not actions.size:
        return
    with np.errstate(all='ignore'):
        low, high = np.nanquantile(actions, [0.01, 0.99], axis=0)
        still = low == high
        never = np.nanmin(actions, axis=0) == np.nanmax(actions, axis=0)
    for name, part in (modality.get('action') or {}).items():
        place = slice(part.get('start', 0), part.get('end', 0))
        if 'original_key' in part or not still[place].any():
            continue
        if 'gripper' in name or (still[place] & ~never[place]).any():
            problem = (
                f'action.{name} hardly ever changes (q01 equals q99): a policy trained on it never moves it'
            )
            remedy = 'record demonstrations in which it moves, or train with min and max'
            yield ValidationFinding(WARNING, 'data', problem, remedy)


def _check_duplicates(episodes: list[EpisodeColumns]) -> Iterator[ValidationFinding]:
    known: dict[bytes, str] = {}
    for episode in episodes:
        columns = [episode.columns[name] for name in (STATE_COLUMN, ACTION_COLUMN) if name in episode.columns]
        digest = hashlib.sha256(
            b''.join(np.ascontiguousarray(column).tobytes() for column in columns)
        ).digest()
        if columns and digest in known:
            yield ValidationFinding(
                ERROR,
                episode.file,
                f'holds the same rows as {known[digest]}, which counts them twice',
                'leave one of them out',
            )
        known.setdefault(digest, episode.file)
