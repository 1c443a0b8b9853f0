# SPDX-License-Identifier: Apache-2.0
"""Writes LeRobot v2.1 in GR00T's flavour: a parquet file an episode, and a video an episode and camera."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from groot_ros.dataset.convert_source import ConvertedEpisode
from groot_ros.dataset.writers.dataset_writer import DatasetWriter, column_to_array, link
from groot_ros.dataset.writers.features import (
    data_file,
    features,
    info,
    modality,
    video_file,
    write_json,
    write_jsonl,
)
from groot_ros.dataset.writers.statistics import EPISODE_KEYS, episode_statistics
from groot_ros.errors import GrootRosError


class LeRobotV2Writer(DatasetWriter):
    """A dataset that GR00T N1.5, N1.6 and N1.7 read."""

    def __init__(self, *arguments: Any) -> None:
        self._records: list[dict[str, Any]] = []
        self._statistics: list[dict[str, Any]] = []
        super().__init__(*arguments)

    def _write_episode(self, part: ConvertedEpisode, table: pa.Table, tasks: list[str]) -> None:
        for feature, video in part.videos.items():
            link(video, video_file(self._partial, feature, self.episodes))
        path = data_file(self._partial, self.episodes)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        pictures = {
            name: {key: numbers for key, numbers in found.items() if key in EPISODE_KEYS}
            for name, found in part.pictures.items()
        }
        found = {name: episode_statistics(column_to_array(table, name)) for name in table.column_names}
        self._statistics.append({'episode_index': self.episodes, 'stats': {**pictures, **found}})
        self._records.append({'episode_index': self.episodes, 'tasks': tasks, 'length': table.num_rows})

    def _write_meta(self, meta: Path) -> None:
        write_json(
            meta / 'info.json', info(self.embodiment, self.codec, self.episodes, self.rows, len(self.tasks))
        )
        write_json(meta / 'stats.json', self.gr00t_statistics(features(self.embodiment, self.codec)))
        if (relative := self.relative_statistics()) is not None:
            write_json(meta / 'relative_stats.json', relative)
        write_jsonl(
            meta / 'tasks.jsonl', [{'task_index': index, 'task': task} for task, index in self.tasks.items()]
        )
        write_jsonl(meta / 'episodes.jsonl', self._records)
        write_jsonl(meta / 'episodes_stats.jsonl', self._statistics)

    def _extend(self) -> None:
        meta = self.root / 'meta'
        try:
            known, parts = (
                json.loads((meta / 'info.json').read_text()),
                json.loads((meta / 'modality.json').read_text()),
            )
            self._check_same(known, parts)
            self._records = _lines(meta / 'episodes.jsonl')
            self._statistics = _lines(meta / 'episodes_stats.jsonl')
            self.tasks = {record['task']: record['task_index'] for record in _lines(meta / 'tasks.jsonl')}
            self.provenance = json.loads((meta / 'conversion.json').read_text())['episodes']
            for record in self._records:
                self._take_over(record['episode_index'])
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise GrootRosError(
                f'The dataset {self.root} cannot be extended ({error}): convert into another --output.'
            ) from error
        self.known = {entry['sha256'] for entry in self.provenance}

    def _check_same(self, known: dict[str, Any], parts: dict[str, Any]) -> None:
        """Raises GrootRosError where the rows of the dataset are others than those of this conversion."""
        wanted = info(self.embodiment, self.codec, 0, 0, 0)
        differing = [name for name in ('codebase_version', 'fps') if known.get(name) != wanted[name]]
        features_known, features_wanted = known.get('features', {}), wanted['features']
        differing += [
            name
            for name in {**features_wanted, **features_known}
            if features_known.get(name) != features_wanted.get(name)
        ]
        differing += ['modality.json'] if parts != modality(self.embodiment) else []
        if differing:
            raise GrootRosError(
                f'The dataset {self.root} differs in {", ".join(differing)} from what {self.embodiment.name} gives: convert into another --output.'
            )

    def _take_over(self, episode: int) -> None:
        file = data_file(self.root, episode)
        link(file, data_file(self._partial, episode))
        for camera in self.embodiment.cameras:
            link(
                video_file(self.root, camera.feature, episode),
                video_file(self._partial, camera.feature, episode),
            )
        table = pq.read_table(file)
        floats = [name for name, feature in features(self.embodiment).items() if 'float' in feature['dtype']]
        self.note_columns({name: column_to_array(table, name) for name in floats})
        self.lengths.append(table.num_rows)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
