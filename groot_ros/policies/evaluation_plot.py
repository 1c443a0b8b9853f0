# SPDX-License-Identifier: Apache-2.0
"""Draws an open-loop evaluation: errors over the steps of a chunk, and predicted over recorded actions."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from groot_ros.dimensions import dimensions, with_unit
from groot_ros.embodiment import ActionField, Embodiment
from groot_ros.geometry import Array
from groot_ros.policies.evaluate import Evaluation

# Texts in an SVG stay texts, which can be searched and copied.
matplotlib.rcParams['svg.fonttype'] = 'none'
_COLOURS = ('#2f6fb0', '#d1662a', '#18794e', '#8e4ec6', '#b58900', '#c2298a')
_RECORDED = '#1c2430'


def write_evaluation_plot(evaluations: Sequence[Evaluation], embodiment: Embodiment, path: Path) -> None:
    """Writes a figure with a column for each action.

    At the top the mean absolute error by step of the chunk, below each dimension over the first episode: a
    line for what was recorded, and one for each chunk of each policy. Positions of deltas are added up.
    """
    fields = [
        action for action in embodiment.action if any(action.name in result.keys for result in evaluations)
    ]
    lines = 1 + max(field.size for field in fields)
    figure = Figure(figsize=(4.8 * len(fields), 3.2 + 1.7 * (lines - 1)), layout='constrained')
    heights = [2, *([1] * (lines - 1))]
    panels = figure.subplots(lines, len(fields), squeeze=False, height_ratios=heights)
    for column, field in zip(panels.T, fields, strict=True):
        _draw_errors(column[0], evaluations, field)
        for axes, index in zip(column[1:], range(lines - 1), strict=True):
            _draw_dimension(axes, evaluations, field, index, embodiment.fps)
        column[field.size].set_xlabel('time in the first episode [s]')
    figure.legend(*_legend(panels), loc='outside upper center', ncols=4, frameon=False)
    figure.savefig(path, dpi=110)


def names(evaluations: Sequence[Evaluation]) -> list[str]:
    """The name of each policy, numbered where two have the same."""
    counts = Counter(result.policy for result in evaluations)
    numbers: Counter[str] = Counter()
    found = []
    for result in evaluations:
        numbers[result.policy] += 1
        number = f' ({numbers[result.policy]})' if counts[result.policy] > 1 else ''
        found.append(f'{result.policy}{number}')
    return found


def _draw_errors(axes: Axes, evaluations: Sequence[Evaluation], field: ActionField) -> None:
    unit = dimensions(field)[0][1]
    policies = zip(_COLOURS * len(evaluations), names(evaluations), evaluations, strict=False)
    for colour, label, result in policies:
        if field.name in result.keys:
            errors = result.keys[field.name].as_dict()['mae_by_step']
            axes.plot(range(1, len(errors) + 1), errors, marker='.', color=colour, label=label)
    axes.set(title=field.name, xlabel='step of the chunk', ylabel=with_unit('mean absolute error', unit))
    axes.set_ylim(0, 1.1 * axes.dataLim.ymax or 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _tidy(axes)


def _draw_dimension(
    axes: Axes, evaluations: Sequence[Evaluation], field: ActionField, index: int, fps: float
) -> None:
    """What was recorded of one dimension, and over it what each chunk predicts."""
    if index >= field.size:
        axes.set_axis_off()
        return
    added = field.kind == 'delta_position'
    recorded = next(result.recorded[field.name] for result in evaluations if field.name in result.recorded)
    path = _path(recorded[:, index], 0.0, added)
    axes.plot(np.arange(len(path)) / fps, path, color=_RECORDED, linewidth=2, alpha=0.5, label='recorded')
    for colour, result in zip(_COLOURS * len(evaluations), evaluations, strict=False):
        for row, chunk in result.predicted.get(field.name, []):
            begin = path[row - 1] if added and row else 0.0
            times_s = (row + np.arange(len(chunk))) / fps
            axes.plot(times_s, _path(chunk[:, index], begin, added), color=colour, linewidth=0.9)
    name, unit = dimensions(field)[index]
    axes.set_ylabel(with_unit(f'{name or field.name}{", added up" if added else ""}', unit), fontsize=8)
    _tidy(axes)


def _path(values: Array, begin: float, added: bool) -> Array:
    """Values as they are, or added up from `begin` on."""
    return begin + np.cumsum(values) if added else values


def _legend(panels: np.ndarray) -> tuple[list, list[str]]:
    """Handles and names of the curves of all panels, each name once."""
    found = {}
    for axes in panels.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return [*found.values()], [*found]


def _tidy(axes: Axes) -> None:
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(alpha=0.25)
