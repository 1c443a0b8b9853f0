# SPDX-License-Identifier: Apache-2.0
"""Draws an open-loop evaluation: errors over the steps of a chunk, and predicted over recorded actions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from groot_ros.dimensions import dimensions, with_unit
from groot_ros.embodiment import EEF_6D, EEF_9D, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.policies.evaluate import Evaluation
from groot_ros.policies.recorded_actions import POSITION, ROTATION

# Texts in an SVG stay texts, which can be searched and copied.
matplotlib.rcParams['svg.fonttype'] = 'none'
_COLOURS = ('#2f6fb0', '#d1662a', '#18794e', '#8e4ec6', '#b58900', '#c2298a')
_RECORDED = '#1c2430'


@dataclass(frozen=True)
class _Compared:
    """A column of the figure: its name, name and unit of each number, and whether these are added up."""

    name: str
    dimensions: tuple[tuple[str, str], ...]
    is_added: bool = False


def write_evaluation_plot(evaluations: Sequence[Evaluation], embodiment: Embodiment, path: Path) -> None:
    """Writes a figure with a column for each action.

    At the top the mean absolute error by step of the chunk, below each dimension over the first episode: a
    line for what was recorded, and one for each chunk of each policy. Positions of deltas are added up.
    Raises GrootRosError if nothing was compared.
    """
    compared = _compared(evaluations, embodiment)
    if not compared:
        raise GrootRosError(f'{path} is not drawn: no policy answers an action that was recorded.')
    lines = 1 + max(len(action.dimensions) for action in compared)
    figure = Figure(figsize=(4.8 * len(compared), 3.2 + 1.7 * (lines - 1)), layout='constrained')
    heights = [2, *([1] * (lines - 1))]
    panels = figure.subplots(lines, len(compared), squeeze=False, height_ratios=heights)
    for column, action in zip(panels.T, compared, strict=True):
        _draw_errors(column[0], evaluations, action)
        for axes, index in zip(column[1:], range(lines - 1), strict=True):
            _draw_dimension(axes, evaluations, action, index, embodiment.fps)
        column[len(action.dimensions)].set_xlabel('time in the first episode [s]')
    figure.legend(*_legend(panels), loc='outside upper center', ncols=4, frameon=False)
    figure.savefig(path, dpi=110)


def _compared(evaluations: Sequence[Evaluation], embodiment: Embodiment) -> list[_Compared]:
    """The actions of the embodiment, then the poses, that at least one policy answers."""
    possible = [
        _Compared(action.name, dimensions(action), action.kind == 'delta_position')
        for action in embodiment.action
    ]
    for key in (EEF_9D, EEF_6D):
        possible.append(_Compared(f'{key}{POSITION}', (('x', 'm'), ('y', 'm'), ('z', 'm'))))
        possible.append(_Compared(f'{key}{ROTATION}', (('angle to the recorded one', 'rad'),)))
    return [action for action in possible if any(action.name in result.keys for result in evaluations)]


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


def _draw_errors(axes: Axes, evaluations: Sequence[Evaluation], action: _Compared) -> None:
    unit = action.dimensions[0][1]
    policies = zip(_COLOURS * len(evaluations), names(evaluations), evaluations, strict=False)
    for colour, label, result in policies:
        if action.name in result.keys:
            errors = result.keys[action.name].as_dict()['mae_by_step']
            axes.plot(range(1, len(errors) + 1), errors, marker='.', color=colour, label=label)
    axes.set(title=action.name, xlabel='step of the chunk', ylabel=with_unit('mean absolute error', unit))
    axes.set_ylim(0, 1.1 * axes.dataLim.ymax or 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _tidy(axes)


def _draw_dimension(
    axes: Axes, evaluations: Sequence[Evaluation], action: _Compared, index: int, fps: float
) -> None:
    """What was recorded of one dimension, and over it what each chunk predicts."""
    if index >= len(action.dimensions):
        axes.set_axis_off()
        return
    added = action.is_added
    recorded = next(result.recorded[action.name] for result in evaluations if action.name in result.recorded)
    path = _path(recorded[:, index], 0.0, added)
    axes.plot(np.arange(len(path)) / fps, path, color=_RECORDED, linewidth=2, alpha=0.5, label='recorded')
    for colour, result in zip(_COLOURS * len(evaluations), evaluations, strict=False):
        for row, chunk in result.predicted.get(action.name, []):
            begin = path[row - 1] if added and row else 0.0
            times_s = (row + np.arange(len(chunk))) / fps
            axes.plot(times_s, _path(chunk[:, index], begin, added), color=colour, linewidth=0.9)
    name, unit = action.dimensions[index]
    axes.set_ylabel(with_unit(f'{name or action.name}{", added up" if added else ""}', unit), fontsize=8)
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
