# SPDX-License-Identifier: Apache-2.0
"""A segment of a bag: checked rows, and videos in files that were written while the bag was read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groot_ros.bags.reader import EpisodeBag
from groot_ros.dataset.sources.segment import Segment
from groot_ros.dataset.sources.video_sink import VideoSink
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.sampling.rows import TickSample, build_rows
from groot_ros.video.mp4 import cut_mp4, find_keyframes

_RATE_TOLERANCE = 0.02


@dataclass(kw_only=True)
class BagSegment(Segment):
    """A segment whose videos are files, one for each camera by its name, with their numbers of frames."""

    videos: dict[str, Path]
    frames: dict[str, int]
    fps: float

    def last_start(self, row: int) -> int:
        """Returns the last row up to `row` that is a keyframe of all cameras."""
        if row == 0:
            return 0
        common = set(range(row + 1))
        for video in self.videos.values():
            common &= set(find_keyframes(video)[0])
        return max(common, default=0)

    def write_video(self, camera: CameraField, path: Path, first: int, count: int) -> int:
        """Moves the whole video to `path`, or cuts `count` rows from `first` on out of it without encoding.

        A cut must begin at a keyframe, see `last_start`. Returns the number of frames.
        """
        video = self.videos[camera.name]
        if first or count < len(self.rows):
            return cut_mp4(video, path, first, count, self.fps)
        video.replace(path)
        return self.frames[camera.name]


def bag_outcome(bag: EpisodeBag) -> str:
    """The outcome of an episode; a bag of another recorder counts as a success, since somebody chose it."""
    return str(bag.info.get('outcome', 'unknown')) if bag.info else 'success'


def make_segment(
    bag: EpisodeBag,
    embodiment: Embodiment,
    samples: list[TickSample],
    sinks: dict[str, VideoSink],
    number: int,
    task: str = '',
) -> BagSegment:
    """Makes segment `number` of a bag from its samples and the sinks of its cameras by name.

    `task` is that of a time range, if it has one. Raises GrootRosError for rows at another rate than the
    embodiment's and for NaN.
    """
    notes = {'filled': bag.info.get('counts', {}).get('filled'), 'operator': bag.info.get('operator', '')}
    _check_rate(bag, embodiment, samples)
    rows = build_rows(embodiment, samples)
    _check_finite(bag, 'state', rows.states, embodiment.state_slices)
    _check_finite(bag, 'action', rows.actions, embodiment.action_slices)
    return BagSegment(
        rows=rows,
        task=task or str(bag.info.get('task', '')),
        outcome=bag_outcome(bag),
        notes=notes,
        videos={name: sink.videos[number] for name, sink in sinks.items()},
        frames={name: sink.frames[number] for name, sink in sinks.items()},
        fps=embodiment.fps,
    )


def _check_rate(bag: EpisodeBag, embodiment: Embodiment, samples: list[TickSample]) -> None:
    """The rate is measured, not read from the bag's notes, so that a recovered bag is checked too."""
    duration_s = (samples[-1].tick_ns - samples[0].tick_ns) / 1e9
    measured = (len(samples) - 1) / duration_s
    if abs(measured / embodiment.fps - 1) > _RATE_TOLERANCE:
        raise GrootRosError(
            f'The bag {bag.path} was recorded at {measured:.2f} frames/s but the embodiment '
            f'{embodiment.name} says {embodiment.fps:g}: set fps in the embodiment, or the camera, '
            'to the same rate.'
        )


def _check_finite(bag: EpisodeBag, group: str, values: np.ndarray, slices: dict[str, slice]) -> None:
    for name, part in slices.items():
        bad = np.flatnonzero(~np.isfinite(values[:, part]).all(axis=1))
        if len(bad):
            raise GrootRosError(
                f'The bag {bag.path} cannot be converted: {group} {name} is NaN or infinite at row {bad[0]}.'
            )
