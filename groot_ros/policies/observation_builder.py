# SPDX-License-Identifier: Apache-2.0
"""Observations of a running robot, sampled as the recorder samples rows: the newest tick that every stream covers."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.geometry import Array
from groot_ros.policies.policy import Observation
from groot_ros.sampling.rows import MissingSampleError, RowSampler, build_rows
from groot_ros.video.frame import decode_frame


@dataclass
class ObservationUnavailable:
    """Why there is no observation."""

    reason: str


class ObservationBuilder:
    """Takes messages as they come, and makes an observation when one is wanted. Pictures are decoded only then.

    `observation_indices` are the rows that a policy sees, 0 being the newest tick and -1 the row before it; `max_observation_age_s` is how old the newest may be,
    and `kept_s` for how long what has come is kept besides.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        max_observation_age_s: float = 0.3,
        observation_indices: tuple[int, ...] = (0,),
        period_s: float = 0.0,
        kept_s: float = 1.0,
    ) -> None:
        self.embodiment = embodiment
        self._indices, self._row_ns = observation_indices, round((period_s or 1.0 / embodiment.fps) * 1e9)
        self._stale_ns = round(max_observation_age_s * 1e9)
        self._kept_ns = round(kept_s * 1e9) + self._stale_ns - min(observation_indices) * self._row_ns
        self._sampler = RowSampler(embodiment)
        self._frames: dict[str, deque[tuple[int, Any]]] = {
            camera.topic: deque() for camera in embodiment.cameras
        }
        self._latencies_ns = {
            camera.topic: round(camera.obs_latency_s * 1e9) for camera in embodiment.cameras
        }

    def add(self, topic: str, stamp_ns: int, message: Any) -> None:
        """A decoded message of a row topic, or one of a camera."""
        if topic not in self._frames:
            self._sampler.add(topic, message)
            return
        frames = self._frames[topic]
        frames.append((stamp_ns - self._latencies_ns[topic], message))
        while frames[0][0] < frames[-1][0] - self._kept_ns:
            frames.popleft()

    def observe(self, now_ns: int, task: str) -> Observation | ObservationUnavailable:
        """The newest whole tick, or what is missing or stale; nothing is ever filled in."""
        if lacking := [
            *self._sampler.missing_topics(),
            *(topic for topic, frames in self._frames.items() if not frames),
        ]:
            return ObservationUnavailable(f'nothing has come on {", ".join(dict.fromkeys(lacking))}')
        tick_ns = self._newest_tick()
        if tick_ns is None or now_ns - tick_ns > self._stale_ns:
            return ObservationUnavailable(self._stale(now_ns))
        try:
            seen = {step: self._at(tick_ns + step * self._row_ns, task) for step in {0, *self._indices}}
        except MissingSampleError as error:
            return ObservationUnavailable(str(error))
        self._sampler.drop_before(tick_ns - self._kept_ns)
        newest = seen.pop(0)
        newest.earlier = seen
        return newest

    def actions(self, ticks_ns: np.ndarray) -> Array | ObservationUnavailable | None:
        """The actions (n, A) between n + 1 ticks, as the converter makes them; None while they are not over."""
        if not self._sampler.extends_past(int(ticks_ns[-1])):
            return None
        try:
            return build_rows(
                self.embodiment, self._sampler.sample_all([int(tick) for tick in ticks_ns])
            ).actions
        except MissingSampleError as error:
            return ObservationUnavailable(str(error))

    def _newest_tick(self) -> int | None:
        reference = self._frames[self.embodiment.cameras[0].topic]
        return next(
            (stamp_ns for stamp_ns, _ in reversed(reference) if self._sampler.extends_past(stamp_ns)), None
        )

    def _at(self, tick_ns: int, task: str) -> Observation:
        """Raises MissingSampleError where a stream or a camera has nothing near enough."""
        images = {}
        for camera in self.embodiment.cameras:
            stamp_ns, message = min(self._frames[camera.topic], key=lambda entry: abs(entry[0] - tick_ns))
            if abs(stamp_ns - tick_ns) > self._stale_ns:
                raise MissingSampleError(f'{camera.topic} has no frame within {self._stale_ns / 1e6:.0f} ms')
            images[camera.name] = _rgb(message, camera)
        return Observation(tick_ns, self._sampler.sample(tick_ns).state, images, task)

    def _stale(self, now_ns: int) -> str:
        newest = {camera.topic: self._frames[camera.topic][-1][0] for camera in self.embodiment.cameras[:1]}
        newest |= {source.topic: stream.last_stamp_ns for source, stream in self._sampler.sources()}
        topic, stamp_ns = min(newest.items(), key=lambda entry: entry[1])
        return f'{topic} has been silent for {(now_ns - stamp_ns) / 1e9:.2f} s'


def _rgb(message: Any, camera: CameraField) -> np.ndarray:
    return decode_frame(message).letterboxed(camera.width, camera.height).rgb()
