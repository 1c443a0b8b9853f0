# SPDX-License-Identifier: Apache-2.0
"""For recordings in a form of one's own: give each episode as arrays, and get the dataset that a bag would have given.

    episodes = (ArrayEpisode({'q': joints, 'actions': targets, 'front': pictures}, task='open the drawer') for joints, ... in my_files)
    convert_arrays(episodes, Path('datasets/drawer'), load_embodiment('my_robot.yaml'))

The names are those that the embodiment gives as `column`.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groot_ros.dataset.convert import (
    ConversionOptions,
    ConversionReport,
    check_options,
    make_writer,
    recipe_of,
)
from groot_ros.dataset.convert_source import read_episodes, write_part
from groot_ros.dataset.sources.segment import EpisodeMetadata, encoded
from groot_ros.dataset.sources.table import Table, frames_of, table_stretch
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.geometry import Array


@dataclass
class ArrayEpisode:
    """Columns by name: numbers (n, size), pictures (n, height, width, 3) uint8 RGB; n rows, one every 1 / fps."""

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
    """Writes a dataset of episodes, one after another, so that only one has to be in memory. Raises GrootRosError for one that is unfit."""
    options, report = options or ConversionOptions(), ConversionReport(output)
    check_options(embodiment, options)
    writer, recipe = make_writer(output, embodiment, options), recipe_of(embodiment, options)
    try:
        for index, episode in enumerate(episodes):
            table = _ArrayTable(episode, episode.name or f'episode {index}')
            folder = writer.parts / f'{index:06d}'
            folder.mkdir(parents=True, exist_ok=True)
            part = write_part(
                folder,
                table.where,
                [table_stretch(table, embodiment, options.codec)],
                recipe,
                embodiment,
                table.fingerprint(),
            )
            for written in read_episodes(part, embodiment):
                writer.add_episode(written)
            report.episodes += part.episodes
            report.rows += part.rows
        writer.finish()
    except Exception:
        writer.abandon()
        raise
    return report


class _ArrayTable(Table):
    def __init__(self, episode: ArrayEpisode, where: str) -> None:
        self.where, self.columns = where, list(episode.columns)
        self._arrays = episode.columns
        self.facts = EpisodeMetadata(episode.task, 'success' if episode.success else 'failure')

    def column(self, name: str) -> Array:
        return self._arrays[name]

    def write_video(self, camera: CameraField, path: Path, span: slice, fps: float, codec: str) -> int:
        frames = frames_of(self._arrays[camera.column], span, f'{self.where} {camera.column}')
        return encoded(frames, camera, path, fps, codec)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name, values in sorted(self._arrays.items()):
            digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()
