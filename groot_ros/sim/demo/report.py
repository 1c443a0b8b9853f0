# SPDX-License-Identifier: Apache-2.0
"""report.html of the demo: metrics, plots and images in one file without external links."""

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
from groot_ros.dataset.writers.lerobot_v2 import video_file
from groot_ros.embodiment import Embodiment
from groot_ros.message_fields import header_stamp_ns
from groot_ros.reports.plots import frame_strip, plot
from groot_ros.reports.render import render_report
from groot_ros.sim.demo.metrics import Metric, ReplayMatch, dataset_episode
from groot_ros.video.mp4 import read_frames

_FRAMES = 6
_RECORDED_COLOUR = '#2f6fb0'
_REPLAYED_COLOUR = '#d1662a'


@dataclass
class DemoResult:
    """What the report of the demo shows."""

    bags: Path
    dataset: Path
    embodiment: Embodiment
    metrics: list[Metric]
    replay: ReplayMatch
    replayed_episode: int
    seconds: float


def write_report(result: DemoResult, path: Path) -> None:
    """Writes the report as one HTML file."""
    episodes = [_episode(result, index, bag) for index, bag in enumerate(find_bags(result.bags))]
    html = render_report(
        'sim/demo/report.html.j2',
        good=all(metric.good for metric in result.metrics),
        metrics=[_format_metric(metric) for metric in result.metrics],
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


def format_number(value: float) -> str:
    """Formats a number with four significant digits, and a whole number without decimals."""
    return f'{value:.0f}' if float(value).is_integer() else f'{value:.4g}'


def _format_metric(metric: Metric) -> dict[str, Any]:
    unit = f' {metric.unit}' if metric.unit else ''
    bound = '' if metric.bound is None else f'≤ {format_number(metric.bound)}{unit}'
    return {**metric.as_dict(), 'shown': f'{format_number(metric.value)}{unit}', 'bound_shown': bound}


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
    indices = np.linspace(0, rows - 1, _FRAMES).astype(int).tolist()
    return frame_strip(list(read_frames(video, indices)))


def _path_plot(match: ReplayMatch, fps: float) -> str:
    figure, axes = plt.subplots(2, 2, figsize=(11, 6.2), layout='constrained')
    times_s = np.arange(len(match.recorded)) / fps
    for axis, (panel, name) in enumerate(zip(axes.flat, 'xyz', strict=False)):
        panel.plot(times_s, match.recorded[:, axis], color=_RECORDED_COLOUR, linewidth=2.5, label='recorded')
        panel.plot(
            times_s,
            match.replayed[:, axis],
            color=_REPLAYED_COLOUR,
            linewidth=1.2,
            label='replayed, lag removed',
        )
        panel.set(ylabel=f'TCP {name} in base [m]', xlabel='time [s]')
        panel.legend(frameon=False)
    axes[1, 1].plot(times_s, match.distances_m * 1e3, color=_REPLAYED_COLOUR)
    axes[1, 1].set(ylabel='distance of replayed from recorded [mm]', xlabel='time [s]', ylim=(0, None))
    return plot(figure)


def _rate_plot(result: DemoResult) -> str:
    figure, (intervals, ages) = plt.subplots(1, 2, figsize=(11, 3.2), layout='constrained')
    for path in find_bags(result.bags):
        with EpisodeBag(path) as bag:
            messages = bag.messages({ROW_TOPIC: bag.connections(result.embodiment)[ROW_TOPIC]})
            rows = [message.decode() for message in messages]
        ticks_s = np.array([header_stamp_ns(row) / 1e9 for row in rows])
        times_s = ticks_s - ticks_s[0]
        max_ages_s = np.max([row.ages for row in rows], axis=1)
        intervals.plot(times_s[1:], np.diff(ticks_s) * 1e3, label=path.name, linewidth=1)
        ages.plot(times_s, max_ages_s * 1e3, label=path.name, linewidth=1)
    period_ms = 1e3 / result.embodiment.fps
    intervals.set(ylabel='interval between ticks [ms]', xlabel='time [s]', ylim=(0, 2.2 * period_ms))
    intervals.legend(frameon=False, fontsize=8)
    ages.legend(frameon=False, fontsize=8)
    ages.set(ylabel='age of the oldest state sample [ms]', xlabel='time [s]', ylim=(0, None))
    return plot(figure)
