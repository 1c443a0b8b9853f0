# SPDX-License-Identifier: Apache-2.0
"""Writes LeRobot v2.1 with GR00T's additions: a parquet file an episode, a video an episode and camera."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from groot_ros.dataset.meta import DatasetMeta, column_to_array
from groot_ros.dataset.options import OutputMode
from groot_ros.dataset.writers.converted_episode import ConvertedEpisode
from groot_ros.dataset.writers.dataset_writer import DatasetWriter, link
from groot_ros.dataset.writers.features import (
    CHUNK_SIZE,
    VALIDITIES,
    features,
    modality,
    shared_info,
    write_json,
    write_jsonl,
)
from groot_ros.dataset.writers.statistics import EPISODE_KEYS, episode_statistics
from groot_ros.embodiment import Embodiment
from groot_ros.errors import GrootRosError

CODEBASE_VERSION = 'v2.1'
DATA_PATH = 'data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet'
VIDEO_PATH = 'videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4'


def data_file(root: Path, episode: int) -> Path:
    """Returns the parquet file of an episode."""
    return root / DATA_PATH.format(episode_chunk=episode // CHUNK_SIZE, episode_index=episode)


def video_file(root: Path, feature: str, episode: int) -> Path:
    """Returns the video of an episode and of a camera's feature, such as observation.images.zed_camera."""
    chunk = episode // CHUNK_SIZE
    return root / VIDEO_PATH.format(episode_chunk=chunk, episode_index=episode, video_key=feature)


class LeRobotV2Writer(DatasetWriter):
    """Writes a dataset that GR00T N1.5, N1.6 and N1.7 read."""

    def __init__(
        self,
        root: Path,
        embodiment: Embodiment,
        codec: str,
        existing: OutputMode = OutputMode.REFUSE,
        gr00t_version: str = '',
        horizon: int = 16,
    ) -> None:
        self._records: list[dict[str, Any]] = []
        self._statistics: list[dict[str, Any]] = []
        super().__init__(root, embodiment, codec, existing, gr00t_version, horizon)

    def _write_episode(self, episode: ConvertedEpisode, table: pa.Table) -> None:
        for camera in self.embodiment.cameras:
            place = video_file(self._partial, camera.feature, self.episodes)
            link(episode.video_file(camera.name), place)
        path = data_file(self._partial, self.episodes)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        self._statistics.append(
            {'episode_index': self.episodes, 'stats': self._episode_stats(episode, table)}
        )
        # The task alone: with the language key `task` GR00T draws one of these texts for each sample.
        record = {'episode_index': self.episodes, 'tasks': [episode.task], 'length': table.num_rows}
        self._records.append(record)

    def _episode_stats(self, episode: ConvertedEpisode, table: pa.Table) -> dict[str, Any]:
        cameras = [camera.feature for camera in self.embodiment.cameras]
        stats: dict[str, Any] = {}
        for name in [*cameras, *table.column_names]:
            known = episode.stats.get(name) or episode_statistics(column_to_array(table, name))
            stats[name] = {key: values for key, values in known.items() if key in EPISODE_KEYS}
        return stats

    def _write_meta(self, meta: Path) -> None:
        write_json(meta / 'info.json', self._info())
        write_json(meta / 'stats.json', self._gr00t_statistics(features(self.embodiment, self.codec)))
        relative = self._relative_statistics()
        if relative is not None:
            write_json(meta / 'relative_stats.json', relative)
        tasks = [{'task_index': index, 'task': task} for task, index in self.tasks.items()]
        write_jsonl(meta / 'tasks.jsonl', tasks)
        write_jsonl(meta / 'episodes.jsonl', self._records)
        write_jsonl(meta / 'episodes_stats.jsonl', self._statistics)

    def _info(self) -> dict[str, Any]:
        shared = shared_info(self.embodiment, self.codec, self.episodes, self.rows, len(self.tasks))
        return {
            'codebase_version': CODEBASE_VERSION,
            **shared,
            'total_videos': self.episodes * len(self.embodiment.cameras),
            'total_chunks': -(-self.episodes // CHUNK_SIZE),
            'data_path': DATA_PATH,
            'video_path': VIDEO_PATH,
        }

    def _extend(self) -> None:
        meta = DatasetMeta(self.root)
        try:
            self._check_same(meta)
            self._records = [_without_validities(record) for record in meta.episodes]
            self._statistics = list(meta.episode_stats)
            self.tasks = {task: index for index, task in meta.tasks.items()}
            self.provenance = list(meta.conversion['episodes'])
            self.known = {entry['sha256'] for entry in self.provenance}
            for record in self._records:
                self._take_over(meta, record['episode_index'])
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise GrootRosError(
                f'The dataset {self.root} cannot be extended ({error}): convert into another --output.'
            ) from error

    def _check_same(self, meta: DatasetMeta) -> None:
        """Raises GrootRosError if the rows of the dataset differ from those of this conversion."""
        wanted = self._info()
        differing = [name for name in ('codebase_version', 'fps') if meta.info.get(name) != wanted[name]]
        known_features = meta.info.get('features', {})
        for name in {**wanted['features'], **known_features}:
            if known_features.get(name) != wanted['features'].get(name):
                differing.append(name)
        if meta.modality != modality(self.embodiment):
            differing.append('modality.json')
        if differing:
            raise GrootRosError(
                f'The dataset {self.root} differs in {", ".join(differing)} from what the embodiment '
                f'{self.embodiment.name} gives: convert into another --output.'
            )

    def _check_vectors(self, table: pa.Table, episode: int) -> None:
        """Raises GrootRosError if the rows of an episode have another size than the new ones."""
        for name, feature in features(self.embodiment, self.codec).items():
            if feature['dtype'] != 'float64':
                continue
            shape = np.shape(column_to_array(table, name))
            wanted = (table.num_rows, *(feature['shape'] if feature['names'] else ()))
            if shape != wanted:
                raise GrootRosError(
                    f'The dataset {self.root} is damaged: {name} of episode {episode} has the shape {shape} '
                    f'instead of {wanted}. Convert into another --output.'
                )

    def _take_over(self, meta: DatasetMeta, episode: int) -> None:
        link(meta.data_file(episode), data_file(self._partial, episode))
        for camera in self.embodiment.cameras:
            place = video_file(self._partial, camera.feature, episode)
            link(meta.video_file(camera.feature, episode), place)
        table = meta.rows(episode)
        self._check_vectors(table, episode)
        self._collect_columns(table)
        self.lengths.append(table.num_rows)


def _without_validities(record: dict[str, Any]) -> dict[str, Any]:
    """A record of episodes.jsonl with its tasks only; earlier conversions listed the validity too."""
    return {**record, 'tasks': [task for task in record['tasks'] if task not in VALIDITIES]}
