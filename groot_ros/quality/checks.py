# SPDX-License-Identifier: Apache-2.0
"""What is measured of an episode: each check gives numbers, larger is worse unless said otherwise. Judged by quality/verdict.py."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from groot_ros.geometry import Array
from groot_ros.quality.motion import command_changes, moves_linearly, turns
from groot_ros.quality.trace import EpisodeTrace, StreamTrace

_BLACK = 8.0
_GRIPPER_MOVES = 0.05
_DRIFT_WINDOW_S, _DRIFT_WINDOWS, _DRIFT_HARMLESS_S, _DRIFT_ERRORS, _DRIFT_STEADY = 1.0, 10, 2e-3, 8.0, 0.5

Measured = Iterator[tuple[str, float]]


@dataclass(frozen=True)
class Check:
    """A named measurement: of each subject (a topic, a camera, or '' for the episode) one number, with its unit and what it says."""

    measure: Callable[[EpisodeTrace], Measured]
    unit: str
    says: str
    smaller_is_worse: bool = False


def _duration(trace: EpisodeTrace) -> Measured:
    yield '', sum(len(part) for part in _segments(trace)) / trace.embodiment.fps


def _fps_deviation(trace: EpisodeTrace) -> Measured:
    steps = _tick_steps_s(trace)
    if len(steps):
        yield '', abs(1.0 / (steps.mean() * trace.embodiment.fps) - 1.0)


def _tick_jitter(trace: EpisodeTrace) -> Measured:
    steps = _tick_steps_s(trace)
    if len(steps):
        yield '', float(np.percentile(np.abs(steps * trace.embodiment.fps - 1.0), 95))


def _rate_deviation(trace: EpisodeTrace) -> Measured:
    for topic, stream in trace.streams.items():
        expected_hz = trace.embodiment.expected_hz(topic)
        steps = _steps_s(trace, stream)
        if expected_hz and len(steps) > 1:
            yield topic, abs(1.0 / (max(steps.mean(), 1e-9) * expected_hz) - 1.0)
        elif expected_hz:
            yield topic, 1.0


def _gaps(trace: EpisodeTrace) -> Measured:
    for topic in _row_streams(trace):
        steps = _steps_s(trace, trace.streams[topic])
        if len(steps):
            yield topic, float(max(steps.max() - np.median(steps), 0.0))


def _age_p50(trace: EpisodeTrace) -> Measured:
    yield from _of_ages(trace, lambda ages: float(np.median(ages)))


def _age_p95(trace: EpisodeTrace) -> Measured:
    yield from _of_ages(trace, lambda ages: float(np.percentile(ages, 95)))


def _age_max(trace: EpisodeTrace) -> Measured:
    yield from _of_ages(trace, lambda ages: float(ages.max()))


def _of_ages(trace: EpisodeTrace, figure: Callable[[Array], float]) -> Measured:
    for column, field in enumerate(trace.embodiment.state):
        ages = trace.ages_s[:, column] if trace.rows else np.zeros(0)
        if len(ages := ages[np.isfinite(ages)]):
            yield field.name, figure(ages)


def _frame_skew(trace: EpisodeTrace) -> Measured:
    for column, camera in enumerate(trace.embodiment.cameras):
        if trace.rows:
            rate_hz = min(camera.rate_hz or trace.embodiment.fps, trace.embodiment.fps)
            skews = np.abs(trace.frame_ages_s[:, column][~trace.filled_rows])
            if len(skews):
                yield camera.name, float(np.percentile(skews, 95) * rate_hz)


def _regressions(trace: EpisodeTrace) -> Measured:
    for topic in _row_streams(trace):
        yield topic, float(np.count_nonzero(np.diff(np.array(trace.streams[topic].stamps_ns, np.int64)) <= 0))


def _future_stamps(trace: EpisodeTrace) -> Measured:
    for topic in _row_streams(trace):
        if len(delays := _delays_s(trace.streams[topic])):
            yield topic, float(max(-delays.min(), 0.0))


def _delays(trace: EpisodeTrace) -> Measured:
    for topic in _row_streams(trace):
        if len(delays := _delays_s(trace.streams[topic])):
            yield topic, float(max(np.median(delays), 0.0))


def _drift(trace: EpisodeTrace) -> Measured:
    """The slope of the shortest delays: network and scheduler only add to them, so their lower edge is the clocks' difference.

    A drift that comes to less than 2 ms over the episode, is below 8 of its standard errors, or is not the same in both halves is
    none: a camera that gets slower for a while looks like one otherwise.
    """
    for topic in _row_streams(trace):
        stream = trace.streams[topic]
        delays = _delays_s(stream)
        times_s = (
            np.array(stream.arrivals_ns, np.int64) - (stream.arrivals_ns[0] if len(delays) else 0)
        ) / 1e9
        windows = (times_s // _DRIFT_WINDOW_S).astype(int)
        numbers = np.unique(windows)
        if len(numbers) < _DRIFT_WINDOWS:
            continue
        edges = np.array([delays[windows == number].min() for number in numbers])
        edge_s, half = numbers * _DRIFT_WINDOW_S, len(numbers) // 2
        slope, start_s = np.polyfit(edge_s, edges, 1)
        if abs(slope) * times_s[-1] <= _DRIFT_HARMLESS_S:
            continue
        error = np.std(edges - (start_s + slope * edge_s)) / np.sqrt(np.sum((edge_s - edge_s.mean()) ** 2))
        halves = [np.polyfit(edge_s[part], edges[part], 1)[0] for part in (slice(half), slice(half, None))]
        steady = all(_DRIFT_STEADY < other / slope < 1 / _DRIFT_STEADY for other in halves)
        if steady and abs(slope) > _DRIFT_ERRORS * error:
            yield topic, abs(slope) * 1e6


def _filled_share(trace: EpisodeTrace) -> Measured:
    if trace.rows:
        yield '', trace.filled / trace.rows


def _max_filled(trace: EpisodeTrace) -> Measured:
    yield '', _longest_run(trace.filled_rows) / trace.embodiment.fps


def _rows_without_state(trace: EpisodeTrace) -> Measured:
    yield '', float(np.isnan(trace.states).any(axis=1).sum()) if trace.rows else 0.0


def _late_share(trace: EpisodeTrace) -> Measured:
    if trace.rows:
        yield '', trace.late / trace.rows


def _lost(trace: EpisodeTrace) -> Measured:
    for topic, stream in trace.streams.items():
        yield topic, float(stream.lost)
    yield 'recorder', float(trace.overflows)


def _black(trace: EpisodeTrace) -> Measured:
    for column, camera in enumerate(trace.embodiment.cameras):
        if trace.rows:
            yield camera.name, float((trace.brightness[:, column] < _BLACK).mean())


def _frozen(trace: EpisodeTrace) -> Measured:
    moves = moving_rows(trace)
    for column, camera in enumerate(trace.embodiment.cameras):
        if trace.rows:
            yield camera.name, _longest_run(trace.repeated[:, column] & moves) / trace.embodiment.fps


def _joint_speed(trace: EpisodeTrace) -> Measured:
    yield from _speeds(trace, _joint_columns(trace))


def _tcp_speed(trace: EpisodeTrace) -> Measured:
    for part in _pose_parts(trace):
        for segment in _segments(trace):
            positions = trace.states[segment][:, part.start : part.start + 3]
            if len(positions) > 1:
                yield (
                    '',
                    float(
                        np.nanmax(np.linalg.norm(np.diff(positions, axis=0), axis=1), initial=0.0)
                        * trace.embodiment.fps
                    ),
                )


def _speeds(trace: EpisodeTrace, columns: list[int]) -> Measured:
    for segment in _segments(trace):
        if columns and len(segment) > 1:
            yield (
                '',
                float(
                    np.nanmax(np.abs(np.diff(trace.states[segment][:, columns], axis=0)), initial=0.0)
                    * trace.embodiment.fps
                ),
            )


def _idle_head(trace: EpisodeTrace) -> Measured:
    moves = np.flatnonzero(moving_rows(trace))
    yield '', (moves[0] if len(moves) else trace.rows) / trace.embodiment.fps


def _idle_tail(trace: EpisodeTrace) -> Measured:
    moves = np.flatnonzero(moving_rows(trace))
    yield '', (trace.rows - 1 - moves[-1] if len(moves) else trace.rows) / trace.embodiment.fps


def _gripper_still(trace: EpisodeTrace) -> Measured:
    for column in range(trace.commands.shape[1]):
        values = trace.commands[:, column]
        yield (
            '',
            float(np.nanmax(values) - np.nanmin(values) < _GRIPPER_MOVES)
            if np.isfinite(values).any()
            else 1.0,
        )


def _overrides(trace: EpisodeTrace) -> Measured:
    commanding = [source for source in trace.robot.sources if source]
    yield '', float(sum(one != other for one, other in pairwise(commanding)))


def _clipped(trace: EpisodeTrace) -> Measured:
    accepted, clipped, _ = _command_counts(trace)
    if accepted:
        yield '', clipped / accepted


def _refused(trace: EpisodeTrace) -> Measured:
    if trace.robot.counts:
        yield '', float(_command_counts(trace)[2])


CHECKS: dict[str, Check] = {
    'duration_s': Check(_duration, 's', 'the episode lasts', smaller_is_worse=True),
    'fps_deviation': Check(_fps_deviation, 'share', 'the rate of the rows is off the declared fps by'),
    'tick_jitter': Check(_tick_jitter, 'periods', 'rows are unevenly spaced, 95th percentile'),
    'rate_deviation': Check(_rate_deviation, 'share', 'the rate is off the declared one by'),
    'gap_s': Check(_gaps, 's', 'the largest gap beyond the usual step is'),
    'age_p50_s': Check(_age_p50, 's', 'the nearest sample is away from the tick, median, by'),
    'age_p95_s': Check(_age_p95, 's', 'the nearest sample is away from the tick, 95th percentile, by'),
    'age_max_s': Check(_age_max, 's', 'the nearest sample is away from the tick by at most'),
    'frame_skew': Check(_frame_skew, 'periods', 'frames are away from their ticks, 95th percentile, by'),
    'stamp_regressions': Check(_regressions, '', 'stamps that did not rise'),
    'future_stamp_s': Check(_future_stamps, 's', 'stamps lie in the future by, so the clocks differ'),
    'delay_s': Check(_delays, 's', 'messages arrive after their stamp, median, by'),
    'drift_ppm': Check(_drift, 'ppm', "its clock drifts from the recorder's by"),
    'filled_share': Check(_filled_share, 'share', 'rows without a frame of their own'),
    'max_filled_s': Check(_max_filled, 's', 'the longest time without a frame is'),
    'rows_without_state': Check(_rows_without_state, '', 'rows whose state was missing or too old'),
    'late_share': Check(_late_share, 'share', 'rows made before every stream had come'),
    'lost_messages': Check(_lost, '', 'messages lost'),
    'black_share': Check(_black, 'share', 'black frames'),
    'frozen_s': Check(_frozen, 's', 'one picture stood still while the robot moved for'),
    'joint_speed_rad_s': Check(_joint_speed, 'rad/s', 'joints change between rows by up to'),
    'tcp_speed_m_s': Check(_tcp_speed, 'm/s', 'the TCP changes between rows by up to'),
    'idle_head_s': Check(_idle_head, 's', 'nothing moves at the beginning for'),
    'idle_tail_s': Check(_idle_tail, 's', 'nothing moves at the end for'),
    'gripper_still': Check(_gripper_still, '', 'the gripper is never commanded to move'),
    'overrides': Check(_overrides, '', 'times that another source took over the commands'),
    'clipped_share': Check(_clipped, 'share', 'commands shortened by a limit'),
    'refused_commands': Check(_refused, '', 'commands refused'),
}


def moving_rows(trace: EpisodeTrace) -> np.ndarray:
    """Whether joints, TCP or a command moved since the row before, as quality/motion.py defines it: (n,) of bool."""
    moving = np.zeros(trace.rows, bool)
    if trace.rows < 2:
        return moving
    fps = trace.embodiment.fps
    steps = np.diff(trace.states, axis=0)
    for part in _pose_parts(trace):
        moving[1:] |= moves_linearly(steps[:, part.start : part.start + 3], fps)
    if columns := _joint_columns(trace):
        moving[1:] |= turns(steps[:, columns], fps)
    command_steps = np.diff(trace.commands, axis=0)
    for _, source, part in trace.embodiment.commands:
        if source.field == 'pose':
            moving[1:] |= moves_linearly(command_steps[:, part.start : part.start + 3], fps)
        else:
            moving[1:] |= command_changes(command_steps[:, part], fps)
    return moving


def _segments(trace: EpisodeTrace) -> list[np.ndarray]:
    """Indices of the rows of each stretch without a pause."""
    return (
        [np.flatnonzero(trace.segments == number) for number in np.unique(trace.segments)]
        if trace.rows
        else []
    )


def _tick_steps_s(trace: EpisodeTrace) -> Array:
    steps = [np.diff(trace.ticks_ns[segment]) / 1e9 for segment in _segments(trace)]
    return np.concatenate([*steps, np.zeros(0)])


def _steps_s(trace: EpisodeTrace, stream: StreamTrace) -> Array:
    """Steps between the stamps of a stream, without those that span a pause or go back."""
    stamps = np.array(stream.stamps_ns, np.int64)
    steps, begins = np.diff(stamps), stamps[:-1]
    keep = steps > 0
    ends = [trace.ticks_ns[segment[-1]] for segment in _segments(trace)[:-1]]
    for end_ns in ends:
        keep &= ~((begins <= end_ns + 1_000_000_000) & (stamps[1:] > end_ns) & (steps > 200_000_000))
    return steps[keep] / 1e9


def _delays_s(stream: StreamTrace) -> Array:
    return (np.array(stream.arrivals_ns, np.int64) - np.array(stream.stamps_ns, np.int64)) / 1e9


def _row_streams(trace: EpisodeTrace) -> list[str]:
    wanted = trace.embodiment.required_topics
    return [topic for topic in wanted if topic in trace.streams]


def _pose_parts(trace: EpisodeTrace) -> list[slice]:
    return [
        trace.embodiment.state_slices[field.name] for field in trace.embodiment.state if field.field == 'pose'
    ]


def _joint_columns(trace: EpisodeTrace) -> list[int]:
    parts = [
        trace.embodiment.state_slices[f.name]
        for f in trace.embodiment.state
        if len(f.joints) > 1 and f.field == 'position'
    ]
    return [column for part in parts for column in range(part.start, part.stop)]


def _longest_run(flags: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0


def _command_counts(trace: EpisodeTrace) -> tuple[int, int, int]:
    if not trace.robot.counts:
        return 0, 0, 0
    first, last = trace.robot.counts[0], trace.robot.counts[-1]
    return last[0] - first[0], last[1] - first[1], last[2] - first[2]
