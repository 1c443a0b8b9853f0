"""Checks over all episodes: statistics, grippers that never move, quaternions, deltas shifted by a row, camera shapes."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from groot_ros.dataset.findings import ERROR, WARNING, Finding
from groot_ros.dataset.statistics import KEYS, statistics
from groot_ros.dataset.validate_episode import EpisodeFacts
from groot_ros.geometry import Array

_STATS_FILE = 'meta/stats.json'
_UNIT_TOLERANCE = 1e-3
_SIGNED_DOT = 0.0
_DRIFT_M = 1e-4
_MODEL_LIMIT = 132


def check_dataset_values(
    info: dict[str, Any], modality: dict[str, Any], stats: dict[str, Any], episodes: list[EpisodeFacts], horizon: int
) -> list[Finding]:
    """Findings over all episodes; `episodes` holds those whose numbers could be read."""
    findings = [*_check_statistics(info, stats, episodes), *_check_lengths(episodes, horizon), *_check_sizes(info), *_check_aspect(episodes)]
    findings += _check_constant(modality, episodes)
    for episode in episodes:
        findings += _check_quaternions(modality, episode)
        findings += _check_deltas(modality, episode)
    return findings


def _check_statistics(info: dict[str, Any], stats: dict[str, Any], episodes: list[EpisodeFacts]) -> Iterator[Finding]:
    for name, feature in info['features'].items():
        if 'float' not in str(feature.get('dtype')):
            continue
        columns = [episode.columns[name] for episode in episodes if name in episode.columns]
        if name not in stats:
            yield Finding(ERROR, _STATS_FILE, f'has no statistics of {name}', 'convert again, or run gr00t/data/stats.py')
        elif columns and len({column.shape[1] for column in columns}) == 1:
            yield from _compare(name, stats[name], np.concatenate(columns))


def _compare(name: str, given: dict[str, Any], values: Array) -> Iterator[Finding]:
    with np.errstate(all='ignore'):
        true = statistics(values)
    for key in KEYS:
        numbers = np.atleast_1d(np.asarray(given.get(key, np.nan), float)).ravel()
        scale = np.maximum(np.abs(true['max']), np.abs(true['min'])) + 1e-6
        if numbers.shape != np.shape(true[key]) or not np.all(np.abs(numbers - true[key]) <= 1e-3 * scale):
            yield Finding(ERROR, _STATS_FILE, f'{key} of {name} is not what the rows give', 'compute the statistics again')
            return


def _check_lengths(episodes: list[EpisodeFacts], horizon: int) -> Iterator[Finding]:
    for episode in episodes:
        if episode.rows < horizon:
            yield Finding(ERROR, episode.file, f'has {episode.rows} rows, fewer than the horizon of {horizon}: no sample', 'leave it out')


def _check_sizes(info: dict[str, Any]) -> Iterator[Finding]:
    for name in ('observation.state', 'action'):
        size = int(info['features'].get(name, {}).get('shape', [0])[0])
        if size > _MODEL_LIMIT:
            yield Finding(ERROR, 'meta/info.json', f'{name} has {size} numbers, GR00T N1.7 takes {_MODEL_LIMIT}', 'leave some out')


def _check_aspect(episodes: list[EpisodeFacts]) -> Iterator[Finding]:
    ratios = {(key, round(width / height, 3)) for e in episodes for key, (height, width) in e.video_shapes.items()}
    if len({ratio for _, ratio in ratios}) > 1:
        names = ', '.join(f'{key} {ratio}' for key, ratio in sorted(ratios))
        yield Finding(ERROR, 'meta/info.json', f'the cameras differ in aspect ratio ({names}), which GR00T cannot stack', 'letterbox them')


def _check_constant(modality: dict[str, Any], episodes: list[EpisodeFacts]) -> Iterator[Finding]:
    columns = [episode.columns['action'] for episode in episodes if 'action' in episode.columns]
    if not columns or len({column.shape[1] for column in columns}) > 1:
        return
    actions = np.concatenate(columns)
    for name, part in (modality.get('action') or {}).items():
        if 'gripper' not in name or 'original_key' in part:
            continue
        values = actions[:, part.get('start', 0) : part.get('end', 0)]
        low, high = np.nanquantile(values, [0.01, 0.99], axis=0) if values.size else (np.zeros(1), np.ones(1))
        if np.any(low == high):
            yield Finding(
                WARNING, 'data', f'action.{name} hardly ever changes (q01 equals q99): a policy trained on it never moves it',
                'record demonstrations in which it moves, or train with min and max',
            )  # fmt: skip


def _check_quaternions(modality: dict[str, Any], episode: EpisodeFacts) -> Iterator[Finding]:
    for name, part in (modality.get('state') or {}).items():
        if part.get('end', 0) - part.get('start', 0) != 7 or 'pose' not in name or 'observation.state' not in episode.columns:
            continue
        quaternions = episode.columns['observation.state'][:, part['start'] + 3 : part['end']]
        off = np.flatnonzero(np.abs(np.linalg.norm(quaternions, axis=1) - 1) > _UNIT_TOLERANCE)
        if len(off):
            yield Finding(ERROR, episode.file, f'the quaternion of state.{name} is not of length 1', 'convert again', int(off[0]))
        jumps = np.flatnonzero(np.sum(quaternions[1:] * quaternions[:-1], axis=1) < _SIGNED_DOT)
        if len(jumps):
            yield Finding(ERROR, episode.file, f'the quaternion of state.{name} changes its sign', 'convert again', int(jumps[0]) + 1)


def _check_deltas(modality: dict[str, Any], episode: EpisodeFacts) -> Iterator[Finding]:
    """Position deltas must be the differences of the recorded positions; shifted by a row they still look plausible."""
    state, action = (modality.get('state') or {}).get('tcp_pose'), (modality.get('action') or {}).get('delta_tcp_position')
    if not state or not action or not {'observation.state', 'action'} <= set(episode.columns):
        return
    positions = episode.columns['observation.state'][:, state['start'] : state['start'] + 3]
    deltas = episode.columns['action'][:, action['start'] : action['end']]
    if positions.shape[1] != 3 or deltas.shape[1] != 3 or len(positions) < 3:
        return
    moved = np.diff(positions, axis=0)
    drift = float(np.nanmax(np.abs(moved - deltas[:-1])))
    if drift > _DRIFT_M:
        shifted = float(np.nanmax(np.abs(moved[1:] - deltas[:-2]))) <= _DRIFT_M or float(np.nanmax(np.abs(moved[:-1] - deltas[1:-1]))) <= _DRIFT_M
        what = 'is shifted by a row' if shifted else f'misses the next position by up to {drift * 1e3:.1f} mm'
        yield Finding(ERROR, episode.file, f'delta_tcp_position {what}', 'convert again')
