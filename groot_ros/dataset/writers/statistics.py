# SPDX-License-Identifier: Apache-2.0
"""Statistics as GR00T and LeRobot compute them.

GR00T's stats.json is over all rows, in float32, with ddof 0 and linear quantiles; LeRobot's are for each
episode.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from groot_ros.embodiment import EEF_9D
from groot_ros.geometry import Array, relative_9d
from groot_ros.video.mp4 import read_keyframes

KEYS = ('mean', 'std', 'min', 'max', 'q01', 'q99')
EPISODE_KEYS = ('min', 'max', 'mean', 'std', 'count')
_QUANTILES = {'q01': 0.01, 'q10': 0.1, 'q50': 0.5, 'q90': 0.9, 'q99': 0.99}
_TAG = 'new_embodiment'
_IMAGES = 8
_PIXEL = 4


def statistics(values: Array) -> dict[str, list[float]]:
    """Returns mean, std, min, max, q01 and q99 of each column of (n, D) or (n,) numbers."""
    column = np.asarray(values, np.float32)
    column = column.reshape(len(column), -1)
    found = {
        'mean': column.mean(axis=0),
        'std': column.std(axis=0),
        'min': column.min(axis=0),
        'max': column.max(axis=0),
        'q01': np.quantile(column, 0.01, axis=0),
        'q99': np.quantile(column, 0.99, axis=0),
    }
    return {key: [float(number) for number in found[key]] for key in KEYS}


def episode_statistics(values: Array) -> dict[str, list[float]]:
    """Returns min, max, mean, std and count of each column of (n, D) or (n,) numbers.

    These are the statistics in meta/episodes_stats.jsonl of LeRobot v2.1.
    """
    column = np.asarray(values, float).reshape(len(values), -1)
    found = {
        'min': column.min(axis=0),
        'max': column.max(axis=0),
        'mean': column.mean(axis=0),
        'std': column.std(axis=0),
    }
    return {**{key: numbers.tolist() for key, numbers in found.items()}, 'count': [len(column)]}


def episode_stats_with_quantiles(values: Array) -> dict[str, list[float]]:
    """Returns `episode_statistics` and five quantiles, as LeRobot v3.0 has them for each episode."""
    column = np.asarray(values, float).reshape(len(values), -1)
    quantiles = np.quantile(column, list(_QUANTILES.values()), axis=0)
    return {
        **episode_statistics(values),
        **{key: found.tolist() for key, found in zip(_QUANTILES, quantiles, strict=True)},
    }


def aggregate_stats(episodes: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns statistics over episodes from those of each episode.

    They are exact except for quantiles, for which LeRobot takes the mean over episodes.
    """
    counts = np.array([episode['count'][0] for episode in episodes], float)
    arrays = {key: np.array([episode[key] for episode in episodes]) for key in episodes[0] if key != 'count'}
    shares = (counts / counts.sum()).reshape(-1, *[1] * (arrays['mean'].ndim - 1))
    mean = (arrays['mean'] * shares).sum(axis=0)
    variance = ((arrays['std'] ** 2 + (arrays['mean'] - mean) ** 2) * shares).sum(axis=0)
    found = {
        'min': arrays['min'].min(axis=0),
        'max': arrays['max'].max(axis=0),
        'mean': mean,
        'std': np.sqrt(variance),
    }
    found |= {key: (arrays[key] * shares).sum(axis=0) for key in _QUANTILES}
    return {**{key: numbers.tolist() for key, numbers in found.items()}, 'count': [int(counts.sum())]}


def fingerprints(features: dict[str, Any]) -> dict[str, str]:
    """Returns the hashes by which GR00T N1.7 knows whether statistics belong to these features."""
    floats = {name: feature for name, feature in features.items() if 'float' in feature['dtype']}
    return {
        name: _hashed({'dtype': f['dtype'], 'feature': name, 'shape': f['shape']})
        for name, f in floats.items()
    }


def relative_statistics(
    episodes: list[tuple[Array, Array]], horizon: int, with_fingerprint: bool
) -> dict[str, Any]:
    """Returns relative_stats.json: statistics of T_state^-1 T_target (H, 9) for each step of a chunk.

    They are over all rows with a whole chunk after them.
    `episodes` are poses of states and of actions, (n, 9) each, as XYZ_ROT6D.
    """
    chunks = []
    for states, actions in episodes:
        for row in range(len(states) - horizon + 1):
            chunks.append(relative_9d(states[row], actions[row : row + horizon]))
    values = np.array(chunks, np.float32)
    found = {
        'max': values.max(axis=0),
        'min': values.min(axis=0),
        'q01': np.quantile(values, 0.01, axis=0),
        'q99': np.quantile(values, 0.99, axis=0),
        'mean': values.mean(axis=0),
        'std': values.std(axis=0),
    }
    stats: dict[str, Any] = {EEF_9D: {key: numbers.astype(float).tolist() for key, numbers in found.items()}}
    if with_fingerprint:
        config = {
            'embodiment_tag': _TAG,
            'action_key': EEF_9D,
            'action_delta_indices': list(range(horizon)),
            'state_delta_indices': [0],
            'rep': 'RELATIVE',
            'type': 'EEF',
            'format': 'XYZ_ROT6D',
            'state_key': None,
        }
        stats['__fingerprints__'] = {EEF_9D: _hashed(config)}
    return stats


def _hashed(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(',', ':'))
    return f'sha256:{hashlib.sha256(text.encode()).hexdigest()}'


def image_stats(video: Path) -> dict[str, Any]:
    """Returns statistics of the colours of a video, from 0 to 1, shaped (3, 1, 1).

    They are from a few keyframes, every fourth pixel of every fourth line: LeRobot takes smaller images too,
    and decoding all frames would take longer than the conversion.
    """
    images = np.stack([image[::_PIXEL, ::_PIXEL] for image in read_keyframes(video, _IMAGES)])
    colours = images.reshape(-1, 3).astype(np.float32) / 255.0
    found = {
        'min': colours.min(axis=0),
        'max': colours.max(axis=0),
        'mean': colours.mean(axis=0),
        'std': colours.std(axis=0),
    }
    found |= dict(zip(_QUANTILES, np.quantile(colours, list(_QUANTILES.values()), axis=0), strict=True))
    return {
        **{key: numbers.reshape(3, 1, 1).astype(float).tolist() for key, numbers in found.items()},
        'count': [len(images)],
    }
