# SPDX-License-Identifier: Apache-2.0
"""Writes LeRobot v3.0, for LeRobot's own training: many episodes a parquet file and a video.

GR00T's loader does not read it.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from groot_ros.dataset.meta import column_to_array
from groot_ros.dataset.options import OutputMode
from groot_ros.dataset.writers.converted_episode import ConvertedEpisode
from groot_ros.dataset.writers.dataset_writer import DatasetWriter, link
from groot_ros.dataset.writers.features import CHUNK_SIZE, features, shared_info, write_json
from groot_ros.dataset.writers.statistics import aggregate_stats, episode_stats_with_quantiles
from groot_ros.embodiment import Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.video.mp4 import join_mp4

_DATA_MB = 100
_VIDEO_MB = 200
_FILE = '{folder}/chunk-{chunk_index:03d}/file-{file_index:03d}'
CODEBASE_VERSION = 'v3.0'
DATA_PATH = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
VIDEO_PATH = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'


@dataclass
class _Episode:
    tasks: list[str]
    table: pa.Table
    videos: dict[str, Path]
    statistics: dict[str, Any]


class LeRobotV3Writer(DatasetWriter):
    """Writes a dataset that LeRobot 0.4 and later read. Files are filled in turn, up to LeRobot's sizes."""

    def __init__(
        self,
        root: Path,
        embodiment: Embodiment,
        codec: str,
        existing: OutputMode = OutputMode.REFUSE,
        gr00t_version: str = '',
        horizon: int = 16,
    ) -> None:
        self._waiting: list[_Episode] = []
        super().__init__(root, embodiment, codec, existing, gr00t_version, horizon)

    def _write_episode(self, episode: ConvertedEpisode, table: pa.Table) -> None:
        videos = {}
        for camera in self.embodiment.cameras:
            video = self._partial / 'waiting' / f'{self.episodes}_{camera.feature}.mp4'
            link(episode.video_file(camera.name), video)
            videos[camera.feature] = video
        stats = {camera.feature: episode.stats[camera.feature] for camera in self.embodiment.cameras}
        for name in table.column_names:
            stats[name] = episode.stats.get(name) or episode_stats_with_quantiles(
                column_to_array(table, name)
            )
        self._waiting.append(_Episode([episode.task], table, videos, stats))

    def _extend(self) -> None:
        raise GrootRosError(
            f'The dataset {self.root} is extended in v2.1 only: convert everything again with --overwrite.'
        )

    def _write_meta(self, meta: Path) -> None:
        records: list[dict[str, Any]] = []
        for index, episode in enumerate(self._waiting):
            records.append({'episode_index': index, 'tasks': episode.tasks, 'length': episode.table.num_rows})
        self._write_data(records)
        for camera in self.embodiment.cameras:
            self._write_videos(camera.feature, records)
        self._write_records(records)
        pq.write_table(_tasks_table(self.tasks), meta / 'tasks.parquet')
        write_json(meta / 'info.json', self._info())
        write_json(meta / 'stats.json', self._stats())
        shutil.rmtree(self._partial / 'waiting', ignore_errors=True)

    def _write_records(self, records: list[dict[str, Any]]) -> None:
        for record, episode in zip(records, self._waiting, strict=True):
            for name, stats in episode.statistics.items():
                record |= {f'stats/{name}/{key}': values for key, values in stats.items()}
            record |= _numbers_in('meta/episodes', 0)
        self._write_parquet(pa.Table.from_pylist(records), 'meta/episodes', 0)

    def _stats(self) -> dict[str, Any]:
        names = self._waiting[0].statistics
        return {
            name: aggregate_stats([episode.statistics[name] for episode in self._waiting]) for name in names
        }

    def _info(self) -> dict[str, Any]:
        described = features(self.embodiment, self.codec)
        for feature in described.values():
            if 'info' in feature:
                feature['info'] = {**feature['info'], 'is_depth_map': False}
        shared = shared_info(self.embodiment, self.codec, self.episodes, self.rows, len(self.tasks))
        return {
            **shared,
            'codebase_version': CODEBASE_VERSION,
            'data_files_size_in_mb': _DATA_MB,
            'video_files_size_in_mb': _VIDEO_MB,
            'data_path': DATA_PATH,
            'video_path': VIDEO_PATH,
            'features': described,
        }

    def _write_data(self, records: list[dict[str, Any]]) -> None:
        groups = _groups([episode.table.nbytes for episode in self._waiting], _DATA_MB)
        first_row = 0
        for number, group in enumerate(groups):
            self._write_parquet(
                pa.concat_tables([_fixed(self._waiting[index].table) for index in group]), 'data', number
            )
            for index in group:
                records[index] |= _numbers_in('data', number)
                records[index] |= {
                    'dataset_from_index': first_row,
                    'dataset_to_index': first_row + records[index]['length'],
                }
                first_row += records[index]['length']

    def _write_videos(self, feature: str, records: list[dict[str, Any]]) -> None:
        videos = [episode.videos[feature] for episode in self._waiting]
        for number, group in enumerate(_groups([video.stat().st_size for video in videos], _VIDEO_MB)):
            path = self._partial / f'{_FILE.format(folder=f"videos/{feature}", **_numbers(number))}.mp4'
            path.parent.mkdir(parents=True, exist_ok=True)
            join_mp4([videos[index] for index in group], path, self.embodiment.fps)
            frame = 0
            for index in group:
                end = frame + records[index]['length']
                times = {
                    'from_timestamp': frame / self.embodiment.fps,
                    'to_timestamp': end / self.embodiment.fps,
                }
                records[index] |= {
                    **_numbers_in(f'videos/{feature}', number),
                    **{f'videos/{feature}/{key}': value for key, value in times.items()},
                }
                frame = end

    def _write_parquet(self, table: pa.Table, folder: str, number: int) -> None:
        path = self._partial / f'{_FILE.format(folder=folder, **_numbers(number))}.parquet'
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)


def _numbers(number: int) -> dict[str, int]:
    return {'chunk_index': number // CHUNK_SIZE, 'file_index': number % CHUNK_SIZE}


def _numbers_in(folder: str, number: int) -> dict[str, int]:
    return {f'{folder}/{key}': value for key, value in _numbers(number).items()}


def _groups(sizes: list[int], max_mb: int) -> list[list[int]]:
    """Groups neighbours that stay below a size together; a larger one is a group of its own."""
    groups: list[list[int]] = [[]]
    filled = 0
    for index, size in enumerate(sizes):
        if groups[-1] and filled + size > max_mb << 20:
            groups.append([])
            filled = 0
        groups[-1].append(index)
        filled += size
    return groups


def _fixed(table: pa.Table) -> pa.Table:
    """Vectors as lists of one length, as LeRobot stores them."""
    arrays = {}
    for name in table.column_names:
        values: Array = column_to_array(table, name)
        flat = pa.array(np.asarray(values).ravel())
        arrays[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if values.ndim == 2 else flat
    return pa.table(arrays)


def _tasks_table(tasks: dict[str, int]) -> pa.Table:
    """LeRobot reads this table with pandas, its texts as the index."""
    table = pa.table({'task_index': list(tasks.values()), 'task': list(tasks)})
    columns = [
        {'name': name, 'field_name': name, 'pandas_type': kind, 'numpy_type': numpy, 'metadata': None}
        for name, kind, numpy in (('task_index', 'int64', 'int64'), ('task', 'unicode', 'object'))
    ]
    described = {
        'index_columns': ['task'],
        'column_indexes': [],
        'columns': columns,
        'pandas_version': '2.2.0',
    }
    return table.replace_schema_metadata({'pandas': json.dumps(described)})
