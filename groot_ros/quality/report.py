# SPDX-License-Identifier: Apache-2.0
"""The page of an episode: verdict, reasons, plots and frames in one HTML file without links to elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape
from matplotlib import pyplot as plt

from groot_ros.bags.message_types import VIDEO_TYPE
from groot_ros.bags.reader import EpisodeBag
from groot_ros.embodiment import CameraField
from groot_ros.quality.checks import CHECKS
from groot_ros.quality.trace import EpisodeTrace
from groot_ros.quality.verdict import LEVELS, Verdict, format_value
from groot_ros.reports.plots import frame_strip, plot
from groot_ros.video.frame import decode_frame
from groot_ros.video.h264 import H264Decoder

_FRAMES = 6
_COLOURS = ('#2f6fb0', '#d1662a', '#18794e', '#8e4ec6', '#b58900', '#5c6b7a', '#c2298a')


def write_report(bag: EpisodeBag, trace: EpisodeTrace, verdict: Verdict, path: Path) -> None:
    """Writes the page of one episode."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(['html', 'j2'])
    )
    order = sorted(verdict.findings, key=lambda finding: -LEVELS.index(finding.level))
    page = environment.get_template('report.html.j2').render(
        verdict=verdict,
        duration=f'{trace.rows / trace.embodiment.fps:.1f}',
        fps=f'{trace.embodiment.fps:g}',
        operator=bag.info.get('operator', ''),
        notes=bag.info.get('notes', ''),
        findings=[
            {**vars(f), 'says': CHECKS[f.check].says, 'value_text': format_value(f.value, f.unit), 'bounds': _bounds(f)}
            for f in order
        ],
        streams=[_stream(trace, topic) for topic in trace.streams],
        rates=_rates(trace),
        ages=_ages(trace),
        motion=_motion(trace),
        pictures=_brightness(trace),
        cameras=[
            {'name': camera.name, 'frames': frame_strip(_frames(bag, camera))}
            for camera in trace.embodiment.cameras
        ],
    )
    path.write_text(page)


def _bounds(finding: Any) -> str:
    return ' / '.join(
        '' if bound is None else format_value(bound, finding.unit) for bound in (finding.warn, finding.fail)
    )


def _stream(trace: EpisodeTrace, topic: str) -> dict[str, Any]:
    stream, expected_hz = trace.streams[topic], trace.embodiment.expected_hz(topic)
    delays_ms = (np.array(stream.arrivals_ns, np.int64) - np.array(stream.stamps_ns, np.int64)) / 1e6
    return {
        'topic': topic, 'received': len(stream.stamps_ns), 'lost': stream.lost, 'rate': f'{stream.rate_hz:.2f}',
        'expected': f'{expected_hz:g}' if expected_hz else '', 'gap': f'{stream.max_gap_ns / 1e6:.1f}',
        'delay': ', '.join(f'{value:.2f}' for value in np.percentile(delays_ms, [50, 95, 100])) if len(delays_ms) else '',
    }  # fmt: skip


def _seconds(trace: EpisodeTrace, stamps_ns: Any) -> np.ndarray:
    """Time since the first tick."""
    return (np.array(stamps_ns, np.int64) - int(trace.ticks_ns[0])) / 1e9


def _rates(trace: EpisodeTrace) -> str:
    figure, (steps, delays) = plt.subplots(1, 2, figsize=(11, 3.2), layout='constrained')
    wanted = trace.embodiment.required_topics
    for colour, topic in zip(
        _COLOURS * 3, [topic for topic in wanted if topic in trace.streams], strict=False
    ):
        stream = trace.streams[topic]
        times_s = _seconds(trace, stream.stamps_ns)
        steps.plot(times_s[1:], np.diff(times_s) * 1e3, color=colour, linewidth=0.9, label=topic)
        delays.plot(
            times_s,
            (np.array(stream.arrivals_ns, np.int64) - np.array(stream.stamps_ns, np.int64)) / 1e6,
            color=colour,
            linewidth=0.9,
        )
    steps.set(ylabel='step between stamps [ms]', xlabel='time [s]', yscale='symlog')
    steps.legend(frameon=False, fontsize=8)
    delays.set(ylabel='arrival after stamp [ms]', xlabel='time [s]')
    return plot(figure)


def _ages(trace: EpisodeTrace) -> str:
    figure, (ages, frames) = plt.subplots(1, 2, figsize=(11, 3.2), layout='constrained')
    times_s = _seconds(trace, trace.ticks_ns)
    for colour, (column, field) in zip(_COLOURS * 3, enumerate(trace.embodiment.state), strict=False):
        ages.plot(times_s, trace.ages_s[:, column] * 1e3, color=colour, linewidth=0.9, label=field.name)
    for colour, (column, camera) in zip(_COLOURS * 3, enumerate(trace.embodiment.cameras), strict=False):
        frames.plot(
            times_s, trace.frame_ages_s[:, column] * 1e3, color=colour, linewidth=0.9, label=camera.name
        )
    ages.set(ylabel='age of the nearest sample [ms]', xlabel='time [s]', ylim=(0, None))
    frames.set(ylabel='frame after tick [ms]', xlabel='time [s]')
    for axes in (ages, frames):
        axes.legend(frameon=False, fontsize=8)
    return plot(figure)


def _motion(trace: EpisodeTrace) -> str:
    fields = trace.embodiment.state
    figure, panels = plt.subplots(
        len(fields), 1, figsize=(11, 1.7 * len(fields)), layout='constrained', sharex=True, squeeze=False
    )
    times_s = _seconds(trace, trace.ticks_ns)
    for panel, field in zip(panels[:, 0], fields, strict=True):
        values = trace.states[:, trace.embodiment.state_slices[field.name]]
        for colour, column in zip(_COLOURS * 3, values.T, strict=False):
            panel.plot(times_s, column, color=colour, linewidth=1.0)
        panel.set_ylabel(field.name, fontsize=8)
        for at_s in times_s[np.flatnonzero(np.diff(trace.segments)) + 1]:
            panel.axvline(at_s, color='#55606e', linestyle=':')
    panels[-1, 0].set_xlabel('time [s]; dotted: a pause')
    return plot(figure)


def _brightness(trace: EpisodeTrace) -> str:
    figure, panel = plt.subplots(figsize=(11, 2.0), layout='constrained')
    times_s = _seconds(trace, trace.ticks_ns)
    for colour, (column, camera) in zip(_COLOURS * 3, enumerate(trace.embodiment.cameras), strict=False):
        panel.plot(times_s, trace.brightness[:, column], color=colour, linewidth=1.0, label=camera.name)
        repeated = trace.repeated[:, column]
        panel.plot(times_s[repeated], trace.brightness[repeated, column], '.', color=colour, markersize=4)
    panel.set(ylabel='brightness', xlabel='time [s]; dots: the picture of the row before', ylim=(0, 255))
    panel.legend(frameon=False, fontsize=8)
    return plot(figure)


def _frames(bag: EpisodeBag, camera: CameraField) -> list[np.ndarray]:
    """Six pictures of a camera, evenly spaced."""
    connection = bag.video_connection(camera)
    if connection is None:
        return []
    wanted = set(np.linspace(0, connection.msgcount - 1, _FRAMES).astype(int).tolist())
    decoder, found = H264Decoder(), []
    for index, message in enumerate(bag.messages({camera.topic: connection})):
        if message.msgtype == VIDEO_TYPE:
            video = message.decode()
            frame = decoder.decode(
                message.log_ns, video.data.tobytes()
            )  # each one, since they build on each other
        elif index in wanted:
            frame = decode_frame(message.decode())
        if index in wanted:
            found.append(frame.bgr()[:, :, ::-1])
    return found
