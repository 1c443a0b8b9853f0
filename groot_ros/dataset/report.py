# SPDX-License-Identifier: Apache-2.0
"""The page of a dataset: what is in it, how it is distributed, and what a policy would be clipped at. One HTML file."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from matplotlib import pyplot as plt

from groot_ros.dataset.validation.validate import ValidationReport
from groot_ros.dataset.writers.features import data_file, video_file
from groot_ros.embodiment import ACTION_COLUMN, STATE_COLUMN
from groot_ros.geometry import Array
from groot_ros.reports.plots import frame_strip, plot
from groot_ros.reports.render import render_report
from groot_ros.video.mp4 import read_keyframes

_PICTURES = 6
_COLUMNS = 4
_BLUE, _ORANGE = '#2f6fb0', '#d1662a'


def write_report(root: Path, report: ValidationReport, path: Path) -> None:
    """Writes the page of a dataset that has been validated."""
    meta = {
        name: json.loads((root / 'meta' / f'{name}.json').read_text())
        for name in ('info', 'modality', 'stats')
    }
    episodes = [json.loads(line) for line in (root / 'meta' / 'episodes.jsonl').read_text().splitlines()]
    columns = _columns(root, [episode['episode_index'] for episode in episodes])
    lengths_s = np.array([episode['length'] for episode in episodes]) / meta['info']['fps']
    html = render_report(
        'dataset/report.html.j2',
        name=root.resolve().name,
        report=report,
        fps=f'{meta["info"]["fps"]:g}',
        minutes=f'{lengths_s.sum() / 60:.1f}',
        tasks=Counter(task for episode in episodes for task in episode['tasks']).most_common(),
        lengths=_lengths(lengths_s),
        state=_distributions(columns[STATE_COLUMN], meta['stats'][STATE_COLUMN], meta['modality']['state']),
        action=_distributions(
            columns[ACTION_COLUMN], meta['stats'][ACTION_COLUMN], meta['modality']['action']
        ),
        steps=_steps(columns[ACTION_COLUMN], meta['modality']['action']),
        cameras=[
            {'name': name, 'frames': _frames(root, part['original_key'], episodes)}
            for name, part in meta['modality']['video'].items()
        ],
        ranges=[
            *_ranges('state', meta['modality'], meta['stats'][STATE_COLUMN]),
            *_ranges('action', meta['modality'], meta['stats'][ACTION_COLUMN]),
        ],
    )
    path.write_text(html)


def _columns(root: Path, indices: list[int]) -> dict[str, Array]:
    tables = [
        pq.read_table(data_file(root, index), columns=[STATE_COLUMN, ACTION_COLUMN]) for index in indices
    ]
    return {
        name: np.concatenate([np.array(table[name].to_pylist(), float) for table in tables])
        for name in (STATE_COLUMN, ACTION_COLUMN)
    }


def _lengths(lengths_s: Array) -> str:
    figure, panel = plt.subplots(figsize=(11, 2.2), layout='constrained')
    panel.bar(np.arange(len(lengths_s)), lengths_s, color=_BLUE)
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.set(xlabel='episode', ylabel='length [s]')
    return plot(figure)


def _distributions(values: Array, stats: dict[str, list[float]], parts: dict[str, Any]) -> str:
    """A histogram of each dimension; the lines are its 1st and 99th percentile."""
    names = [f'{name}[{k}]' for name, part in parts.items() for k in range(part['end'] - part['start'])]
    dimensions = [k for part in parts.values() for k in range(part['start'], part['end'])]
    lines = -(-len(names) // _COLUMNS)
    figure, panels = plt.subplots(
        lines, _COLUMNS, figsize=(11, 1.5 * lines), layout='constrained', squeeze=False
    )
    for panel in panels.flat[len(names) :]:
        panel.set_axis_off()
    for panel, name, k in zip(panels.flat, names, dimensions, strict=False):
        panel.hist(values[:, k], bins=40, color=_BLUE)
        for key in ('q01', 'q99'):
            panel.axvline(stats[key][k], color=_ORANGE, linewidth=1)
        panel.set_title(name, fontsize=8)
        panel.tick_params(labelsize=7)
        panel.locator_params(axis='x', nbins=4)
        panel.set_yticks([])
    return plot(figure)


def _steps(actions: Array, parts: dict[str, Any]) -> str:
    """Sizes of the deltas: GR00T predicts in [-1, 1] of these ranges, and clips."""
    deltas = [(name, part) for name, part in parts.items() if part['end'] - part['start'] == 3]
    if not deltas:
        return ''
    figure, panels = plt.subplots(1, len(deltas), figsize=(11, 2.4), layout='constrained', squeeze=False)
    for panel, (name, part) in zip(panels[0], deltas, strict=True):
        panel.hist(
            np.linalg.norm(actions[:, part['start'] : part['end']], axis=1) * 1e3, bins=60, color=_BLUE
        )
        panel.set(title=name, xlabel='size of a step [mm or mrad]', ylabel='rows')
    return plot(figure)


def _frames(root: Path, feature: str, episodes: list[dict[str, Any]]) -> str:
    """The first frame of some episodes."""
    chosen = np.unique(np.linspace(0, len(episodes) - 1, min(_PICTURES, len(episodes))).astype(int))
    videos = [video_file(root, feature, episodes[index]['episode_index']) for index in chosen]
    return frame_strip([next(read_keyframes(video, 1)) for video in videos])


def _ranges(kind: str, modality: dict[str, Any], stats: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [
        {
            'name': f'{kind}.{name}[{k - part["start"]}]',
            **{key: f'{stats[key][k]:.5g}' for key in ('min', 'q01', 'mean', 'q99', 'max', 'std')},
        }
        for name, part in modality[kind].items()
        for k in range(part['start'], part['end'])
    ]
