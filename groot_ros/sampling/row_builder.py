# SPDX-License-Identifier: Apache-2.0
"""Rows from messages in the order of their arrival. The recorder and the readers of bags share it."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.sampling.rows import MissingSampleError, RowSampler, TickSample
from groot_ros.sampling.ticks import Tick, ticks_for
from groot_ros.video.frame import VideoFrame

# How long a row waits for streams that are late.
_PATIENCE_NS = 500_000_000
_CLOCK_SET_NS = 1_000_000_000
_MAX_GAP_NS = 5_000_000_000
_FRAMES_KEPT = 120


@dataclass
class SampledRow:
    """A tick with everything that is sampled at it; `late` if a stream had not arrived in time.

    `state` (D,), `commands` (C,) and `ages_s` (F,) are as in TickSample; NaN and inf where a
    stream had nothing. `frames` has the nearest frame by the topic of each camera.
    """

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
        """Time in s from the tick to each camera's frame (cameras,); negative if the frame is older."""
        return np.array([(frame.stamp_ns - self.tick.stamp_ns) / 1e9 for frame in self.frames.values()])


class FrameBuffer:
    """The newest frames of one camera, 120 at most; `regressions` counts those whose stamps went back.

    The latency of the camera is subtracted from every stamp.
    """

    def __init__(self, camera: CameraField) -> None:
        self.camera = camera
        self._latency_ns = round(camera.obs_latency_s * 1e9)
        self._frames: deque[VideoFrame] = deque(maxlen=_FRAMES_KEPT)
        self.regressions = 0

    def add(self, frame: VideoFrame) -> bool:
        """Adds a frame and returns True. One whose stamp does not rise is counted and left out: False."""
        frame.stamp_ns -= self._latency_ns
        if self._frames and frame.stamp_ns <= self._frames[-1].stamp_ns:
            self.regressions += 1
            return False
        self._frames.append(frame)
        return True

    @property
    def has_frames(self) -> bool:
        """Whether a frame has arrived."""
        return bool(self._frames)

    def starts_before(self, tick_ns: int) -> bool:
        """Whether there is a frame at or before the tick."""
        return bool(self._frames) and self._frames[0].stamp_ns <= tick_ns

    def extends_past(self, tick_ns: int) -> bool:
        """Whether there is a frame at or after the tick, so that no later one can be nearer."""
        return bool(self._frames) and self._frames[-1].stamp_ns >= tick_ns

    def nearest(self, tick_ns: int) -> VideoFrame:
        """The frame nearest to a tick, the later one of two that are equally near.

        Older frames are dropped, so ticks must rise. There must be a frame, see `has_frames`.
        """
        frames = self._frames
        while len(frames) > 1 and abs(frames[1].stamp_ns - tick_ns) <= abs(frames[0].stamp_ns - tick_ns):
            frames.popleft()
        return frames[0]


class RowBuilder:
    """Gives each row to `on_row` once every stream extends past its tick, or after waiting for 0.5 s.

    The same messages in the same order make the same rows.
    """

    def __init__(self, embodiment: Embodiment, on_row: Callable[[SampledRow], None]) -> None:
        self.embodiment = embodiment
        self._on_row = on_row
        self._reference = embodiment.cameras[0]
        self._segment = 0
        self._rows = 0
        self._regressions = 0
        self._extra_frames = 0
        self._begin()

    def _begin(self) -> None:
        self._ticks = ticks_for(self.embodiment.fps, self._reference.rate_hz or self.embodiment.fps)
        self._sampler = RowSampler(self.embodiment)
        self._cameras = {camera.topic: FrameBuffer(camera) for camera in self.embodiment.cameras}
        self._pending: deque[Tick] = deque()
        self._last_frame_ns = 0

    @property
    def regressions(self) -> int:
        """Messages that were left out because their stamps went back."""
        of_cameras = sum(frames.regressions for frames in self._cameras.values())
        return self._regressions + self._sampler.regressions + of_cameras

    @property
    def extra_frames(self) -> int:
        """Frames of the reference camera that came too soon for a tick of their own."""
        return self._extra_frames + self._ticks.extra_frames

    def missing_topics(self) -> list[str]:
        """Topics without a measurement so far: there is no row while any is missing."""
        cameras = [topic for topic, frames in self._cameras.items() if not frames.extends_past(0)]
        return [*self._sampler.missing_topics(), *cameras]

    def take(self, topic: str, message: Any) -> None:
        """Takes a decoded message of one of `embodiment.sampled_topics`.

        Raises GrootRosError if it does not have the joints or the size that the embodiment says.
        """
        self._sampler.add(topic, message)

    def take_frame(self, topic: str, frame: VideoFrame) -> None:
        """Takes a frame of a camera.

        Raises GrootRosError if the clock was set back, or if the reference camera had a gap of over 5 s.
        """
        is_reference = topic == self._reference.topic
        if is_reference:
            self._check_clock(topic, frame.stamp_ns)
        if not self._cameras[topic].add(frame) or not is_reference:
            return
        sampled = bool(self._ticks.measured_fps) or self._sampler.starts_before(frame.stamp_ns)
        if sampled and all(frames.starts_before(frame.stamp_ns) for frames in self._cameras.values()):
            self._pending.extend(self._ticks.add(frame.stamp_ns))

    def resolve(self, arrival_ns: int) -> None:
        """Makes the rows that are ready; `arrival_ns` is when the last message arrived.

        That is the time here, not a clock's: messages that only wait for this thread must not count as late.
        """
        while self._pending:
            tick = self._pending[0]
            complete = self._complete(tick.stamp_ns)
            if not complete and arrival_ns - tick.stamp_ns < _PATIENCE_NS:
                return
            self._make(self._pending.popleft(), late=not complete)

    def new_segment(self) -> None:
        """Makes the rows that are complete, and begins a new segment: no action connects two segments."""
        while self._pending and self._complete(self._pending[0].stamp_ns):
            self._make(self._pending.popleft(), late=False)
        self._regressions = self.regressions
        self._extra_frames = self.extra_frames
        self._segment += 1
        self._begin()

    def _complete(self, tick_ns: int) -> bool:
        return self._sampler.extends_past(tick_ns) and all(
            frames.extends_past(tick_ns) for frames in self._cameras.values()
        )

    def _make(self, tick: Tick, late: bool) -> None:
        try:
            sample = self._sampler.sample(tick.stamp_ns)
        except MissingSampleError:
            # The tick stays in the bag, because its frame does; the converter names what was missing.
            sample = self._empty_sample(tick.stamp_ns)
        frames = {topic: frames.nearest(tick.stamp_ns) for topic, frames in self._cameras.items()}
        row = SampledRow(
            tick, self._rows, self._segment, sample.state, sample.commands, sample.ages_s, late, frames
        )
        self._on_row(row)
        self._rows += 1
        self._sampler.drop_before(tick.stamp_ns)

    def _empty_sample(self, tick_ns: int) -> TickSample:
        return TickSample(
            tick_ns,
            state=np.full(self.embodiment.state_size, np.nan),
            commands=np.full(self.embodiment.commands_size, np.nan),
            ages_s=np.full(len(self.embodiment.state), np.inf),
        )

    def _check_clock(self, topic: str, stamp_ns: int) -> None:
        is_first = not self._last_frame_ns
        step_ns = stamp_ns - self._last_frame_ns
        self._last_frame_ns = stamp_ns
        if is_first:
            return
        if step_ns < -_CLOCK_SET_NS:
            raise GrootRosError(
                f'the stamps of {topic} went back by {-step_ns / 1e9:.1f} s: the clock was set'
            )
        if step_ns > _MAX_GAP_NS:
            raise GrootRosError(f'{topic} had no frame for {step_ns / 1e9:.1f} s')
