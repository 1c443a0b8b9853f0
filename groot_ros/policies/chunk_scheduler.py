# SPDX-License-Identifier: Apache-2.0
"""Chunks of a policy as a motion in time: what has passed is dropped, transitions are blended on SE(3), an end is run out to a stop. Pure numpy.

Times are seconds of one clock. Step k of a chunk, counted from 0, is the pose to be reached at `observed_s + (k + 1) * period_s`.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from groot_ros.geometry import Array, angle_between, apply_delta, deltas_between, interpolate_pose
from groot_ros.settings import setting

_LATENCIES, _SOME = 100, 5
_REMEMBERED_S = 3.0


@dataclass(frozen=True)
class ScheduleSettings:
    """How chunks follow each other.

    A new observation is sent every `inference_interval_s`, and earlier if the reply would otherwise come after the
    end of the motion: `latency_share` of the measured latencies plus `margin_s` are reserved for it. With temporal
    ensembling, all chunks that overlap are averaged with weights exp(-temporal_ensemble_coeff * age in chunks);
    otherwise two chunks are blended during `blend_s`.
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
    """Poses (H + 1, 7) at `times_s` (H + 1,), the first of them the anchor at the observation, and openings (H,) of the steps."""

    times_s: Array
    poses: Array
    openings: Array

    @property
    def end_s(self) -> float:
        """When the last pose is reached."""
        return float(self.times_s[-1])

    def pose(self, time_s: float) -> Array:
        """The pose (7,) at a time; the first and the last hold outside."""
        after = int(np.searchsorted(self.times_s, time_s, side='right'))
        if after == 0:
            return self.poses[0]
        if after == len(self.times_s):
            return self.poses[-1]
        before = after - 1
        share = (time_s - self.times_s[before]) / (self.times_s[after] - self.times_s[before])
        return interpolate_pose(self.poses[before], self.poses[after], share)

    def opening(self, time_s: float) -> float:
        """The opening of the step that leads across a time."""
        step = int(np.searchsorted(self.times_s, time_s, side='right')) - 1
        return float(self.openings[np.clip(step, 0, len(self.openings) - 1)])


@dataclass
class ChunkTransition:
    """Where a chunk took over: how far it lay from the motion so far, and by how much the direction turned."""

    jump_m: float
    jump_rad: float
    turn_rad: float


@dataclass
class ScheduleStats:
    """Counts and measurements since `start`."""

    chunks: int = 0
    steps: int = 0
    dropped: int = 0
    late: int = 0
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))
    transitions: deque[ChunkTransition] = field(default_factory=lambda: deque(maxlen=_LATENCIES))
    second_differences_m: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))

    def latency_s(self, share: float) -> float:
        """A percentile of the latencies, 0 before the first."""
        return float(np.quantile(self.latencies_s, share)) if self.latencies_s else 0.0

    @property
    def dropped_share(self) -> float:
        """Steps whose time had passed when they came."""
        return self.dropped / self.steps if self.steps else 0.0


class ChunkScheduler:
    """Turns chunks into one motion. Call `start`, `add` when a chunk comes, and `sample` at each tick."""

    def __init__(self, settings: ScheduleSettings) -> None:
        self.settings = settings
        self.stats = ScheduleStats()
        self._chunks: deque[tuple[float, Chunk]] = deque()
        self._held = np.array([0.0, 0, 0, 0, 0, 0, 1])
        self._opening = np.nan
        self._requested_s: float | None = None
        self._last_request_s = -np.inf

    def start(self, pose: Array) -> None:
        """Begins at a pose (7,), with nothing planned."""
        self.stats = ScheduleStats()
        self.flush(pose)
        self._opening = np.nan

    def flush(self, pose: Array) -> None:
        """Forgets what is planned and holds a pose: after a pause, or when somebody else has moved the arm."""
        self._chunks.clear()
        self._held = np.asarray(pose, float)
        self._requested_s, self._last_request_s = None, -np.inf

    def target(self, time_s: float) -> Array:
        """The pose (7,) that is commanded for a time, the anchor of a chunk of deltas observed then."""
        if not self._chunks:
            return self._held
        if self.settings.temporal_ensemble_coeff > 0:
            return self._ensemble(time_s)
        return self._blend(time_s)

    def wants_request(self, now_s: float) -> bool:
        """Whether an observation should go out now: none is under way, and it is time or the motion would end before the reply."""
        if self._requested_s is not None:
            return False
        if not self._chunks:
            return True
        due_s = self._last_request_s + self.settings.inference_interval_s
        needed_s = self.stats.latency_s(self.settings.latency_share) + self.settings.margin_s
        return now_s >= min(due_s, self.end_s - needed_s)

    def request_sent(self, now_s: float) -> None:
        """An observation went out."""
        self._requested_s = self._last_request_s = now_s

    def cancel_request(self) -> None:
        """Nobody waits for a reply any more."""
        self._requested_s = None

    def reply_timeout_s(self) -> float:
        """How long a reply is waited for: longer than any of late, and short enough to ask again; infinite before some have come.

        A reply that was given up counts as one that took so long, so that a model that has become slower is waited for again.
        """
        latencies_s = self.stats.latencies_s
        return (
            1.5 * self.stats.latency_s(0.95) + self.settings.margin_s if len(latencies_s) >= _SOME else np.inf
        )

    def reply_lost(self, now_s: float) -> None:
        """The reply will not come: the next request may go out."""
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
        """Takes a chunk: target poses (H, 7) and openings (H,) of an observation; the `last` one ends where it ends.

        Returns when it begins: at its observation, or, where the arm has stood still meanwhile so that no step has passed, with the next
        command, at `next_s`. None where all its time has passed.
        """
        settings, stats = self.settings, self.stats
        if self._requested_s is not None:
            stats.latencies_s.append(now_s - self._requested_s)
        self._requested_s = None
        if not self._chunks:
            observed_s = (now_s if next_s is None else next_s) + settings.robot_action_latency_s
        count = min(len(poses), settings.n_action_steps) if settings.n_action_steps else len(poses)
        times_s = observed_s + settings.period_s * np.arange(count + 1)
        chunk = Chunk(
            times_s, np.vstack([self.target(observed_s), poses[:count]]), np.asarray(openings[:count], float)
        )
        passed = int(np.searchsorted(times_s[1:], now_s, side='right'))
        stats.chunks, stats.steps, stats.dropped = (
            stats.chunks + 1,
            stats.steps + count,
            stats.dropped + passed,
        )
        if passed >= count:
            stats.late += 1
            return None
        if count > 2:
            stats.second_differences_m.append(float(np.abs(np.diff(chunk.poses[1:, :3], n=2, axis=0)).mean()))
        if self._chunks:
            stats.transitions.append(self._transition(chunk, now_s))
        self._chunks.append((now_s, self._decelerate(chunk, 0.0 if last else self.settings.stop_distance_m)))
        self._drop_old_chunks(now_s)
        return observed_s

    @property
    def end_s(self) -> float:
        """When the newest chunk ends, its running out left out."""
        return self._chunks[-1][1].end_s - self._tail_s if self._chunks else -np.inf

    def is_exhausted(self, now_s: float) -> bool:
        """Whether the motion has run out to a stop because no chunk came in time."""
        return bool(self._chunks) and now_s >= self._chunks[-1][1].end_s

    def sample(self, now_s: float, measured: Array | None = None) -> tuple[Array, float]:
        """Target pose (7,) and opening for a tick; held within `max_lead_m` of the measured pose, where one is given."""
        time_s = now_s + self.settings.robot_action_latency_s
        pose = self.target(time_s)
        if self._chunks:
            self._opening = self._chunks[-1][1].opening(now_s + self.settings.gripper_action_latency_s)
        if measured is not None:
            away = pose[:3] - measured[:3]
            distance = float(np.linalg.norm(away))
            if distance > self.settings.max_lead_m:
                pose = np.concatenate([measured[:3] + away * (self.settings.max_lead_m / distance), pose[3:]])
        return pose, self._opening

    def _blend(self, time_s: float) -> Array:
        """From chunk to chunk, each taking over within `blend_s` of its arrival."""
        come = [number for number, (since_s, _) in enumerate(self._chunks) if since_s <= time_s] or [0]
        # What has taken over wholly hides everything before it.
        first = max(
            (number for number in come if self._chunks[number][0] + self.settings.blend_s <= time_s),
            default=0,
        )
        pose = self._chunks[first][1].pose(time_s)
        for number in come:
            if number > first:
                since_s, chunk = self._chunks[number]
                pose = interpolate_pose(
                    pose, chunk.pose(time_s), _smoothstep((time_s - since_s) / self.settings.blend_s)
                )
        return pose

    def _ensemble(self, time_s: float) -> Array:
        """The mean on SE(3) of all chunks that reach a time, the newest first."""
        alive = [
            chunk
            for since_s, chunk in self._chunks
            if since_s <= time_s and chunk.end_s - self._tail_s > time_s
        ] or [self._chunks[-1][1]]
        poses = [chunk.pose(time_s) for chunk in reversed(alive)]
        weights = np.exp(-self.settings.temporal_ensemble_coeff * np.arange(len(poses)))
        mean, total = poses[0], weights[0]
        for pose, weight in zip(poses[1:], weights[1:], strict=True):
            total += weight
            mean = interpolate_pose(mean, pose, float(weight / total))
        return mean

    def _transition(self, chunk: Chunk, now_s: float) -> ChunkTransition:
        step_s = self.settings.period_s
        before, after = self.target(now_s), chunk.pose(now_s)
        old, new = self.target(now_s + step_s)[:3] - before[:3], chunk.pose(now_s + step_s)[:3] - after[:3]
        lengths = float(np.linalg.norm(old) * np.linalg.norm(new))
        turn = float(np.arccos(np.clip(old @ new / lengths, -1.0, 1.0))) if lengths > 1e-12 else 0.0
        return ChunkTransition(
            float(np.linalg.norm(after[:3] - before[:3])), angle_between(before, after), turn
        )

    @property
    def _tail_s(self) -> float:
        return 2 * self.settings.period_s

    def _decelerate(self, chunk: Chunk, stop_distance_m: float) -> Chunk:
        """Two more steps that bring the last velocity to rest within `stop_distance_m`; none of its turning either for 0."""
        last = deltas_between(chunk.poses[-2:])[0]
        length = float(np.linalg.norm(last[:3]))
        scale = min(1.0, stop_distance_m / length) if length > 0 else float(stop_distance_m > 0)
        half = apply_delta(chunk.poses[-1], last * scale * 0.7)
        rest = apply_delta(half, last * scale * 0.3)
        period_s = self.settings.period_s
        return Chunk(
            np.append(chunk.times_s, chunk.times_s[-1] + period_s * np.array([1, 2])), np.vstack([chunk.poses, half, rest]),
            np.append(chunk.openings, chunk.openings[-1:].repeat(2)),
        )  # fmt: skip

    def _drop_old_chunks(self, now_s: float) -> None:
        """Drops chunks that neither show any more nor are asked for: an observation may be some seconds old."""
        while len(self._chunks) > 1 and self._chunks[1][0] + self.settings.blend_s < now_s - _REMEMBERED_S:
            self._chunks.popleft()


def _smoothstep(share: float) -> float:
    """From 0 to 1 with no velocity at both ends (Hermite)."""
    x = min(max(share, 0.0), 1.0)
    return x * x * (3 - 2 * x)
