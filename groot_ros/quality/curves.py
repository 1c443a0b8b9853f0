# SPDX-License-Identifier: Apache-2.0
"""Curves of an episode over time, for its report: with names, units, and marks where data are missing."""

from collections.abc import Iterable, Iterator

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from groot_ros.dimensions import dimensions, with_unit
from groot_ros.embodiment import StateField
from groot_ros.geometry import Array, continuous_signs
from groot_ros.quality.trace import EpisodeTrace
from groot_ros.reports.plots import plot

COLOURS = ('#2f6fb0', '#d1662a', '#18794e', '#8e4ec6', '#b58900', '#5c6b7a', '#c2298a')
TIME = 'time since the first row [s]'
_GAP_COLOUR = '#b42318'
_WIDTH = 11


def colours() -> Iterable[str]:
    """Colours of the curves in a panel."""
    return COLOURS * 3


def times_s(trace: EpisodeTrace, stamps_ns: Iterable[int]) -> Array:
    """Times since the first tick in s."""
    return (np.array(stamps_ns, np.int64) - int(trace.ticks_ns[0])) / 1e9


def gaps_s(trace: EpisodeTrace, topic: str, longer_s: float) -> list[tuple[float, float]]:
    """Begin and end of each time in which no message of a topic came for `longer_s` more than usual."""
    if topic not in trace.streams or len(trace.streams[topic].stamps_ns) < 2:
        return []
    stamps_s = times_s(trace, trace.streams[topic].stamps_ns)
    steps_s = np.diff(stamps_s)
    long = np.flatnonzero(steps_s > np.median(steps_s) + longer_s)
    return [(float(stamps_s[k]), float(stamps_s[k + 1])) for k in long]


def state_plot(trace: EpisodeTrace, longer_s: float) -> str:
    """The state over time: a panel for each field and unit, with gaps of its topic and pauses."""
    panels = [(field, *group) for field in trace.embodiment.state for group in _groups(trace, field)]
    figure, grid = plt.subplots(
        len(panels), 1, figsize=(_WIDTH, 2.0 * len(panels)), layout='constrained', sharex=True, squeeze=False
    )
    for axes, (field, label, names, values) in zip(grid[:, 0], panels, strict=True):
        _draw(axes, trace, names, values)
        mark_gaps(axes, gaps_s(trace, field.topic, longer_s))
        axes.set_ylabel(label, fontsize=8)
        put_legend(axes)
    grid[-1, 0].set_xlabel(f'{TIME}; dotted: a pause')
    return plot(figure)


def brightness_plot(trace: EpisodeTrace) -> str:
    """Mean brightness of the images of each camera, with rows that have no new image."""
    figure, axes = plt.subplots(figsize=(_WIDTH, 2.2), layout='constrained')
    ticks_s = times_s(trace, trace.ticks_ns)
    for colour, (column, camera) in zip(colours(), enumerate(trace.embodiment.cameras), strict=False):
        axes.plot(ticks_s, trace.brightness[:, column], color=colour, linewidth=1.0, label=camera.name)
        repeated = trace.repeated[:, column]
        axes.plot(ticks_s[repeated], trace.brightness[repeated, column], '.', color=colour, markersize=4)
    period_s = 1 / trace.embodiment.fps
    mark_gaps(axes, [(tick_s - period_s, tick_s) for tick_s in ticks_s[trace.filled_rows]], 'no new image')
    axes.set(ylabel='brightness [0 to 255]', xlabel=f'{TIME}; dots: the same image again', ylim=(0, 255))
    put_legend(axes)
    return plot(figure)


def mark_gaps(axes: Axes, gaps: list[tuple[float, float]], label: str = 'no message') -> None:
    """Shades the times (begin, end) in s at which there are no data."""
    for begin_s, end_s in gaps:
        axes.axvspan(begin_s, end_s, color=_GAP_COLOUR, alpha=0.18, linewidth=0, label=label)


def put_legend(axes: Axes) -> None:
    """A legend on the right of the panel, each name once."""
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if unique:
        axes.legend(
            unique.values(), unique.keys(), frameon=False, fontsize=7, loc='upper left', bbox_to_anchor=(1, 1)
        )


def _groups(trace: EpisodeTrace, field: StateField) -> Iterator[tuple[str, list[str], Array]]:
    """Label, names and values (n, k) of the numbers of a field that share a unit."""
    values = trace.states[:, trace.embodiment.state_slices[field.name]]
    named = dimensions(field)
    quaternion = field.quaternion
    if quaternion is not None:
        values[:, quaternion] = continuous_signs(values[:, quaternion])
    columns = {k: unit for k, (_, unit) in enumerate(named)}
    for unit in dict.fromkeys(columns.values()):
        chosen = [k for k, other in columns.items() if other == unit]
        is_rotation = quaternion is not None and chosen[0] >= quaternion.start
        label = f'{field.name}\nquaternion' if is_rotation else with_unit(field.name, unit, '\n')
        yield label, [named[k][0] or field.name for k in chosen], values[:, chosen]


def _draw(axes: Axes, trace: EpisodeTrace, names: list[str], values: Array) -> None:
    """Curves that are broken at pauses."""
    ticks_s = times_s(trace, trace.ticks_ns)
    starts = np.flatnonzero(np.diff(trace.segments)) + 1
    broken_s = np.insert(ticks_s, starts, np.nan)
    broken = np.insert(values, starts, np.nan, axis=0)
    for colour, name, column in zip(colours(), names, broken.T, strict=False):
        axes.plot(broken_s, column, color=colour, linewidth=1.0, label=name)
    for at_s in ticks_s[starts]:
        axes.axvline(at_s, color='#55606e', linestyle=':')
