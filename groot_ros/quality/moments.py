# SPDX-License-Identifier: Apache-2.0
"""When in an episode that happened what a finding of its verdict counts or measures."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from groot_ros.quality.checks import BLACK_BRIGHTNESS, joint_columns, moving_rows, pose_slices
from groot_ros.quality.saved_verdict import SavedFinding
from groot_ros.quality.trace import EpisodeTrace

_MAX_MOMENTS = 50


@dataclass(frozen=True)
class Moment:
    """From `begin_s` to `end_s` in the time of the rows, whose row k is at k / fps."""

    begin_s: float
    end_s: float


def find_moments(trace: EpisodeTrace, finding: SavedFinding) -> list[Moment]:
    """The moments of a finding, at most 50; none for one about the whole episode, such as a drift."""
    if not trace.rows:
        return []
    if finding.check == 'gap_s':
        return _gaps(trace, finding)[:_MAX_MOMENTS]
    if finding.check not in _ROWS:
        return []
    rows = _ROWS[finding.check](trace, finding)
    return _runs(rows, trace.embodiment.fps)[:_MAX_MOMENTS]


def pauses(trace: EpisodeTrace) -> list[float]:
    """When each segment but the first begins, s."""
    return [float(row) / trace.embodiment.fps for row in np.flatnonzero(np.diff(trace.segments)) + 1]


def _limit(finding: SavedFinding) -> float:
    """The lower of the limits that a finding has."""
    limits = [limit for limit in (finding.warn, finding.fail) if limit is not None]
    return min(limits, default=np.inf)


def _gaps(trace: EpisodeTrace, finding: SavedFinding) -> list[Moment]:
    """Steps between the stamps of a topic that are too long, as far as rows were made meanwhile."""
    if finding.subject not in trace.streams:
        return []
    stamps_ns = np.array(trace.streams[finding.subject].stamps_ns, np.int64)
    steps_s = np.diff(stamps_ns) / 1e9
    if not len(steps_s):
        return []
    too_long = np.flatnonzero(steps_s - np.median(steps_s) >= _limit(finding))
    moments = []
    for k in too_long:
        begin, end = np.searchsorted(trace.ticks_ns, [stamps_ns[k], stamps_ns[k + 1]])
        if begin < end:
            moments.append(Moment(float(begin) / trace.embodiment.fps, float(end) / trace.embodiment.fps))
    return moments


def _runs(rows: np.ndarray, fps: float) -> list[Moment]:
    """A moment for each run of rows that are true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], rows.astype(int), [0]])))
    return [Moment(float(begin) / fps, float(end) / fps) for begin, end in edges.reshape(-1, 2)]


def _column(names: list[str], subject: str) -> list[int]:
    """The number of a subject among its names, as a list; empty for a name that the episode does not have."""
    return [names.index(subject)] if subject in names else []


def _of_camera(trace: EpisodeTrace, finding: SavedFinding) -> list[int]:
    return _column([camera.name for camera in trace.embodiment.cameras], finding.subject)


def _of_field(trace: EpisodeTrace, finding: SavedFinding) -> list[int]:
    return _column([field.name for field in trace.embodiment.state], finding.subject)


def _filled(trace: EpisodeTrace, finding: SavedFinding) -> np.ndarray:
    return trace.filled_rows


def _frozen(trace: EpisodeTrace, finding: SavedFinding) -> np.ndarray:
    return trace.repeated[:, _of_camera(trace, finding)].any(axis=1) & moving_rows(trace)


def _black(trace: EpisodeTrace, finding: SavedFinding) -> np.ndarray:
    return (trace.brightness[:, _of_camera(trace, finding)] < BLACK_BRIGHTNESS).any(axis=1)


def _skewed(trace: EpisodeTrace, finding: SavedFinding) -> np.ndarray:
    columns = _of_camera(trace, finding)
    if not columns:
        return np.zeros(trace.rows, bool)
    fps = trace.embodiment.fps
    rate_hz = min(trace.embodiment.cameras[columns[0]].rate_hz or fps, fps)
    skews = np.abs(trace.frame_ages_s[:, columns[0]]) * rate_hz
    return (skews >= _limit(finding)) & ~trace.filled_rows


def _old(trace: EpisodeTrace, finding: SavedFinding) -> np.ndarray:
    return (trace.ages_s[:, _of_field(trace, finding)] >= _limit(finding)).any(axis=1)


def _without_state(trace: EpisodeTrace, finding: SavedFinding) -> np.ndarray:
    return np.isnan(trace.states).any(axis=1)


def _fast_joints(trace: EpisodeTrace, finding: SavedFinding) -> np.ndarray:
    steps = np.abs(np.diff(trace.states[:, joint_columns(trace)], axis=0)) * trace.embodiment.fps
    return _at_later_row((steps >= _limit(finding)).any(axis=1), trace)


def _fast_tcp(trace: EpisodeTrace, finding: SavedFinding) -> np.ndarray:
    fast = np.zeros(max(trace.rows - 1, 0), bool)
    for part in pose_slices(trace):
        steps_m = np.linalg.norm(np.diff(trace.states[:, part.start : part.start + 3], axis=0), axis=1)
        fast |= steps_m * trace.embodiment.fps >= _limit(finding)
    return _at_later_row(fast, trace)


def _at_later_row(steps: np.ndarray, trace: EpisodeTrace) -> np.ndarray:
    """What is true of the step to each row, but for steps across a pause."""
    return np.concatenate([[False], steps & (np.diff(trace.segments) == 0)])


def _idle_head(trace: EpisodeTrace, finding: SavedFinding) -> np.ndarray:
    return np.cumsum(moving_rows(trace)) == 0


def _idle_tail(trace: EpisodeTrace, finding: SavedFinding) -> np.ndarray:
    return np.cumsum(moving_rows(trace)[::-1])[::-1] == 0


# The rows that each check counts or measures.
_ROWS: dict[str, Callable[[EpisodeTrace, SavedFinding], np.ndarray]] = {
    'filled_share': _filled,
    'max_filled_s': _filled,
    'frozen_s': _frozen,
    'black_share': _black,
    'frame_skew': _skewed,
    'age_p50_s': _old,
    'age_p95_s': _old,
    'age_max_s': _old,
    'rows_without_state': _without_state,
    'joint_speed_rad_s': _fast_joints,
    'tcp_speed_m_s': _fast_tcp,
    'idle_head_s': _idle_head,
    'idle_tail_s': _idle_tail,
}
