# SPDX-License-Identifier: Apache-2.0
"""The checks of an episode: what each measures and the sentence that reports it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from groot_ros.geometry import Array
from groot_ros.quality.motion import command_changes, moves_linearly, turns
from groot_ros.quality.trace import EpisodeTrace, StreamTrace

BLACK_BRIGHTNESS = 8.0
_GRIPPER_MOVES = 0.05
_DRIFT_WINDOW_S = 1.0
_DRIFT_MIN_WINDOWS = 10
_DRIFT_HARMLESS_S = 2e-3
_DRIFT_MIN_STANDARD_ERRORS = 8.0
_DRIFT_MIN_SLOPE_RATIO = 0.5
_PAUSE_SEARCH_NS = 1_000_000_000
_PAUSE_MIN_STEP_NS = 200_000_000

Measured = Iterator[tuple[str, float]]


@dataclass(frozen=True)
class Check:
    """A measurement of an episode, with its unit and the sentence that reports it.

    `measure` yields (subject, number): the subject is a topic, a camera, a field, or '' for the whole
    episode. `sentence` has the placeholders {subject} and {value} (with its unit). A larger number is worse,
    unless `smaller_is_worse`.
    """

    measure: Callable[[EpisodeTrace], Measured]
    unit: str
    sentence: str
    smaller_is_worse: bool = False


def _duration(trace: EpisodeTrace) -> Measured:
    yield '', sum(len(segment) for segment in _segments(trace)) / trace.embodiment.fps


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
    for topic in trace.row_streams:
        steps = _steps_s(trace, trace.streams[topic])
        if len(steps):
            yield topic, float(max(steps.max() - np.median(steps), 0.0))


def _age_p50(trace: EpisodeTrace) -> Measured:
    for name, ages_s in _ages_by_field(trace):
        yield name, float(np.median(ages_s))


def _age_p95(trace: EpisodeTrace) -> Measured:
    for name, ages_s in _ages_by_field(trace):
        yield name, float(np.percentile(ages_s, 95))


def _age_max(trace: EpisodeTrace) -> Measured:
    for name, ages_s in _ages_by_field(trace):
        yield name, float(ages_s.max())


def _ages_by_field(trace: EpisodeTrace) -> Iterator[tuple[str, Array]]:
    if not trace.rows:
        return
    for column, field in enumerate(trace.embodiment.state):
        ages_s = trace.ages_s[:, column]
        finite = ages_s[np.isfinite(ages_s)]
        if len(finite):
            yield field.name, finite


def _frame_skew(trace: EpisodeTrace) -> Measured:
    if not trace.rows:
        return
    fps = trace.embodiment.fps
    for column, camera in enumerate(trace.embodiment.cameras):
        skews_s = np.abs(trace.frame_ages_s[:, column][~trace.filled_rows])
        if len(skews_s):
            rate_hz = min(camera.rate_hz or fps, fps)
            yield camera.name, float(np.percentile(skews_s, 95) * rate_hz)


def _regressions(trace: EpisodeTrace) -> Measured:
    for topic in trace.row_streams:
        steps_ns = np.diff(np.array(trace.streams[topic].stamps_ns, np.int64))
        yield topic, float(np.count_nonzero(steps_ns <= 0))


def _future_stamps(trace: EpisodeTrace) -> Measured:
    for topic in trace.row_streams:
        delays_s = trace.streams[topic].delays_s
        if len(delays_s):
            yield topic, float(max(-delays_s.min(), 0.0))


def _delays(trace: EpisodeTrace) -> Measured:
    for topic in trace.row_streams:
        delays_s = trace.streams[topic].delays_s
        if len(delays_s):
            yield topic, float(max(np.median(delays_s), 0.0))


def _drift(trace: EpisodeTrace) -> Measured:
    for topic in trace.row_streams:
        drift = _clock_drift(trace.streams[topic])
        if drift:
            yield topic, abs(drift) * 1e6


def _clock_drift(stream: StreamTrace) -> float:
    """Drift of a stream's clock against the recorder's, in s per s; 0 where none is certain.

    It is the slope of the shortest delays: the network and the scheduler only add to a delay, so the lower
    edge is the difference of the clocks. A drift counts if it exceeds 2 ms over the episode and 8 standard
    errors, and is similar in both halves: otherwise a camera that gets slower for a while would look like a
    drift.
    """
    if not stream.arrivals_ns:
        return 0.0
    arrivals_ns = np.array(stream.arrivals_ns, np.int64)
    times_s = (arrivals_ns - arrivals_ns[0]) / 1e9
    edge_times_s, edges_s = _shortest_delays(times_s, stream.delays_s)
    if len(edges_s) < _DRIFT_MIN_WINDOWS:
        return 0.0
    slope, start_s = np.polyfit(edge_times_s, edges_s, 1)
    if abs(slope) * times_s[-1] <= _DRIFT_HARMLESS_S:
        return 0.0
    residuals_s = edges_s - (start_s + slope * edge_times_s)
    spread_s = np.sqrt(np.sum((edge_times_s - edge_times_s.mean()) ** 2))
    standard_error = np.std(residuals_s) / spread_s
    if abs(slope) <= _DRIFT_MIN_STANDARD_ERRORS * standard_error:
        return 0.0
    half = len(edges_s) // 2
    for part in (slice(None, half), slice(half, None)):
        ratio = np.polyfit(edge_times_s[part], edges_s[part], 1)[0] / slope
        if not _DRIFT_MIN_SLOPE_RATIO < ratio < 1 / _DRIFT_MIN_SLOPE_RATIO:
            return 0.0
    return float(slope)


def _shortest_delays(times_s: Array, delays_s: Array) -> tuple[Array, Array]:
    """Begin of each window of 1 s that has messages, and its shortest delay."""
    windows = (times_s // _DRIFT_WINDOW_S).astype(int)
    numbers = np.unique(windows)
    edges_s = np.array([delays_s[windows == number].min() for number in numbers])
    return numbers * _DRIFT_WINDOW_S, edges_s


def _filled_share(trace: EpisodeTrace) -> Measured:
    if trace.rows:
        yield '', trace.filled / trace.rows


def _max_filled(trace: EpisodeTrace) -> Measured:
    yield '', _max_run(trace.filled_rows) / trace.embodiment.fps


def _rows_without_state(trace: EpisodeTrace) -> Measured:
    if not trace.rows:
        yield '', 0.0
        return
    yield '', float(np.isnan(trace.states).any(axis=1).sum())


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
            yield camera.name, float((trace.brightness[:, column] < BLACK_BRIGHTNESS).mean())


def _frozen(trace: EpisodeTrace) -> Measured:
    if not trace.rows:
        return
    moving = moving_rows(trace)
    for column, camera in enumerate(trace.embodiment.cameras):
        frozen = trace.repeated[:, column] & moving
        yield camera.name, _max_run(frozen) / trace.embodiment.fps


def _joint_speed(trace: EpisodeTrace) -> Measured:
    columns = joint_columns(trace)
    if not columns:
        return
    for segment in _segments(trace):
        if len(segment) > 1:
            steps_rad = np.abs(np.diff(trace.states[segment][:, columns], axis=0))
            yield '', float(np.nanmax(steps_rad, initial=0.0) * trace.embodiment.fps)


def _tcp_speed(trace: EpisodeTrace) -> Measured:
    for part in pose_slices(trace):
        for segment in _segments(trace):
            positions_m = trace.states[segment][:, part.start : part.start + 3]
            if len(positions_m) > 1:
                steps_m = np.linalg.norm(np.diff(positions_m, axis=0), axis=1)
                yield '', float(np.nanmax(steps_m, initial=0.0) * trace.embodiment.fps)


def _idle_head(trace: EpisodeTrace) -> Measured:
    moving = np.flatnonzero(moving_rows(trace))
    idle_rows = moving[0] if len(moving) else trace.rows
    yield '', idle_rows / trace.embodiment.fps


def _idle_tail(trace: EpisodeTrace) -> Measured:
    moving = np.flatnonzero(moving_rows(trace))
    idle_rows = trace.rows - 1 - moving[-1] if len(moving) else trace.rows
    yield '', idle_rows / trace.embodiment.fps


def _gripper_still(trace: EpisodeTrace) -> Measured:
    for values in trace.commands.T:
        finite = values[np.isfinite(values)]
        is_still = not len(finite) or np.ptp(finite) < _GRIPPER_MOVES
        yield '', float(is_still)


def _overrides(trace: EpisodeTrace) -> Measured:
    commanding = [source for source in trace.robot.sources if source]
    changes = [1 for before, after in pairwise(commanding) if before != after]
    yield '', float(len(changes))


def _clipped(trace: EpisodeTrace) -> Measured:
    accepted, clipped, _ = _command_counts(trace)
    if accepted:
        yield '', clipped / accepted


def _refused(trace: EpisodeTrace) -> Measured:
    if trace.robot.counts:
        yield '', float(_command_counts(trace)[2])


CHECKS: dict[str, Check] = {
    'duration_s': Check(_duration, 's', 'The episode lasts {value}.', smaller_is_worse=True),
    'fps_deviation': Check(_fps_deviation, 'share', 'The row rate differs from fps by {value}.'),
    'tick_jitter': Check(_tick_jitter, 'periods', 'The row spacing varies by {value} (p95).'),
    'rate_deviation': Check(_rate_deviation, 'share', 'The rate of {subject} is off by {value}.'),
    'gap_s': Check(_gaps, 's', 'The max gap of {subject} is {value} longer than its usual step.'),
    'age_p50_s': Check(_age_p50, 's', 'The median age of {subject} at the ticks is {value}.'),
    'age_p95_s': Check(_age_p95, 's', 'The p95 age of {subject} at the ticks is {value}.'),
    'age_max_s': Check(_age_max, 's', 'The max age of {subject} at the ticks is {value}.'),
    'frame_skew': Check(_frame_skew, 'periods', 'Frames of {subject} are {value} off their ticks (p95).'),
    'stamp_regressions': Check(_regressions, '', '{subject} has {value} stamps that do not increase.'),
    'future_stamp_s': Check(_future_stamps, 's', 'Stamps of {subject} are {value} in the future.'),
    'delay_s': Check(_delays, 's', '{subject} arrives {value} after its stamp (median).'),
    'drift_ppm': Check(_drift, 'ppm', "The clock of {subject} drifts from the recorder's by {value}."),
    'filled_share': Check(_filled_share, 'share', '{value} of the rows have no new frame.'),
    'max_filled_s': Check(_max_filled, 's', 'The longest time without a new frame is {value}.'),
    'rows_without_state': Check(_rows_without_state, '', '{value} rows have a missing or old state.'),
    'late_share': Check(_late_share, 'share', '{value} of the rows did not wait for every stream.'),
    'lost_messages': Check(_lost, '', '{subject} lost {value} messages.'),
    'black_share': Check(_black, 'share', '{value} of the frames of {subject} are black.'),
    'frozen_s': Check(_frozen, 's', '{subject} repeats one image for {value} while the robot moves.'),
    'joint_speed_rad_s': Check(_joint_speed, 'rad/s', 'The max joint speed from row to row is {value}.'),
    'tcp_speed_m_s': Check(_tcp_speed, 'm/s', 'The max speed of the TCP from row to row is {value}.'),
    'idle_head_s': Check(_idle_head, 's', 'Nothing moves in the first {value}.'),
    'idle_tail_s': Check(_idle_tail, 's', 'Nothing moves in the last {value}.'),
    'gripper_still': Check(_gripper_still, '', '{value} gripper commands never change.'),
    'overrides': Check(_overrides, '', 'Another source took over the commands {value} times.'),
    'clipped_share': Check(_clipped, 'share', '{value} of the commands are clipped by a limit.'),
    'refused_commands': Check(_refused, '', '{value} commands are rejected.'),
}  # fmt: skip


def moving_rows(trace: EpisodeTrace) -> np.ndarray:
    """Whether joints, TCP or a command moved since the row before (see quality/motion.py): (n,) of bool."""
    moving = np.zeros(trace.rows, bool)
    if trace.rows < 2:
        return moving
    fps = trace.embodiment.fps
    steps = np.diff(trace.states, axis=0)
    for part in pose_slices(trace):
        moving[1:] |= moves_linearly(steps[:, part.start : part.start + 3], fps)
    if columns := joint_columns(trace):
        moving[1:] |= turns(steps[:, columns], fps)
    command_steps = np.diff(trace.commands, axis=0)
    for _, source, part in trace.embodiment.commands:
        if source.field == 'pose':
            moving[1:] |= moves_linearly(command_steps[:, part.start : part.start + 3], fps)
        else:
            moving[1:] |= command_changes(command_steps[:, part], fps)
    return moving


def _segments(trace: EpisodeTrace) -> list[np.ndarray]:
    """Row indices of each segment, that is of the rows between two pauses."""
    if not trace.rows:
        return []
    return [np.flatnonzero(trace.segments == number) for number in np.unique(trace.segments)]


def _tick_steps_s(trace: EpisodeTrace) -> Array:
    steps = [np.diff(trace.ticks_ns[segment]) / 1e9 for segment in _segments(trace)]
    return np.concatenate([*steps, np.zeros(0)])


def _steps_s(trace: EpisodeTrace, stream: StreamTrace) -> Array:
    """Steps between the stamps of a stream, without those across a pause and those that go back."""
    stamps_ns = np.array(stream.stamps_ns, np.int64)
    before_ns = stamps_ns[:-1]
    after_ns = stamps_ns[1:]
    steps_ns = after_ns - before_ns
    keep = steps_ns > 0
    for segment in _segments(trace)[:-1]:
        end_ns = trace.ticks_ns[segment[-1]]
        is_near = (before_ns <= end_ns + _PAUSE_SEARCH_NS) & (after_ns > end_ns)
        keep &= ~(is_near & (steps_ns > _PAUSE_MIN_STEP_NS))
    return steps_ns[keep] / 1e9


def pose_slices(trace: EpisodeTrace) -> list[slice]:
    """The columns of each pose in a state."""
    slices = trace.embodiment.state_slices
    return [slices[field.name] for field in trace.embodiment.state if field.field == 'pose']


def joint_columns(trace: EpisodeTrace) -> list[int]:
    """The columns of the joint angles in a state."""
    columns: list[int] = []
    for field in trace.embodiment.state:
        if len(field.joints) > 1 and field.field == 'position':
            part = trace.embodiment.state_slices[field.name]
            columns += range(part.start, part.stop)
    return columns


def _max_run(flags: np.ndarray) -> int:
    """Length of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    lengths = edges[1::2] - edges[::2]
    return int(lengths.max(initial=0))


def _command_counts(trace: EpisodeTrace) -> tuple[int, int, int]:
    """Commands accepted, clipped and refused during the episode."""
    if not trace.robot.counts:
        return 0, 0, 0
    first = trace.robot.counts[0]
    last = trace.robot.counts[-1]
    return last[0] - first[0], last[1] - first[1], last[2] - first[2]
