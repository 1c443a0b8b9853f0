# SPDX-License-Identifier: Apache-2.0
"""Rows and videos of a run in the offline cell, sampled as the recorder samples the live one."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from groot_ros.dataset.sources.segment import Segment
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.sampling.rows import RowSampler, TickSample, build_rows
from groot_ros.sim.offline.cell import OfflineCell
from groot_ros.sim.offline.topics import ImageMessage, state_message
from groot_ros.sim.rendering import SceneRenderer
from groot_ros.sim.scene import STEP_S
from groot_ros.video.frame import decode_frame
from groot_ros.video.mp4 import Mp4Encoder


class FrameClock:
    """Says in which steps of 2 ms the cameras expose a frame: `fps` times a second, from the next step on."""

    def __init__(self, fps: float, first_step: int) -> None:
        self._period_steps = 1 / (fps * STEP_S)
        self._first_step = first_step
        self._frames = 0

    def due(self, step: int) -> bool:
        """Whether a frame is exposed in this step, which must not decrease."""
        if step < self._first_step + self._frames * self._period_steps:
            return False
        self._frames += 1
        return True


class OfflineRecording:
    """Takes a row in each step that is due, and encodes the frames at once, so that they fill no memory."""

    def __init__(
        self, cell: OfflineCell, embodiment: Embodiment, renderer: SceneRenderer, folder: Path, codec: str
    ) -> None:
        self._cell = cell
        self._embodiment = embodiment
        self._renderer = renderer
        self._clock = FrameClock(embodiment.fps, cell.steps)
        self._samples: list[TickSample] = []
        self._encoders: dict[str, Mp4Encoder] = {}
        self._waiting: list[ImageMessage] = []
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for camera in embodiment.cameras:
            file = self._video(camera)
            self._encoders[camera.name] = Mp4Encoder(file, camera.width, camera.height, embodiment.fps, codec)

    def step(self) -> None:
        """Call it after every step of the cell, and once before the first."""
        if not self._clock.due(self._cell.steps):
            return
        self._encode_waiting()
        self._samples.append(self._sample())
        self._waiting = [
            ImageMessage(self._cell, camera, self._renderer) for camera in self._embodiment.cameras
        ]

    def finish(self, task: str, notes: dict) -> 'OfflineSegment':
        """The rows so far. The last sample only ends the last action, so its frame is left out."""
        self._close()
        rows = build_rows(self._embodiment, self._samples)
        return OfflineSegment(rows=rows, task=task, notes=notes, folder=self._folder)

    def discard(self) -> None:
        """Deletes the videos of an episode that is not kept."""
        self._close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _close(self) -> None:
        for encoder in self._encoders.values():
            encoder.close()

    def _encode_waiting(self) -> None:
        """Encodes the frames of the sample before, which has become a row."""
        for camera, message in zip(self._embodiment.cameras, self._waiting, strict=False):
            self._encoders[camera.name].add(decode_frame(message))

    def _sample(self) -> TickSample:
        sampler = RowSampler(self._embodiment)
        for topic in self._embodiment.sampled_topics:
            sampler.add(topic, state_message(self._cell, topic))
        return sampler.sample(self._cell.now_ns)

    def _video(self, camera: CameraField) -> Path:
        return video_file(self._folder, camera)


@dataclass(kw_only=True)
class OfflineSegment(Segment):
    """The rows of a run, whose videos are in `folder` already."""

    folder: Path

    def write_video(self, camera: CameraField, path: Path, first: int, count: int) -> int:
        """Moves the video of a camera, which must be wanted whole, and returns its number of frames."""
        if first or count != len(self.rows):
            raise GrootRosError('Rows of a simulated demonstration cannot be left out: omit --keep-idle-s.')
        video_file(self.folder, camera).replace(path)
        return count


def video_file(folder: Path, camera: CameraField) -> Path:
    """Where the video of a camera is while a run is recorded."""
    return folder / f'{camera.name}.mp4'
