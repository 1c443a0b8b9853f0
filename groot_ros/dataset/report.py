# SPDX-License-Identifier: Apache-2.0
"""The report of a dataset as one HTML file: its content, distributions, and the ranges GR00T clips at."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from groot_ros.config_files import checked
from groot_ros.dataset.meta import DatasetMeta, column_to_array
from groot_ros.dataset.validation.validate import ValidationReport
from groot_ros.dimensions import dimensions, three_digits
from groot_ros.embodiment import ACTION_COLUMN, STATE_COLUMN, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.reports.plots import frame_strip, plot
from groot_ros.reports.render import render_report
from groot_ros.video.mp4 import read_frames

_IMAGES = 6
_COLUMNS = 4
_BLUE = '#2f6fb0'
_ORANGE = '#d1662a'


def write_report(root: Path, report: ValidationReport, path: Path) -> None:
    """Writes the report of a dataset that has been validated.

    Raises GrootRosError for a dataset with errors that leave nothing to draw.
    """
    try:
        html = _render(DatasetMeta(root), report)
    except (LookupError, TypeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise GrootRosError(
            f'The dataset {root} cannot be drawn ({reason}): correct the errors that were found first.'
        ) from error
    path.write_text(html)


def _render(meta: DatasetMeta, report: ValidationReport) -> str:
    columns = _columns(meta)
    lengths_s = np.array([episode['length'] for episode in meta.episodes]) / meta.fps
    tasks = Counter(task for episode in meta.episodes for task in episode['tasks'])
    state = _dimensions(meta, 'state')
    action = _dimensions(meta, 'action')
    return render_report(
        'dataset/report.html.j2',
        name=meta.root.resolve().name,
        report=report,
        fps=f'{meta.fps:g}',
        minutes=f'{lengths_s.sum() / 60:.1f}',
        tasks=tasks.most_common(),
        lengths=_lengths(lengths_s),
        state=_distributions(columns[STATE_COLUMN], meta.stats[STATE_COLUMN], state),
        action=_distributions(columns[ACTION_COLUMN], meta.stats[ACTION_COLUMN], action),
        steps=_steps(columns[ACTION_COLUMN], meta.modality['action']),
        cameras=[
            {'name': name, 'frames': _frames(meta, part['original_key'])}
            for name, part in meta.modality['video'].items()
        ],
        ranges=[
            *_ranges('state', state, meta.stats[STATE_COLUMN]),
            *_ranges('action', action, meta.stats[ACTION_COLUMN]),
        ],
    )


@dataclass
class Dimension:
    """A number of a row: its place in the column, its name and its unit, empty where it is not known."""

    index: int
    name: str
    unit: str


def _dimensions(meta: DatasetMeta, kind: str) -> list[Dimension]:
    """The dimensions that GR00T reads, named and with units as far as the dataset's embodiment says them."""
    fields = {field.name: dimensions(field) for field in getattr(_embodiment(meta), kind, ())}
    found = []
    for name, part in meta.modality[kind].items():
        size = part['end'] - part['start']
        named = fields.get(name, ())
        if len(named) != size:
            named = [(str(number), '') for number in range(1, size + 1)]
        places = range(part['start'], part['end'])
        found += [
            Dimension(k, f'{name} {axis}'.strip(), unit)
            for k, (axis, unit) in zip(places, named, strict=True)
        ]
    return found


def _embodiment(meta: DatasetMeta) -> Embodiment | None:
    """The embodiment that our converter noted in the dataset; None for a dataset of others."""
    try:
        return checked(Embodiment, meta.conversion['embodiment'], 'The embodiment of the dataset')
    except (GrootRosError, KeyError):
        return None


def _columns(meta: DatasetMeta) -> dict[str, Array]:
    names = [STATE_COLUMN, ACTION_COLUMN]
    tables = [meta.rows(episode['episode_index'], names) for episode in meta.episodes]
    return {name: np.concatenate([column_to_array(table, name) for table in tables]) for name in names}


def _lengths(lengths_s: Array) -> str:
    figure, panel = plt.subplots(figsize=(11, 2.2), layout='constrained')
    panel.bar(np.arange(len(lengths_s)), lengths_s, color=_BLUE)
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.set(xlabel='episode', ylabel='length [s]')
    return plot(figure)


def _distributions(values: Array, stats: dict[str, list[float]], found: list[Dimension]) -> str:
    """A histogram of each dimension; the lines are its 1st and 99th percentile."""
    lines = -(-len(found) // _COLUMNS)
    figure, panels = plt.subplots(
        lines, _COLUMNS, figsize=(11, 1.75 * lines), layout='constrained', squeeze=False
    )
    for panel in panels.flat[len(found) :]:
        panel.set_axis_off()
    for panel, dimension in zip(panels.flat, found, strict=False):
        panel.hist(values[:, dimension.index], bins=40, color=_BLUE)
        for key in ('q01', 'q99'):
            panel.axvline(stats[key][dimension.index], color=_ORANGE, linewidth=1)
        panel.set_title(dimension.name, fontsize=8)
        panel.set_xlabel(dimension.unit, fontsize=7)
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
        unit = 'mrad' if 'orientation' in name or 'rotation' in name else 'mm'
        panel.set(title=name, xlabel=f'size of a step [{unit}]', ylabel='rows')
    return plot(figure)


def _frames(meta: DatasetMeta, feature: str) -> str:
    """The first frame of some episodes, as one image."""
    count = len(meta.episodes)
    chosen = np.unique(np.linspace(0, count - 1, min(_IMAGES, count)).astype(int))
    frames = []
    for position in chosen:
        index = meta.episodes[position]['episode_index']
        first = meta.first_frame(feature, index)
        frames.append(next(read_frames(meta.video_file(feature, index), [first])))
    return frame_strip(frames)


def _ranges(kind: str, found: list[Dimension], stats: dict[str, list[float]]) -> list[dict[str, Any]]:
    keys = ('min', 'q01', 'mean', 'q99', 'max', 'std')
    return [
        {
            'name': f'{kind}: {dimension.name}',
            'unit': dimension.unit,
            **{key: three_digits(stats[key][dimension.index]) for key in keys},
        }
        for dimension in found
    ]
