# SPDX-License-Identifier: Apache-2.0
"""Turns the chunks of a policy into one motion: drops past steps, blends transitions, decelerates at the end.

Times are s of one clock. Step k of a chunk, counted from 0, is the pose to be reached at
`observed_s + (k + 1) * period_s`.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from groot_ros.geometry import Array, angle_between, apply_delta, deltas_between, interpolate_pose
from groot_ros.settings import setting

_MAX_LATENCIES = 100
# A percentile of fewer latencies says nothing.
_MIN_LATENCIES = 5
# An observation may be some seconds old.
_REMEMBERED_S = 3.0


@dataclass(frozen=True)
class ScheduleSettings:
    """How chunks are scheduled one after the other.

    A new observation is sent every `inference_interval_s`, and earlier if the reply would otherwise come
    after the end of the motion: the quantile `latency_share` of the latencies plus `margin_s` are reserved.
    With temporal ensembling, all chunks that overlap are averaged with the weights
    exp(-temporal_ensemble_coeff * age in chunks); otherwise two chunks are blended during `blend_s`.
    """

    period_s: float
    latency_share: float = 0.9
    margin_s: float = 0.05
    n_action_steps: int = setting(0, 'maximum number of steps of a chunk that are executed; 0 for all')
    inference_interval_s: float = setting(0.4, 'time between two requests to the policy, s', 0.02, 10.0)
    blend_s: float = setting(0.15, 'time in which a new chunk replaces the previous one, s', 0.0, 1.0)
    temporal_ensemble_coeff: float = setting(
        0.0, 'above 0: temporal ensembling, where older chunks weigh less the larger it is', 0.0, 5.0
    )
    stop_distance_m: float = setting(
        0.02, 'distance within which the motion decelerates to rest if no chunk comes, m', 0.0, 0.1
    )
    robot_action_latency_s: float = setting(
        0.0,
        'poses are commanded this much earlier, because the arm follows its target with a delay, s',
        0.0,
        0.5,
    )
    gripper_action_latency_s: float = setting(
        0.0, 'openings are commanded this much earlier, because the gripper has a delay, s', 0.0, 0.5
    )
    max_lead_m: float = setting(
        0.08, 'maximum distance of the target from the measured TCP position, m', 0.005, 0.3
    )


@dataclass
class Chunk:
    """Poses (H + 1, 7) at `times_s` (H + 1,) from the anchor at the observation on, and openings (H,)."""

    times_s: Array
    poses: Array
    openings: Array

    @property
    def end_s(self) -> float:
        """The time at which the last pose is reached."""
        return float(self.times_s[-1])

    def pose(self, time_s: float) -> Array:
        """The pose (7,) at a time, interpolated; before and after the chunk its first and last pose."""
        after = int(np.searchsorted(self.times_s, time_s, side='right'))
        if after == 0:
            return self.poses[0]
        if after == len(self.times_s):
            return self.poses[-1]
        before = after - 1
        share = (time_s - self.times_s[before]) / (self.times_s[after] - self.times_s[before])
        return interpolate_pose(self.poses[before], self.poses[after], share)

    def opening(self, time_s: float) -> float:
        """The opening of the step that is executed at a time."""
        step = int(np.searchsorted(self.times_s, time_s, side='right')) - 1
        return float(self.openings[np.clip(step, 0, len(self.openings) - 1)])


@dataclass
class ChunkTransition:
    """The distance and angle of a new chunk from the motion so far, and the turn of the direction."""

    jump_m: float
    jump_rad: float
    turn_rad: float


@dataclass
class ScheduleStats:
    """Counts and measurements since `start` was called."""

    chunks: int = 0
    steps: int = 0
    dropped: int = 0
    late: int = 0
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_LATENCIES))
    transitions: deque[ChunkTransition] = field(default_factory=lambda: deque(maxlen=_MAX_LATENCIES))
    second_differences_m: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_LATENCIES))

    def latency_s(self, share: float) -> float:
        """A quantile of the latencies in s; 0 before the first."""
        return float(np.quantile(self.latencies_s, share)) if self.latencies_s else 0.0

    @property
    def dropped_share(self) -> float:
        """The share of the steps whose time had passed when their chunk arrived."""
        return self.dropped / self.steps if self.steps else 0.0


class ChunkScheduler:
    """Turns chunks into one motion. Call `start`, `add` when a chunk arrives, and `sample` at each tick."""

    def __init__(self, settings: ScheduleSettings) -> None:
        self.settings = settings
        self.stats = ScheduleStats()
        self._chunks: deque[tuple[float, Chunk]] = deque()
        self._held = np.array([0.0, 0, 0, 0, 0, 0, 1])
        self._opening = np.nan
        self._requested_s: float | None = None
        self._last_request_s = -np.inf

    def start(self, pose: Array) -> None:
        """Starts at a pose (7,) with no chunk, and resets the statistics."""
        self.stats = ScheduleStats()
        self.flush(pose)
        self._opening = np.nan

    def flush(self, pose: Array) -> None:
        """Drops all chunks and holds a pose (7,): after a pause, or when another source has moved the arm."""
        self._chunks.clear()
        self._held = np.asarray(pose, float)
        self._requested_s = None
        self._last_request_s = -np.inf

    def target(self, time_s: float) -> Array:
        """The pose (7,) that is commanded for a time: the anchor of a chunk of deltas observed then."""
        if not self._chunks:
            return self._held
        if self.settings.temporal_ensemble_coeff > 0:
            return self._ensemble(time_s)
        return self._blend(time_s)

    def wants_request(self, now_s: float) -> bool:
        """Whether to send an observation now: none is pending, and it is due or the motion ends soon."""
        if self._requested_s is not None:
            return False
        if not self._chunks:
            return True
        due_s = self._last_request_s + self.settings.inference_interval_s
        needed_s = self.stats.latency_s(self.settings.latency_share) + self.settings.margin_s
        return now_s >= min(due_s, self.end_s - needed_s)

    def next_chunk_s(self) -> float:
        """The time at which the chunk after the newest one is expected, from the measured latencies."""
        latency_s = self.stats.latency_s(self.settings.latency_share) + self.settings.margin_s
        return self._last_request_s + max(self.settings.inference_interval_s, latency_s) + latency_s

    def request_sent(self, now_s: float) -> None:
        """Notes that an observation was sent."""
        self._requested_s = self._last_request_s = now_s

    def cancel_request(self) -> None:
        """Stops waiting for the pending reply."""
        self._requested_s = None

    def reply_timeout_s(self) -> float:
        """The time to wait for a reply before the next request is sent; infinite before the first replies.

        A lost reply counts as a latency, so that the timeout follows a model that has become slower.
        """
        if len(self.stats.latencies_s) < _MIN_LATENCIES:
            return np.inf
        return 1.5 * self.stats.latency_s(0.95) + self.settings.margin_s

    def reply_lost(self, now_s: float) -> None:
        """Notes that the pending reply will not arrive: the next request may be sent."""
        if self._requested_s is not None:
            self.stats.latencies_s.append(now_s - self._requested_s)
        self._requested_s = None
        self.stats.late += 1

    def add(
        self,
        poses: Array,
        openings: Array,
        observed_s: float,
        now_s: float,
        next_s: float | None = None,
        last: bool = False,
    ) -> float | None:
        """Schedules a chunk: target poses (H, 7) and openings (H,) for an observation.

        The `last` chunk of a policy ends at its last pose. Returns the time at which the chunk begins: that
        of its observation, or that of the next command, `next_s`, if the arm was at rest.
        Returns None if the whole chunk is in the past.
        """
        settings = self.settings
        stats = self.stats
        if self._requested_s is not None:
            stats.latencies_s.append(now_s - self._requested_s)
        self._requested_s = None
        if not self._chunks:
            observed_s = (now_s if next_s is None else next_s) + settings.robot_action_latency_s
        count = min(len(poses), settings.n_action_steps) if settings.n_action_steps else len(poses)
        times_s = observed_s + settings.period_s * np.arange(count + 1)
        anchored = np.vstack([self.target(observed_s), poses[:count]])
        chunk = Chunk(times_s, anchored, np.asarray(openings[:count], float))
        passed = int(np.searchsorted(times_s[1:], now_s, side='right'))
        stats.chunks += 1
        stats.steps += count
        stats.dropped += passed
        if passed >= count:
            stats.late += 1
            return None
        if count > 2:
            stats.second_differences_m.append(float(np.abs(np.diff(chunk.poses[1:, :3], n=2, axis=0)).mean()))
        if self._chunks:
            stats.transitions.append(self._transition(chunk, now_s))
        stop_distance_m = 0.0 if last else settings.stop_distance_m
        self._chunks.append((now_s, self._decelerate(chunk, stop_distance_m)))
        self._drop_old_chunks(now_s)
        return observed_s

    def offset(self, poses: Array, observed_s: float, now_s: float) -> tuple[float, float]:
        """Distance in m and angle in rad of a chunk from the present motion, at its take-over."""
        step = 0
        if self._chunks:
            passed = int((now_s - observed_s) / self.settings.period_s)
            step = min(max(passed, 0), len(poses) - 1)
        planned = self.target(observed_s + (step + 1) * self.settings.period_s)
        distance_m = float(np.linalg.norm(poses[step, :3] - planned[:3]))
        return distance_m, angle_between(planned, poses[step])

    @property
    def end_s(self) -> float:
        """The time at which the newest chunk ends, without its deceleration."""
        if not self._chunks:
            return -np.inf
        return self._chunks[-1][1].end_s - self._tail_s

    def is_exhausted(self, now_s: float) -> bool:
        """Whether the motion has decelerated to rest because no chunk came in time."""
        return bool(self._chunks) and now_s >= self._chunks[-1][1].end_s

    def run_out(self, now_s: float) -> bool:
        """Replaces the plan from a tick on by its own path, decelerated to rest within `stop_distance_m`.

        Returns False if nothing is planned, so that the arm is at rest already.
        """
        if not self._chunks:
            return False
        begin_s = now_s + self.settings.robot_action_latency_s
        period_s = self.settings.period_s
        # Steps of 1, 0.7 and 0.3 of the present speed, along the path.
        path = [self.target(begin_s + share * period_s) for share in (0.0, 1.0, 1.7, 2.0)]
        length_m = float(np.linalg.norm(np.diff([pose[:3] for pose in path], axis=0), axis=1).sum())
        scale = min(1.0, self.settings.stop_distance_m / length_m) if length_m > 0 else 1.0
        shares = scale * np.array([0.0, 1.0, 1.7, 2.0])
        poses = np.array([self.target(begin_s + share * period_s) for share in shares])
        times_s = begin_s + period_s * np.arange(4)
        self._chunks = deque([(-np.inf, Chunk(times_s, poses, np.full(3, self._opening)))])
        return True

    def sample(self, now_s: float, measured: Array | None = None) -> tuple[Array, float]:
        """Target pose (7,) and opening for a tick; clamped to `max_lead_m` from `measured`."""
        time_s = now_s + self.settings.robot_action_latency_s
        pose = self.target(time_s)
        if self._chunks:
            self._opening = self._chunks[-1][1].opening(now_s + self.settings.gripper_action_latency_s)
        if measured is not None:
            pose = self._clamp_lead(pose, measured)
        return pose, self._opening

    def _clamp_lead(self, pose: Array, measured: Array) -> Array:
        lead = pose[:3] - measured[:3]
        distance_m = float(np.linalg.norm(lead))
        if distance_m <= self.settings.max_lead_m:
            return pose
        clamped = measured[:3] + lead * (self.settings.max_lead_m / distance_m)
        return np.concatenate([clamped, pose[3:]])

    def _blend(self, time_s: float) -> Array:
        """Blends from chunk to chunk: each replaces the previous ones within `blend_s` of its arrival."""
        blend_s = self.settings.blend_s
        arrived = [(since_s, chunk) for since_s, chunk in self._chunks if since_s <= time_s]
        arrived = arrived or [self._chunks[0]]
        # A chunk whose blend is complete hides everything before it.
        complete = [number for number, (since_s, _) in enumerate(arrived) if since_s + blend_s <= time_s]
        first = max(complete, default=0)
        pose = arrived[first][1].pose(time_s)
        for since_s, chunk in arrived[first + 1 :]:
            share = _smoothstep((time_s - since_s) / blend_s)
            pose = interpolate_pose(pose, chunk.pose(time_s), share)
        return pose

    def _ensemble(self, time_s: float) -> Array:
        """The weighted mean on SE(3) of all chunks that include a time, from the newest to the oldest."""
        alive = [
            chunk
            for since_s, chunk in self._chunks
            if since_s <= time_s and chunk.end_s - self._tail_s > time_s
        ] or [self._chunks[-1][1]]
        poses = [chunk.pose(time_s) for chunk in reversed(alive)]
        weights = np.exp(-self.settings.temporal_ensemble_coeff * np.arange(len(poses)))
        mean = poses[0]
        total = weights[0]
        for pose, weight in zip(poses[1:], weights[1:], strict=True):
            total += weight
            mean = interpolate_pose(mean, pose, float(weight / total))
        return mean

    def _transition(self, chunk: Chunk, now_s: float) -> ChunkTransition:
        step_s = self.settings.period_s
        before = self.target(now_s)
        after = chunk.pose(now_s)
        old_step = self.target(now_s + step_s)[:3] - before[:3]
        new_step = chunk.pose(now_s + step_s)[:3] - after[:3]
        jump_m = float(np.linalg.norm(after[:3] - before[:3]))
        return ChunkTransition(jump_m, angle_between(before, after), _turn_rad(old_step, new_step))

    @property
    def _tail_s(self) -> float:
        """The duration of the two steps that `_decelerate` adds."""
        return 2 * self.settings.period_s

    def _decelerate(self, chunk: Chunk, stop_distance_m: float) -> Chunk:
        """Adds two steps that bring the last velocity to rest within a distance; 0 ends at the last pose."""
        last = deltas_between(chunk.poses[-2:])[0]
        length = float(np.linalg.norm(last[:3]))
        scale = float(stop_distance_m > 0)
        if length > 0:
            scale = min(1.0, stop_distance_m / length)
        half = apply_delta(chunk.poses[-1], last * scale * 0.7)
        rest = apply_delta(half, last * scale * 0.3)
        added_s = chunk.times_s[-1] + self.settings.period_s * np.array([1, 2])
        openings = np.append(chunk.openings, chunk.openings[-1:].repeat(2))
        return Chunk(np.append(chunk.times_s, added_s), np.vstack([chunk.poses, half, rest]), openings)

    def _drop_old_chunks(self, now_s: float) -> None:
        """Drops chunks that are neither sampled any more nor the anchor of a late observation."""
        while len(self._chunks) > 1 and self._chunks[1][0] + self.settings.blend_s < now_s - _REMEMBERED_S:
            self._chunks.popleft()


def _turn_rad(before: Array, after: Array) -> float:
    """The angle between two steps (3,); 0 if one of them has no length."""
    lengths = float(np.linalg.norm(before) * np.linalg.norm(after))
    if lengths <= 1e-12:
        return 0.0
    return float(np.arccos(np.clip(before @ after / lengths, -1.0, 1.0)))


def _smoothstep(share: float) -> float:
    """A blend from 0 to 1 with no velocity at both ends (Hermite)."""
    x = min(max(share, 0.0), 1.0)
    return x * x * (3 - 2 * x)
