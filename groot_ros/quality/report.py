# SPDX-License-Identifier: Apache-2.0
"""The HTML report of an episode: verdict, reasons, plots and frames in one file without links."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from groot_ros.bags.message_types import VIDEO_TYPE
from groot_ros.bags.reader import EpisodeBag
from groot_ros.embodiment import CameraField
from groot_ros.quality.trace import EpisodeTrace
from groot_ros.quality.verdict import LEVELS, Finding, Verdict, format_value
from groot_ros.reports.plots import frame_strip, plot
from groot_ros.reports.render import render_report
from groot_ros.video.frame import decode_frame
from groot_ros.video.h264 import H264Decoder

_FRAMES = 6
_COLOURS = ('#2f6fb0', '#d1662a', '#18794e', '#8e4ec6', '#b58900', '#5c6b7a', '#c2298a')


def write_report(bag: EpisodeBag, trace: EpisodeTrace, verdict: Verdict, path: Path) -> None:
    """Writes the HTML report of one episode to `path`."""
    worst_first = sorted(verdict.findings, key=lambda finding: -LEVELS.index(finding.level))
    html = render_report(
        'quality/report.html.j2',
        verdict=verdict,
        duration=f'{trace.rows / trace.embodiment.fps:.1f}',
        fps=f'{trace.embodiment.fps:g}',
        operator=bag.info.get('operator', ''),
        notes=bag.info.get('notes', ''),
        findings=[{**vars(finding), 'limits': _limits(finding)} for finding in worst_first],
        streams=[_stream_line(trace, topic) for topic in trace.streams],
        rates=_rate_plot(trace),
        ages=_age_plot(trace),
        states=_state_plot(trace),
        brightness=_brightness_plot(trace),
        cameras=[
            {'name': camera.name, 'frames': frame_strip(_frames(bag, camera))}
            for camera in trace.embodiment.cameras
        ],
    )
    path.write_text(html)


def _limits(finding: Finding) -> str:
    """The limits for a warning and a failure; a dash where there is none."""
    limits = [
        '-' if limit is None else format_value(limit, finding.unit) for limit in (finding.warn, finding.fail)
    ]
    return ' / '.join(limits)


def _stream_line(trace: EpisodeTrace, topic: str) -> dict[str, Any]:
    """The numbers of a topic, as texts for the table of streams."""
    stream = trace.streams[topic]
    expected_hz = trace.embodiment.expected_hz(topic)
    delays_ms = stream.delays_s * 1e3
    percentiles_ms = np.percentile(delays_ms, [50, 95, 100]) if len(delays_ms) else []
    return {
        'topic': topic,
        'received': len(stream.stamps_ns),
        'lost': stream.lost,
        'rate': f'{stream.rate_hz:.2f}',
        'expected': f'{expected_hz:g}' if expected_hz else '',
        'gap': f'{stream.max_gap_ns / 1e6:.1f}',
        'delay': ', '.join(f'{value:.2f}' for value in percentiles_ms),
    }


def _times_s(trace: EpisodeTrace, stamps_ns: Any) -> np.ndarray:
    """Times since the first tick in s."""
    return (np.array(stamps_ns, np.int64) - int(trace.ticks_ns[0])) / 1e9


def _colours() -> Iterable[str]:
    return _COLOURS * 3


def _rate_plot(trace: EpisodeTrace) -> str:
    figure, (steps, delays) = plt.subplots(1, 2, figsize=(11, 3.2), layout='constrained')
    for colour, topic in zip(_colours(), trace.row_streams, strict=False):
        stream = trace.streams[topic]
        times_s = _times_s(trace, stream.stamps_ns)
        steps.plot(times_s[1:], np.diff(times_s) * 1e3, color=colour, linewidth=0.9, label=topic)
        delays.plot(times_s, stream.delays_s * 1e3, color=colour, linewidth=0.9)
    steps.set(ylabel='step between stamps [ms]', xlabel='time [s]', yscale='symlog')
    steps.legend(frameon=False, fontsize=8)
    delays.set(ylabel='arrival after stamp [ms]', xlabel='time [s]')
    return plot(figure)


def _age_plot(trace: EpisodeTrace) -> str:
    figure, (ages, frames) = plt.subplots(1, 2, figsize=(11, 3.2), layout='constrained')
    _plot_columns(ages, trace, trace.ages_s, [field.name for field in trace.embodiment.state])
    _plot_columns(frames, trace, trace.frame_ages_s, [camera.name for camera in trace.embodiment.cameras])
    ages.set(ylabel='age of the nearest sample [ms]', xlabel='time [s]', ylim=(0, None))
    frames.set(ylabel='frame after tick [ms]', xlabel='time [s]')
    return plot(figure)


def _plot_columns(axes: Axes, trace: EpisodeTrace, ages_s: np.ndarray, names: list[str]) -> None:
    times_s = _times_s(trace, trace.ticks_ns)
    for colour, name, column in zip(_colours(), names, ages_s.T, strict=False):
        axes.plot(times_s, column * 1e3, color=colour, linewidth=0.9, label=name)
    axes.legend(frameon=False, fontsize=8)


def _state_plot(trace: EpisodeTrace) -> str:
    fields = trace.embodiment.state
    figure, panels = plt.subplots(
        len(fields), 1, figsize=(11, 1.7 * len(fields)), layout='constrained', sharex=True, squeeze=False
    )
    times_s = _times_s(trace, trace.ticks_ns)
    for panel, field in zip(panels[:, 0], fields, strict=True):
        values = trace.states[:, trace.embodiment.state_slices[field.name]]
        for colour, column in zip(_colours(), values.T, strict=False):
            panel.plot(times_s, column, color=colour, linewidth=1.0)
        panel.set_ylabel(field.name, fontsize=8)
        for at_s in times_s[np.flatnonzero(np.diff(trace.segments)) + 1]:
            panel.axvline(at_s, color='#55606e', linestyle=':')
    panels[-1, 0].set_xlabel('time [s]; dotted: a pause')
    return plot(figure)


def _brightness_plot(trace: EpisodeTrace) -> str:
    figure, panel = plt.subplots(figsize=(11, 2.0), layout='constrained')
    times_s = _times_s(trace, trace.ticks_ns)
    for colour, (column, camera) in zip(_colours(), enumerate(trace.embodiment.cameras), strict=False):
        panel.plot(times_s, trace.brightness[:, column], color=colour, linewidth=1.0, label=camera.name)
        repeated = trace.repeated[:, column]
        panel.plot(times_s[repeated], trace.brightness[repeated, column], '.', color=colour, markersize=4)
    panel.set(ylabel='brightness', xlabel='time [s]; dots: same image as the row before', ylim=(0, 255))
    panel.legend(frameon=False, fontsize=8)
    return plot(figure)


def _frames(bag: EpisodeBag, camera: CameraField) -> list[np.ndarray]:
    """Six RGB images of a camera, evenly spaced over the episode; none if the bag has no video of it."""
    connection = bag.video_connection(camera)
    if connection is None:
        return []
    wanted = set(np.linspace(0, connection.msgcount - 1, _FRAMES).astype(int).tolist())
    decoder = H264Decoder()
    images = []
    for index, message in enumerate(bag.messages({camera.topic: connection})):
        if message.msgtype == VIDEO_TYPE:  # every frame is decoded, because each builds on the one before
            frame = decoder.decode(message.log_ns, message.decode().data.tobytes())
        elif index in wanted:
            frame = decode_frame(message.decode())
        if index in wanted:
            images.append(frame.bgr()[:, :, ::-1])
    return images
