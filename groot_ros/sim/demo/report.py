# SPDX-License-Identifier: Apache-2.0
"""report.html of the demo: figures, plots and frames in one file without links to elsewhere."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from groot_ros import __version__
from groot_ros.bags.message_types import ROW_TOPIC
from groot_ros.bags.reader import EpisodeBag
from groot_ros.dataset.sources.discover import find_bags
from groot_ros.dataset.writers.features import video_file
from groot_ros.embodiment import Embodiment
from groot_ros.message_fields import header_stamp_ns
from groot_ros.reports.plots import frame_strip, plot
from groot_ros.reports.render import render_report
from groot_ros.sim.demo.metrics import Metric, ReplayMatch, dataset_episode
from groot_ros.video.mp4 import read_frames

_FRAMES = 6
_RECORDED, _REPLAYED = '#2f6fb0', '#d1662a'


@dataclass
class DemoResult:
    """What the report shows."""

    bags: Path
    dataset: Path
    embodiment: Embodiment
    figures: list[Metric]
    replay: ReplayMatch
    replayed_episode: int
    seconds: float


def write_report(result: DemoResult, path: Path) -> None:
    """Writes one HTML file."""
    episodes = [_episode(result, index, bag) for index, bag in enumerate(find_bags(result.bags))]
    html = render_report(
        'sim/demo/report.html.j2',
        good=all(figure.good for figure in result.figures),
        figures=[_shown(figure) for figure in result.figures],
        episodes=episodes,
        fps=f'{result.embodiment.fps:g}',
        replayed=result.replayed_episode,
        made=datetime.now().strftime('%Y-%m-%d %H:%M'),
        version=__version__,
        seconds=f'{result.seconds:.0f}',
        path_plot=_path_plot(result.replay, result.embodiment.fps),
        rate_plot=_rate_plot(result),
    )
    path.write_text(html)


def number_text(value: float) -> str:
    """Four significant digits, whole numbers as such."""
    return f'{value:.0f}' if float(value).is_integer() else f'{value:.4g}'


def _shown(figure: Metric) -> dict[str, Any]:
    unit = f' {figure.unit}' if figure.unit else ''
    bound = '' if figure.bound is None else f'≤ {number_text(figure.bound)}{unit}'
    return {**figure.as_dict(), 'shown': f'{number_text(figure.value)}{unit}', 'bound_shown': bound}


def _episode(result: DemoResult, index: int, path: Path) -> dict[str, Any]:
    with EpisodeBag(path) as bag:
        info = bag.info
    rows = len(dataset_episode(result.dataset, index)['timestamp'])
    topics = [{'topic': topic, **counts} for topic, counts in info['counts']['topics'].items()]
    frames = _frame_strip(video_file(result.dataset, result.embodiment.cameras[0].feature, index), rows)
    return {
        'name': path.name,
        'outcome': info['outcome'],
        'task': info['task'],
        'rows': rows,
        'topics': topics,
        'frames': frames,
    }


def _frame_strip(video: Path, rows: int) -> str:
    """Six frames, evenly spaced."""
    return frame_strip(list(read_frames(video, np.linspace(0, rows - 1, _FRAMES).astype(int).tolist())))


def _path_plot(match: ReplayMatch, fps: float) -> str:
    figure, axes = plt.subplots(2, 2, figsize=(11, 6.2), layout='constrained')
    times_s = np.arange(len(match.recorded)) / fps
    for axis, (panel, name) in enumerate(zip(axes.flat, 'xyz', strict=False)):
        panel.plot(times_s, match.recorded[:, axis], color=_RECORDED, linewidth=2.5, label='recorded')
        panel.plot(
            times_s, match.replayed[:, axis], color=_REPLAYED, linewidth=1.2, label='replayed, lag removed'
        )
        panel.set(ylabel=f'TCP {name} in base [m]', xlabel='time [s]')
    axes[0, 0].legend(frameon=False)
    axes[1, 1].plot(times_s, match.distances_m * 1e3, color=_REPLAYED)
    axes[1, 1].set(ylabel='distance [mm]', xlabel='time [s]', ylim=(0, None))
    return plot(figure)


def _rate_plot(result: DemoResult) -> str:
    figure, (intervals, ages) = plt.subplots(1, 2, figsize=(11, 3.2), layout='constrained')
    for path in find_bags(result.bags):
        with EpisodeBag(path) as bag:
            rows = [
                message.decode()
                for message in bag.messages({ROW_TOPIC: bag.connections(result.embodiment)[ROW_TOPIC]})
            ]
        ticks_s = np.array([header_stamp_ns(row) / 1e9 for row in rows])
        intervals.plot(ticks_s[1:] - ticks_s[0], np.diff(ticks_s) * 1e3, label=path.name, linewidth=1)
        ages.plot(ticks_s - ticks_s[0], np.max([row.ages for row in rows], axis=1) * 1e3, linewidth=1)
    period_ms = 1e3 / result.embodiment.fps
    intervals.set(ylabel='interval between ticks [ms]', xlabel='time [s]', ylim=(0, 2.2 * period_ms))
    intervals.legend(frameon=False, fontsize=8)
    ages.set(ylabel='age of the oldest state sample [ms]', xlabel='time [s]', ylim=(0, None))
    return plot(figure)
