# SPDX-License-Identifier: Apache-2.0
"""The HTML report of an episode: verdict, reasons, plots and frames in one file without links."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from groot_ros.bags.message_types import VIDEO_TYPE
from groot_ros.bags.reader import EpisodeBag
from groot_ros.dimensions import three_digits
from groot_ros.embodiment import CameraField
from groot_ros.quality.curves import TIME, brightness_plot, colours, state_plot, times_s
from groot_ros.quality.trace import EpisodeTrace
from groot_ros.quality.verdict import LEVELS, Finding, Verdict, format_value
from groot_ros.reports.plots import frame_strip, plot
from groot_ros.reports.render import render_report
from groot_ros.video.frame import decode_frame
from groot_ros.video.h264 import H264Decoder

_FRAMES = 6
# Where a reason can be seen: the part of the report for each check; any other is in the table of checks.
_PLACES = {
    'rate_deviation': 'streams',
    'lost_messages': 'streams',
    'drift_ppm': 'streams',
    'gap_s': 'state',
    'rows_without_state': 'state',
    'joint_speed_rad_s': 'state',
    'tcp_speed_m_s': 'state',
    'idle_head_s': 'state',
    'idle_tail_s': 'state',
    'gripper_still': 'state',
    'stamp_regressions': 'steps',
    'future_stamp_s': 'steps',
    'delay_s': 'steps',
    'tick_jitter': 'ages',
    'age_p50_s': 'ages',
    'age_p95_s': 'ages',
    'age_max_s': 'ages',
    'frame_skew': 'ages',
    'late_share': 'ages',
    'filled_share': 'brightness',
    'max_filled_s': 'brightness',
    'black_share': 'brightness',
    'frozen_s': 'brightness',
}
# A gap that the thresholds do not judge is marked from this length on.
_LONG_GAP_S = 0.06


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
        findings=[_finding_line(finding) for finding in worst_first],
        streams=[_stream_line(trace, topic) for topic in trace.streams],
        rates=_rate_plot(trace),
        ages=_age_plot(trace),
        states=state_plot(trace, _gap_limit_s(verdict)),
        brightness=brightness_plot(trace),
        cameras=[
            {'name': camera.name, 'frames': frame_strip(_frames(bag, camera))}
            for camera in trace.embodiment.cameras
        ],
    )
    path.write_text(html)


def _finding_line(finding: Finding) -> dict[str, Any]:
    place = _PLACES.get(finding.check, 'checks')
    return {**vars(finding), 'limits': _limits(finding), 'place': place}


def _gap_limit_s(verdict: Verdict) -> float:
    """From which length on the checks count a gap, beyond the usual step."""
    bounds = [finding.warn or finding.fail for finding in verdict.findings if finding.check == 'gap_s']
    return min(filter(None, bounds), default=_LONG_GAP_S)


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
        'rate': three_digits(stream.rate_hz),
        'expected': three_digits(expected_hz) if expected_hz else '',
        'gap': three_digits(stream.max_gap_ns / 1e6),
        'delay': ', '.join(three_digits(value) for value in percentiles_ms),
    }


def _rate_plot(trace: EpisodeTrace) -> str:
    figure, (steps, delays) = plt.subplots(1, 2, figsize=(11, 3.2), layout='constrained')
    for colour, topic in zip(colours(), trace.row_streams, strict=False):
        stream = trace.streams[topic]
        at_s = times_s(trace, stream.stamps_ns)
        steps.plot(at_s[1:], np.diff(at_s) * 1e3, color=colour, linewidth=0.9, label=topic)
        delays.plot(at_s, stream.delays_s * 1e3, color=colour, linewidth=0.9, label=topic)
    steps.set(ylabel='step between stamps [ms], log', xlabel=TIME, yscale='symlog')
    steps.legend(frameon=False, fontsize=8)
    delays.set(ylabel='arrival after stamp [ms]', xlabel=TIME)
    delays.legend(frameon=False, fontsize=8)
    return plot(figure)


def _age_plot(trace: EpisodeTrace) -> str:
    figure, (ages, frames) = plt.subplots(1, 2, figsize=(11, 3.2), layout='constrained')
    _plot_columns(ages, trace, trace.ages_s, [field.name for field in trace.embodiment.state])
    _plot_columns(frames, trace, trace.frame_ages_s, [camera.name for camera in trace.embodiment.cameras])
    ages.set(ylabel='age of the nearest sample [ms]', xlabel=TIME, ylim=(0, None))
    frames.set(ylabel='frame after tick [ms]', xlabel=TIME)
    return plot(figure)


def _plot_columns(axes: Axes, trace: EpisodeTrace, ages_s: np.ndarray, names: list[str]) -> None:
    ticks_s = times_s(trace, trace.ticks_ns)
    for colour, name, column in zip(colours(), names, ages_s.T, strict=False):
        axes.plot(ticks_s, column * 1e3, color=colour, linewidth=0.9, label=name)
    axes.legend(frameon=False, fontsize=8)


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
