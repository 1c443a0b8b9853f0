# SPDX-License-Identifier: Apache-2.0
"""RowTable out of messages as they come: ticks, state, and the frame of each camera. The recorder and the readers of bags share it."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.sampling.rows import MissingSampleError, RowSampler
from groot_ros.sampling.stream import Tick, ticks_for
from groot_ros.video.frame import VideoFrame

_PATIENCE_NS = 500_000_000
_CLOCK_SET_NS = 1_000_000_000
_MAX_GAP_NS = 5_000_000_000
_FRAMES_KEPT = 120


@dataclass
class SampledRow:
    """A tick with everything sampled at it; `late` where a stream had not come by then."""

    tick: Tick
    index: int
    segment: int
    state: Array
    commands: Array
    ages_s: Array
    late: bool
    frames: dict[str, VideoFrame] = field(default_factory=dict)

    @property
    def frame_ages_s(self) -> Array:
        """From the tick to each camera's frame, in s; negative where the frame is older."""
        return np.array([(frame.stamp_ns - self.tick.stamp_ns) / 1e9 for frame in self.frames.values()])


class FrameBuffer:
    """The newest frames of a camera."""

    def __init__(self, camera: CameraField) -> None:
        self.camera = camera
        self._latency_ns = round(camera.obs_latency_s * 1e9)
        self._frames: deque[VideoFrame] = deque(maxlen=_FRAMES_KEPT)
        self.regressions = 0

    def add(self, frame: VideoFrame) -> bool:
        """Takes a frame; one whose stamp does not rise is counted and left out, which returns False."""
        frame.stamp_ns -= self._latency_ns
        if self._frames and frame.stamp_ns <= self._frames[-1].stamp_ns:
            self.regressions += 1
            return False
        self._frames.append(frame)
        return True

    @property
    def has_frames(self) -> bool:
        """Whether a frame has come."""
        return bool(self._frames)

    def starts_before(self, tick_ns: int) -> bool:
        """Whether a frame lies at or before the tick."""
        return bool(self._frames) and self._frames[0].stamp_ns <= tick_ns

    def extends_past(self, tick_ns: int) -> bool:
        """Whether no later frame can be nearer to the tick."""
        return bool(self._frames) and self._frames[-1].stamp_ns >= tick_ns

    def nearest(self, tick_ns: int) -> VideoFrame:
        """The frame nearest to a tick; older ones are forgotten."""
        frames = self._frames
        while len(frames) > 1 and abs(frames[1].stamp_ns - tick_ns) <= abs(frames[0].stamp_ns - tick_ns):
            frames.popleft()
        return frames[0]


class RowBuilder:
    """Hands each row to `on_row` once every stream extends_past its tick, or has been waited for long enough.

    The same messages in the same order make the same rows.
    """

    def __init__(self, embodiment: Embodiment, on_row: Callable[[SampledRow], None]) -> None:
        self.embodiment = embodiment
        self._on_row = on_row
        self._reference = embodiment.cameras[0]
        self._segment = self._rows = 0
        self._regressions = self._extra_frames = 0
        self._begin()

    def _begin(self) -> None:
        self._ticks = ticks_for(self.embodiment.fps, self._reference.rate_hz or self.embodiment.fps)
        self._sampler = RowSampler(self.embodiment)
        self._cameras = {camera.topic: FrameBuffer(camera) for camera in self.embodiment.cameras}
        self._pending: deque[Tick] = deque()
        self._last_frame_ns = 0

    @property
    def regressions(self) -> int:
        """Messages left out because their stamps went back."""
        return (
            self._regressions
            + self._sampler.regressions
            + sum(frames.regressions for frames in self._cameras.values())
        )

    @property
    def extra_frames(self) -> int:
        """Frames of the reference camera that came too soon for a tick of their own."""
        return self._extra_frames + self._ticks.extra_frames

    def missing_topics(self) -> list[str]:
        """Topics without a measurement so far: rows begin once there is none."""
        cameras = [topic for topic, frames in self._cameras.items() if not frames.extends_past(0)]
        return [*self._sampler.missing_topics(), *cameras]

    def take(self, topic: str, message: Any) -> None:
        """A decoded message of one of the embodiment's row topics."""
        self._sampler.add(topic, message)

    def take_frame(self, topic: str, frame: VideoFrame) -> None:
        """A frame of a camera. Raises GrootRosError where the clock behind the stamps was set, or the camera was gone for long."""
        is_reference = topic == self._reference.topic
        if is_reference:
            self._check_clock(topic, frame.stamp_ns)
        if not self._cameras[topic].add(frame) or not is_reference:
            return
        begun = bool(self._ticks.measured_fps) or self._sampler.starts_before(frame.stamp_ns)
        if begun and all(frames.starts_before(frame.stamp_ns) for frames in self._cameras.values()):
            self._pending.extend(self._ticks.add(frame.stamp_ns))

    def resolve(self, arrival_ns: int) -> None:
        """Makes the rows that are ready; `arrival_ns` is when the message in hand came.

        What is late in this thread only may not count as missing, so the time is not asked of a clock.
        """
        while self._pending:
            tick = self._pending[0]
            complete = self._complete(tick.stamp_ns)
            if not complete and arrival_ns - tick.stamp_ns < _PATIENCE_NS:
                return
            self._make(self._pending.popleft(), late=not complete)

    def new_segment(self) -> None:
        """Ends the rows so far; no row reaches across."""
        while self._pending and self._complete(self._pending[0].stamp_ns):
            self._make(self._pending.popleft(), late=False)
        self._regressions, self._extra_frames = self.regressions, self.extra_frames
        self._segment += 1
        self._begin()

    def _complete(self, tick_ns: int) -> bool:
        return self._sampler.extends_past(tick_ns) and all(
            frames.extends_past(tick_ns) for frames in self._cameras.values()
        )

    def _make(self, tick: Tick, late: bool) -> None:
        try:
            sample = self._sampler.sample(tick.stamp_ns)
            state, commands, ages_s = sample.state, sample.commands, sample.ages_s
        except MissingSampleError:
            # The tick stays in the bag, since its frame does; the converter names what was missing.
            state, ages_s = (
                np.full(self.embodiment.state_size, np.nan),
                np.full(len(self.embodiment.state), np.inf),
            )
            commands = np.full(self.embodiment.commands_size, np.nan)
        frames = {topic: frames.nearest(tick.stamp_ns) for topic, frames in self._cameras.items()}
        self._on_row(SampledRow(tick, self._rows, self._segment, state, commands, ages_s, late, frames))
        self._rows += 1
        self._sampler.drop_before(tick.stamp_ns)

    def _check_clock(self, topic: str, stamp_ns: int) -> None:
        step_ns, known = stamp_ns - self._last_frame_ns, self._last_frame_ns
        self._last_frame_ns = stamp_ns
        if known and step_ns < -_CLOCK_SET_NS:
            raise GrootRosError(
                f'the stamps of {topic} went back by {-step_ns / 1e9:.1f} s: the clock was set'
            )
        if known and step_ns > _MAX_GAP_NS:
            raise GrootRosError(f'{topic} had no frame for {step_ns / 1e9:.1f} s')
