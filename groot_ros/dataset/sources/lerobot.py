# SPDX-License-Identifier: Apache-2.0
"""LeRobot datasets of v2.0, v2.1 and v3.0 as a source; videos are copied as far as possible."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from groot_ros.dataset.meta import DatasetMeta, seconds_of
from groot_ros.dataset.options import ConversionOptions
from groot_ros.dataset.sources.lerobot_images import decode_images
from groot_ros.dataset.sources.lerobot_video import write_rows_of_video
from groot_ros.dataset.sources.recording import Recording, RecordingFormat
from groot_ros.dataset.sources.segment import Segment
from groot_ros.dataset.sources.table import Table, table_segment
from groot_ros.dataset.writers.features import VALIDITIES
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.video.mp4 import encode_mp4
from groot_ros.video.span import VideoSpan

_RATE_TOLERANCE = 1e-6
_INFO_FILE = Path('meta/info.json')
_TASK_FILES = ('meta/tasks.jsonl', 'meta/tasks.parquet')


class LeRobotFormat(RecordingFormat):
    """Folders with meta/info.json, whose episodes are recordings."""

    name = 'lerobot'
    owns_folder = True

    def place_of(self, file: Path) -> Path | None:
        """Returns the folder of a dataset whose info.json this is."""
        return file.parents[1] if file.parts[-2:] == _INFO_FILE.parts else None

    def recordings(self, place: Path) -> list[Recording]:
        """Returns the episodes of a dataset."""
        meta = _meta_of(place)
        if not meta.is_v3 and not (place / 'meta/episodes.jsonl').is_file():
            version = meta.info.get('codebase_version') or 'an unknown version'
            raise GrootRosError(
                f'{place} is a LeRobot dataset of {version}, and only v2.0, v2.1 and v3.0 can be converted.'
            )
        return [Recording(self.name, str(place), str(record['episode_index'])) for record in meta.episodes]

    def fingerprint(self, recording: Recording, path: Path, embodiment: Embodiment) -> str:
        """Returns the SHA-256 of an episode's rows and video packets."""
        return LeRobotTable(recording, path, embodiment).fingerprint()

    @contextmanager
    def segments(
        self,
        recording: Recording,
        path: Path,
        embodiment: Embodiment,
        options: ConversionOptions,
        folder: Path,
    ) -> Iterator[list[Segment]]:
        """Opens an episode, which is one segment."""
        table = LeRobotTable(recording, path, embodiment)
        if not table.task and not options.task:
            raise GrootRosError(f'{table.where} names no task: give its text with --task.')
        yield [table_segment(table, embodiment, options.codec)]


class LeRobotTable(Table):
    """An episode of a dataset; its columns are those of its parquet file and its video features.

    Raises GrootRosError for rows that are fewer than meta/ says, or have another rate.
    """

    def __init__(self, recording: Recording, path: Path, embodiment: Embodiment) -> None:
        self.where = f'{recording.place} episode {recording.entry}'
        self._meta = _meta_of(path)
        self._index = int(recording.entry)
        self._check_rate(recording, embodiment)
        features = self._meta.info.get('features', {})
        videos = [name for name, feature in features.items() if feature.get('dtype') == 'video']
        self._table = self._meta.rows(self._index)
        self._check_rows()
        self._videos = {name: self._meta.video_file(name, self._index) for name in videos}
        self.columns = [*self._table.column_names, *videos]
        task = self._task_name()
        self.task = embodiment.tasks.get(task, task)

    def column(self, name: str) -> Array:
        """Returns a column of the parquet file."""
        return self._table[name].to_pylist()

    def write_video(self, camera: CameraField, path: Path, rows: slice, fps: float, codec: str) -> int:
        """Copies what of a video has this size and codec, and encodes everything else again."""
        size = (camera.width, camera.height)
        if camera.column not in self._videos:
            where = f'{self.where} {camera.column}'
            images = decode_images(self._table[camera.column], rows, where)
            return encode_mp4(images, path, size, fps, codec)
        if self._meta.is_v3:
            return self._span(camera.column, rows, fps).write(path, size, codec)
        video = self._videos[camera.column]
        return write_rows_of_video(video, path, rows, self._table.num_rows, size, fps, codec)

    def fingerprint(self) -> str:
        """Returns the SHA-256 of the episode's files; in v3.0, which shares them, of its rows and packets."""
        digest = hashlib.sha256()
        if not self._meta.is_v3:
            for file in (self._meta.data_file(self._index), *self._videos.values()):
                digest.update(file.read_bytes() if file.is_file() else b'')
            return digest.hexdigest()
        table = self._table.replace_schema_metadata().combine_chunks()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        digest.update(sink.getvalue())
        for name, video in self._videos.items():
            if video.is_file():
                self._span(name, slice(0, self._table.num_rows), self._meta.fps).update(digest)
        return digest.hexdigest()

    def _span(self, feature: str, rows: slice, fps: float) -> VideoSpan:
        begin_s = self._meta.video_start_s(feature, self._index)
        count = rows.stop - rows.start
        return VideoSpan(self._videos[feature], begin_s + rows.start / fps, count, fps)

    def _check_rate(self, recording: Recording, embodiment: Embodiment) -> None:
        if abs(self._meta.fps / embodiment.fps - 1) > _RATE_TOLERANCE:
            raise GrootRosError(
                f'{recording.place} has {self._meta.fps:g} rows a second but the embodiment '
                f'{embodiment.name} says {embodiment.fps:g}: set its fps.'
            )

    def _check_rows(self) -> None:
        """Raises GrootRosError for a wrong number of rows, and for times that are not row / fps."""
        length = self._meta.episode(self._index)['length']
        if self._table.num_rows != length:
            raise GrootRosError(
                f'{self.where} has {self._table.num_rows} rows, and its meta/ says {length}: the dataset is '
                'damaged, download it again, or leave the episode out with --skip-bad.'
            )
        if 'timestamp' not in self._table.column_names or not length:
            return
        times_s = np.array([self._seconds(value) for value in self._table['timestamp'].to_pylist()])
        late_s = times_s - times_s[0] - np.arange(length) / self._meta.fps
        wrong = np.flatnonzero(~(np.abs(late_s) <= 1.0 / self._meta.fps))
        if len(wrong):
            row = int(wrong[0])
            raise GrootRosError(
                f'{self.where} has row {row} at {times_s[row] - times_s[0]:.3f} s, where '
                f'{self._meta.fps:g} rows a second of its info.json give {row / self._meta.fps:.3f} s: its '
                'episodes have several rates, or a gap; leave it out with --skip-bad.'
            )

    def _seconds(self, value: Any) -> float:
        """A time of a row in s; text may also be a date."""
        found = seconds_of(value)
        if found is None and isinstance(value, str):
            try:
                found = datetime.fromisoformat(value).timestamp()
            except ValueError:
                found = None
        if found is None:
            raise GrootRosError(f'{self.where} has the timestamp {value!r}, which is no time in seconds.')
        return found

    def _task_name(self) -> str:
        """The task of the first row, or else of the episode; validities are no tasks."""
        texts = list(self._meta.episode(self._index).get('tasks', []))
        if 'task_index' in self._table.column_names and self._table.num_rows:
            index = self._table['task_index'][0].as_py()
            texts.insert(0, self._task_texts().get(index, '') if isinstance(index, int) else '')
        return next((text for text in texts if text and text not in VALIDITIES), '')

    def _task_texts(self) -> dict[int, str]:
        """The texts of the dataset's tasks; some on the hub lack the file."""
        has_file = any((self._meta.root / file).exists() for file in _TASK_FILES)
        return self._meta.tasks if has_file else {}


def _meta_of(path: Path) -> DatasetMeta:
    """The meta/ of a dataset, read once for all of its episodes, unless it changes."""
    try:
        changed_ns = (path / _INFO_FILE).stat().st_mtime_ns
    except OSError:
        changed_ns = 0
    return _read_meta(path, changed_ns)


@lru_cache(maxsize=4)
def _read_meta(path: Path, changed_ns: int) -> DatasetMeta:
    return DatasetMeta(path)
