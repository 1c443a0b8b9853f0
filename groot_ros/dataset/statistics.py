"""stats.json as GR00T computes it (over all rows, in float32, standard deviation with ddof 0, linear quantiles), and LeRobot's of each episode."""

from pathlib import Path
from typing import Any

import numpy as np

from groot_ros.bags.video import read_keyframes
from groot_ros.geometry import Array

KEYS = ('mean', 'std', 'min', 'max', 'q01', 'q99')
_PICTURES, _PIXEL = 8, 4


def statistics(values: Array) -> dict[str, list[float]]:
    """mean, std, min, max, q01 and q99 of each column of (n, D) or (n,) numbers."""
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
    """min, max, mean, std and count of each column of (n, D) or (n,) numbers, as meta/episodes_stats.jsonl of LeRobot v2.1 has them."""
    column = np.asarray(values, float).reshape(len(values), -1)
    found = {'min': column.min(axis=0), 'max': column.max(axis=0), 'mean': column.mean(axis=0), 'std': column.std(axis=0)}
    return {**{key: numbers.tolist() for key, numbers in found.items()}, 'count': [len(column)]}


def picture_statistics(video: Path) -> dict[str, Any]:
    """The same for the colours of a video, 0 to 1, shaped (3, 1, 1).

    They are of a few keyframes, every fourth pixel of every fourth line: LeRobot takes smaller pictures too, and decoding all would
    take longer than converting.
    """
    pictures = np.stack([image[::_PIXEL, ::_PIXEL] for image in read_keyframes(video, _PICTURES)])
    colours = pictures.reshape(-1, 3).astype(np.float32) / 255.0
    found = {'min': colours.min(axis=0), 'max': colours.max(axis=0), 'mean': colours.mean(axis=0), 'std': colours.std(axis=0)}
    return {**{key: numbers.reshape(3, 1, 1).astype(float).tolist() for key, numbers in found.items()}, 'count': [len(pictures)]}
