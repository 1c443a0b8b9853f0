"""Observations of a running robot, sampled as the recorder samples rows: the newest tick that every stream covers."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from groot_ros.bags.images import frame_of
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.policies.base import Observation
from groot_ros.rows import MissingSampleError, RowSampler

_FRAMES_KEPT = 30
_KEPT_NS = 2_000_000_000


@dataclass
class Missing:
    """Why there is no observation."""

    reason: str


class Observer:
    """Takes messages as they come, and makes an observation when one is wanted. Pictures are decoded only then."""

    def __init__(self, embodiment: Embodiment, stale_s: float = 0.3) -> None:
        self.embodiment = embodiment
        self._stale_ns = round(stale_s * 1e9)
        self._sampler = RowSampler(embodiment)
        self._frames: dict[str, deque[tuple[int, Any]]] = {camera.topic: deque(maxlen=_FRAMES_KEPT) for camera in embodiment.cameras}
        self._latencies_ns = {camera.topic: round(camera.latency_s * 1e9) for camera in embodiment.cameras}

    @property
    def topics(self) -> list[str]:
        """What it wants to be given."""
        return [*self.embodiment.row_topics, *self._frames]

    def add(self, topic: str, stamp_ns: int, message: Any) -> None:
        """A decoded message of a row topic, or one of a camera."""
        if topic in self._frames:
            self._frames[topic].append((stamp_ns - self._latencies_ns[topic], message))
        else:
            self._sampler.add(topic, message)

    def observe(self, now_ns: int, task: str) -> Observation | Missing:
        """The newest whole tick, or what is missing or stale; nothing is ever filled in."""
        if lacking := [*self._sampler.missing(), *(topic for topic, frames in self._frames.items() if not frames)]:
            return Missing(f'nothing has come on {", ".join(dict.fromkeys(lacking))}')
        reference = self._frames[self.embodiment.cameras[0].topic]
        tick_ns = next((stamp_ns for stamp_ns, _ in reversed(reference) if self._sampler.covers(stamp_ns)), None)
        if tick_ns is None or now_ns - tick_ns > self._stale_ns:
            return Missing(self._stale(now_ns))
        try:
            state = self._sampler.sample(tick_ns).state
        except MissingSampleError as error:
            return Missing(str(error))
        images = {}
        for camera in self.embodiment.cameras:
            stamp_ns, message = min(self._frames[camera.topic], key=lambda entry: abs(entry[0] - tick_ns))
            if abs(stamp_ns - tick_ns) > self._stale_ns:
                return Missing(f'{camera.topic} has no frame within {self._stale_ns / 1e6:.0f} ms')
            images[camera.name] = _rgb(message, camera)
        self._sampler.forget_before(tick_ns - _KEPT_NS)
        return Observation(tick_ns, state, images, task)

    def _stale(self, now_ns: int) -> str:
        newest = {camera.topic: self._frames[camera.topic][-1][0] for camera in self.embodiment.cameras[:1]}
        newest |= {source.topic: stream.newest_ns for source, stream in self._sampler.sources()}
        topic, stamp_ns = min(newest.items(), key=lambda entry: entry[1])
        return f'{topic} has been silent for {(now_ns - stamp_ns) / 1e9:.2f} s'


def _rgb(message: Any, camera: CameraField) -> np.ndarray:
    return frame_of(message).fitted(camera.width, camera.height).rgb()
