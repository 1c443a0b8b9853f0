# SPDX-License-Identifier: Apache-2.0
"""Demonstrations in HDF5 files as a source: groups such as data/demo_3, as Isaac Lab and Mimic write them."""

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from groot_ros.dataset.options import ConversionOptions
from groot_ros.dataset.sources.recording import Recording, RecordingFormat
from groot_ros.dataset.sources.segment import Segment
from groot_ros.dataset.sources.table import Table, frames_from_array, table_segment
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.video.mp4 import encode_mp4

_SUFFIXES = ('.hdf5', '.h5')
_GROUP = 'data'
_TASK_ATTRIBUTES = ('task', 'language_instruction', 'task_description')


class Hdf5Format(RecordingFormat):
    """Files in which each group below `data` is an episode."""

    name = 'hdf5'

    def place_of(self, file: Path) -> Path | None:
        """Returns the file itself if it is HDF5."""
        return file if file.suffix in _SUFFIXES and file.is_file() else None

    def recordings(self, place: Path) -> list[Recording]:
        """Returns the demonstrations of a file, in the order of their numbers."""
        names = _group_names(place)
        if not names:
            raise GrootRosError(
                f'{place} has no group `{_GROUP}` of demonstrations, as Isaac Lab and Mimic write it.'
            )
        return [Recording(self.name, str(place), name) for name in sorted(names, key=_by_number)]

    def fingerprint(self, recording: Recording, path: Path, embodiment: Embodiment) -> str:
        """Returns the SHA-256 of a demonstration."""
        with Hdf5Table(recording, path, embodiment) as table:
            return table.fingerprint()

    @contextmanager
    def segments(
        self,
        recording: Recording,
        path: Path,
        embodiment: Embodiment,
        options: ConversionOptions,
        folder: Path,
    ) -> Iterator[list[Segment]]:
        """Opens a demonstration, which is one segment."""
        with Hdf5Table(recording, path, embodiment) as table:
            yield [table_segment(table, embodiment, options.codec)]


class Hdf5Table(Table):
    """A group of a file, such as data/demo_3; columns are the datasets below it, such as obs/eef_pos."""

    def __init__(self, recording: Recording, path: Path, embodiment: Embodiment) -> None:
        _need_h5py()
        import h5py

        self.where = str(recording)
        self._file = h5py.File(path, 'r')
        self._group = self._file[_GROUP][recording.entry]
        self.columns: list[str] = []
        self._group.visititems(self._add_column)
        task = self._task_name()
        self.task = embodiment.tasks.get(task, task)
        self.outcome = 'success' if self._group.attrs.get('success', True) else 'failure'

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def column(self, name: str) -> Array:
        """Returns the numbers of a whole HDF5 dataset."""
        return self._group[name][()]

    def write_video(self, camera: CameraField, path: Path, rows: slice, fps: float, codec: str) -> int:
        """Encodes images (n, height, width, 3) uint8."""
        frames = frames_from_array(self._group[camera.column], rows, f'{self.where} {camera.column}')
        return encode_mp4(frames, path, (camera.width, camera.height), fps, codec)

    def fingerprint(self) -> str:
        """Returns the SHA-256 of everything but the images, of which only the shapes count."""
        digest = hashlib.sha256(self._group.name.encode())
        for name in sorted(self.columns):
            dataset = self._group[name]
            digest.update(f'{name} {dataset.shape} {dataset.dtype}'.encode())
            if dataset.ndim >= 3:
                continue
            values = dataset[()]
            if dataset.dtype.hasobject:
                digest.update(repr(values.tolist()).encode())
            else:
                digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def _add_column(self, name: str, node: object) -> None:
        import h5py

        if isinstance(node, h5py.Dataset):
            self.columns.append(name)

    def _task_name(self) -> str:
        """The task that the group, the file or its environment names, empty if none does."""
        shared = self._file[_GROUP].attrs
        for attributes in (self._group.attrs, shared):
            for key in _TASK_ATTRIBUTES:
                if key in attributes:
                    text = attributes[key]
                    return text.decode() if isinstance(text, bytes) else str(text)
        try:
            return json.loads(shared.get('env_args', '{}')).get('env_name', '')
        except (ValueError, AttributeError):
            return ''


def _need_h5py() -> None:
    if importlib.util.find_spec('h5py') is None:
        raise GrootRosError('HDF5 files need h5py: pip install "groot_ros[hdf5]".')


def _group_names(file: Path) -> list[str]:
    _need_h5py()
    import h5py

    try:
        with h5py.File(file, 'r') as opened:
            group = opened.get(_GROUP)
            return list(group) if isinstance(group, h5py.Group) else []
    except OSError as error:
        raise GrootRosError(
            f'{file} cannot be read as HDF5 ({error}): it is damaged, or not an HDF5 file.'
        ) from error


def _by_number(name: str) -> tuple[int, str]:
    numbers = re.findall(r'\d+', name)
    return (int(numbers[-1]) if numbers else -1, name)
