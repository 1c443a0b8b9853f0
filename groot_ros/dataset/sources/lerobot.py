# SPDX-License-Identifier: Apache-2.0
"""LeRobot v2.0 and v2.1 datasets with other columns as a source."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from groot_ros.dataset.meta import DatasetMeta
from groot_ros.dataset.options import ConversionOptions
from groot_ros.dataset.sources.recording import Recording, RecordingFormat
from groot_ros.dataset.sources.segment import Segment
from groot_ros.dataset.sources.table import Table, table_segment
from groot_ros.dataset.writers.features import VALIDITIES
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.video.frame import VideoFrame
from groot_ros.video.mp4 import cut_mp4, encode_mp4, find_keyframes


class LeRobotFormat(RecordingFormat):
    """Folders with meta/info.json, whose episodes are recordings."""

    name = 'lerobot'
    owns_folder = True

    def place_of(self, file: Path) -> Path | None:
        """Returns the folder of a dataset whose info.json this is."""
        return file.parents[1] if file.parts[-2:] == ('meta', 'info.json') else None

    def recordings(self, place: Path) -> list[Recording]:
        """Returns the episodes of a dataset."""
        meta = DatasetMeta(place)
        if meta.is_v3 or not (place / 'meta/episodes.jsonl').is_file():
            version = meta.info.get('codebase_version') or 'an unknown version'
            raise GrootRosError(
                f'{place} is a LeRobot dataset of {version}, and only v2.0 and v2.1 can be converted.'
            )
        return [Recording(self.name, str(place), str(record['episode_index'])) for record in meta.episodes]

    def fingerprint(self, recording: Recording, path: Path, embodiment: Embodiment) -> str:
        """Returns the SHA-256 of an episode's files."""
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
        yield [table_segment(LeRobotTable(recording, path, embodiment), embodiment, options.codec)]


class LeRobotTable(Table):
    """An episode of a dataset; its columns are those of its parquet file and its video features."""

    def __init__(self, recording: Recording, path: Path, embodiment: Embodiment) -> None:
        self.where = f'{recording.location} episode {recording.entry}'
        self._meta = DatasetMeta(path)
        self._index = int(recording.entry)
        self._check_rate(recording, embodiment)
        features = self._meta.info.get('features', {})
        videos = [name for name, feature in features.items() if feature.get('dtype') == 'video']
        self._table = self._meta.rows(self._index)
        self._videos = {name: self._meta.video_file(name, self._index) for name in videos}
        self.columns = [*self._table.column_names, *videos]
        task = self._task_name()
        self.task = embodiment.tasks.get(task, task)

    def column(self, name: str) -> Array:
        """Returns a column of the parquet file."""
        return self._table[name].to_pylist()

    def write_video(self, camera: CameraField, path: Path, rows: slice, fps: float, codec: str) -> int:
        """Copies the video if it has this size and codec and can be cut, and else encodes it again."""
        video = self._videos[camera.column]
        try:
            if _has_form(video, camera, fps, codec) and self._copy(video, path, rows, fps):
                return rows.stop - rows.start
            return encode_mp4(_frames(video, rows), path, (camera.width, camera.height), fps, codec)
        except (OSError, av.FFmpegError, IndexError) as error:
            raise GrootRosError(
                f'The video {video} cannot be decoded ({str(error).splitlines()[0]}).'
            ) from error

    def fingerprint(self) -> str:
        """Returns the SHA-256 of the episode's files."""
        digest = hashlib.sha256()
        for file in (self._meta.data_file(self._index), *self._videos.values()):
            digest.update(file.read_bytes() if file.is_file() else b'')
        return digest.hexdigest()

    def _check_rate(self, recording: Recording, embodiment: Embodiment) -> None:
        if abs(self._meta.fps / embodiment.fps - 1) > 1e-6:
            raise GrootRosError(
                f'{recording.location} has {self._meta.fps:g} rows a second but the embodiment '
                f'{embodiment.name} says {embodiment.fps:g}: set its fps.'
            )

    def _copy(self, video: Path, path: Path, rows: slice, fps: float) -> bool:
        """Copies the frames of some rows without decoding, if that is possible."""
        keyframes, in_order = find_keyframes(video)
        count = rows.stop - rows.start
        if count == self._table.num_rows:
            shutil.copyfile(video, path)
            return True
        if in_order and rows.start in keyframes:
            return cut_mp4(video, path, rows.start, count, fps) == count
        return False

    def _task_name(self) -> str:
        """The task of the first row, or else of the episode; validities are no tasks."""
        texts = list(self._meta.episode(self._index).get('tasks', []))
        if 'task_index' in self._table.column_names and self._table.num_rows:
            index = self._table['task_index'][0].as_py()
            texts.insert(0, self._meta.tasks.get(index, '') if isinstance(index, int) else '')
        return next((text for text in texts if text and text not in VALIDITIES), '')


def _has_form(video: Path, camera: CameraField, fps: float, codec: str) -> bool:
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 0)
        has_codec = stream.codec_context.codec.canonical_name == codec
        has_size = (stream.width, stream.height) == (camera.width, camera.height)
    return has_codec and has_size and abs(rate / fps - 1) < 1e-3


def _frames(video: Path, rows: slice) -> Iterator[VideoFrame]:
    with av.open(str(video)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index >= rows.stop:
                return
            if index >= rows.start:
                yield VideoFrame(0, frame.to_ndarray(format='rgb24'), 'rgb24')
