# SPDX-License-Identifier: Apache-2.0
"""Observations of a running robot: the newest tick that every stream covers, sampled like recorded rows."""

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
    """The reason why no observation can be made now."""

    reason: str


class ObservationBuilder:
    """Collects messages, and makes an observation on request; images are decoded only then.

    `observation_indices` are the rows that a policy sees: 0 is the newest tick, -1 the row before it.
    `max_observation_age_s` is the maximum age of the newest tick. Messages are kept `kept_s` longer than
    the observations need, for `actions`.
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
        self._indices = observation_indices
        self._row_ns = round((period_s or 1.0 / embodiment.fps) * 1e9)
        self._max_age_ns = round(max_observation_age_s * 1e9)
        self._kept_ns = round(kept_s * 1e9) + self._max_age_ns - min(observation_indices) * self._row_ns
        self._sampler = RowSampler(embodiment)
        self._frames: dict[str, deque[tuple[int, Any]]] = {
            camera.topic: deque() for camera in embodiment.cameras
        }
        self._latencies_ns = {
            camera.topic: round(camera.obs_latency_s * 1e9) for camera in embodiment.cameras
        }

    def add(self, topic: str, stamp_ns: int, message: Any) -> None:
        """Adds a decoded message of a state or action topic, or a message of a camera."""
        if topic not in self._frames:
            self._sampler.add(topic, message)
            return
        frames = self._frames[topic]
        frames.append((stamp_ns - self._latencies_ns[topic], message))
        while frames[0][0] < frames[-1][0] - self._kept_ns:
            frames.popleft()

    def observe(self, now_ns: int, task: str) -> Observation | ObservationUnavailable:
        """The observation at the newest tick, or the reason why there is none. Nothing is ever filled in."""
        if missing := self._missing_topics():
            return ObservationUnavailable(f'nothing has come on {", ".join(missing)}')
        tick_ns = self._newest_tick()
        if tick_ns is None or now_ns - tick_ns > self._max_age_ns:
            return ObservationUnavailable(self._describe_oldest_stream(now_ns))
        try:
            by_index = {
                index: self._observe_at(tick_ns + index * self._row_ns, task) for index in {0, *self._indices}
            }
        except MissingSampleError as error:
            return ObservationUnavailable(str(error))
        self._sampler.drop_before(tick_ns - self._kept_ns)
        newest = by_index.pop(0)
        newest.earlier = by_index
        return newest

    def actions(self, ticks_ns: np.ndarray) -> Array | ObservationUnavailable | None:
        """The actions (n, A) between n + 1 ticks, as the converter makes them.

        None while the last tick is not covered by every stream.
        """
        ticks = [int(tick_ns) for tick_ns in ticks_ns]
        if not self._sampler.extends_past(ticks[-1]):
            return None
        try:
            return build_rows(self.embodiment, self._sampler.sample_all(ticks)).actions
        except MissingSampleError as error:
            return ObservationUnavailable(str(error))

    def _missing_topics(self) -> list[str]:
        silent_cameras = [topic for topic, frames in self._frames.items() if not frames]
        return list(dict.fromkeys([*self._sampler.missing_topics(), *silent_cameras]))

    def _newest_tick(self) -> int | None:
        """The stamp of the newest frame of the first camera that every stream covers."""
        reference = self._frames[self.embodiment.cameras[0].topic]
        covered = (stamp_ns for stamp_ns, _ in reversed(reference) if self._sampler.extends_past(stamp_ns))
        return next(covered, None)

    def _observe_at(self, tick_ns: int, task: str) -> Observation:
        """Raises MissingSampleError if a stream or a camera has nothing near enough."""
        images = {}
        for camera in self.embodiment.cameras:
            stamp_ns, message = min(self._frames[camera.topic], key=lambda entry: abs(entry[0] - tick_ns))
            if abs(stamp_ns - tick_ns) > self._max_age_ns:
                limit_ms = self._max_age_ns / 1e6
                raise MissingSampleError(f'{camera.topic} has no frame within {limit_ms:.0f} ms')
            images[camera.name] = _decode_rgb(message, camera)
        return Observation(tick_ns, self._sampler.sample(tick_ns).state, images, task)

    def _describe_oldest_stream(self, now_ns: int) -> str:
        newest = {camera.topic: self._frames[camera.topic][-1][0] for camera in self.embodiment.cameras[:1]}
        newest |= {source.topic: stream.last_stamp_ns for source, stream in self._sampler.sources()}
        topic, stamp_ns = min(newest.items(), key=lambda entry: entry[1])
        return f'{topic} has been silent for {(now_ns - stamp_ns) / 1e9:.2f} s'


def _decode_rgb(message: Any, camera: CameraField) -> np.ndarray:
    return decode_frame(message).letterboxed(camera.width, camera.height).rgb()
