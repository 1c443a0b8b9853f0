# SPDX-License-Identifier: Apache-2.0
"""For recordings in a format of your own: give each episode as arrays, and get the dataset of a bag.

    episodes = (ArrayEpisode({'q': joints, 'front': images}, task='open the drawer') for ... in my_files)
    convert_arrays(episodes, Path('datasets/drawer'), load_embodiment('my_robot.yaml'))

The names of the columns are those that the embodiment gives as `column`.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groot_ros.dataset.convert import ConversionReport, check_options, make_writer
from groot_ros.dataset.convert_recording import ConversionJob, write_episodes
from groot_ros.dataset.options import ConversionOptions
from groot_ros.dataset.output_lock import lock_output
from groot_ros.dataset.sources.recording import Recording
from groot_ros.dataset.sources.table import Table, frames_from_array, table_segment
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.geometry import Array
from groot_ros.video.mp4 import encode_mp4


@dataclass
class ArrayEpisode:
    """One episode as arrays: a row every 1 / fps s, with the fps of the embodiment.

    `columns` has numbers (n, size) and images (n, height, width, 3) uint8 RGB by name. `name` is the source
    that the dataset notes.
    """

    columns: dict[str, np.ndarray]
    task: str
    success: bool = True
    name: str = ''


def convert_arrays(
    episodes: Iterable[ArrayEpisode],
    output: Path,
    embodiment: Embodiment,
    options: ConversionOptions | None = None,
) -> ConversionReport:
    """Writes a dataset of episodes, one after another, so that only one has to be in memory.

    Raises GrootRosError for one that cannot be converted.
    """
    options = options or ConversionOptions()
    check_options(embodiment, options)
    report = ConversionReport(output)
    with lock_output(output):
        writer = make_writer(output, embodiment, options)
        try:
            for index, episode in enumerate(episodes):
                table = ArrayTable(episode, episode.name or f'episode {index}')
                folder = writer.parts / f'{index:06d}'
                folder.mkdir(parents=True, exist_ok=True)
                job = ConversionJob(Recording('arrays', table.where), folder, embodiment, options)
                segment = table_segment(table, embodiment, options.codec)
                result = write_episodes(job, [segment], table.fingerprint())
                for converted in result.episodes:
                    writer.add_episode(converted)
                report.episodes += len(result.episodes)
                report.rows += result.rows
            writer.finish()
        except Exception:
            writer.abandon()
            raise
    return report


class ArrayTable(Table):
    """The columns of an episode in memory."""

    def __init__(self, episode: ArrayEpisode, where: str) -> None:
        self.where = where
        self.columns = list(episode.columns)
        self.task = episode.task
        self.outcome = 'success' if episode.success else 'failure'
        self._arrays = episode.columns

    def column(self, name: str) -> Array:
        """Returns the array of a column, unchanged."""
        return self._arrays[name]

    def write_video(self, camera: CameraField, path: Path, rows: slice, fps: float, codec: str) -> int:
        """Encodes images (n, height, width, 3) uint8."""
        frames = frames_from_array(self._arrays[camera.column], rows, f'{self.where} {camera.column}')
        return encode_mp4(frames, path, (camera.width, camera.height), fps, codec)

    def fingerprint(self) -> str:
        """Returns the SHA-256 of the names and values of all columns."""
        digest = hashlib.sha256()
        for name, values in sorted(self._arrays.items()):
            digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()
