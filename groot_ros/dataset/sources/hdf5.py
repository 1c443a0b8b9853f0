# SPDX-License-Identifier: Apache-2.0
"""Demonstrations in HDF5 files as a source: groups such as data/demo_3, as Isaac Lab and Mimic write them.

Only data within the file are read: its links, external storage and virtual datasets may name any other file.
"""

import hashlib
import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from groot_ros.config_files import parse_json
from groot_ros.dataset.options import ConversionOptions
from groot_ros.dataset.sources.recording import Recording, RecordingFormat, check_outcome
from groot_ros.dataset.sources.segment import Segment
from groot_ros.dataset.sources.table import Table, frames_from_array, table_segment
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.video.frame import VideoFrame
from groot_ros.video.mp4 import encode_mp4

if TYPE_CHECKING:
    import h5py

_SUFFIXES = ('.hdf5', '.h5')
_GROUP = 'data'
_TASK_ATTRIBUTES = ('task', 'language_instruction', 'task_description')
# A shape is a few bytes, whatever memory it asks for; nine hours at 30 rows a second have a million rows.
_MAX_ROWS = 1_000_000
_MAX_NUMBERS_BYTES = 512 << 20
_MAX_CHUNK_BYTES = 256 << 20


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
            check_outcome(table.outcome, options)
            yield [table_segment(table, embodiment, options.codec)]


class Hdf5Table(Table):
    """A group of a file, such as data/demo_3; columns are the datasets below it, such as obs/eef_pos."""

    def __init__(self, recording: Recording, path: Path, embodiment: Embodiment) -> None:
        self.where = str(recording)
        self.columns: list[str] = []
        with _reading(self.where):
            self._file = _open(path)
            try:
                self._read_attributes(recording.entry, embodiment)
            except BaseException:
                self._file.close()
                raise

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def column(self, name: str) -> Array:
        """Returns the numbers of a whole HDF5 dataset."""
        with _reading(f'{self.where} {name}'):
            dataset = self._dataset(name)
            if dataset.nbytes > _MAX_NUMBERS_BYTES:
                raise ValueError(f'it has the shape {dataset.shape}, which is too large for numbers')
            return dataset[()]

    def write_video(self, camera: CameraField, path: Path, rows: slice, fps: float, codec: str) -> int:
        """Encodes images (n, height, width, 3) uint8."""
        frames = self._frames(camera.column, rows)
        return encode_mp4(frames, path, (camera.width, camera.height), fps, codec)

    def fingerprint(self) -> str:
        """Returns the SHA-256 of everything but the images, of which only the shapes count."""
        digest = hashlib.sha256(self._group.name.encode())
        for name in sorted(self.columns):
            with _reading(f'{self.where} {name}'):
                dataset = self._dataset(name)
                digest.update(f'{name} {dataset.shape} {dataset.dtype}'.encode())
            if len(dataset.shape) >= 3:
                continue
            values = self.column(name)
            if dataset.dtype.hasobject:
                digest.update(repr(np.asarray(values).tolist()).encode())
            else:
                digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def _read_attributes(self, entry: str, embodiment: Embodiment) -> None:
        self._group = _own_group(_own_group(self._file, _GROUP), entry)
        self._group.visititems(self._add_column)
        task = self._task_name()
        self.task = embodiment.tasks.get(task, task)
        self.outcome = 'success' if np.all(self._group.attrs.get('success', True)) else 'failure'

    def _dataset(self, name: str) -> 'h5py.Dataset':
        """A dataset whose bytes are in this file. Raises ValueError for another one, and for a huge one."""
        dataset = self._group[name]
        if dataset.external or dataset.is_virtual:
            raise ValueError('its data are in another file: copy them into this one')
        if dataset.shape is None or not dataset.shape or dataset.shape[0] > _MAX_ROWS:
            raise ValueError(f'it has the shape {dataset.shape} instead of one row for each tick')
        if (
            dataset.chunks
            and np.prod(dataset.chunks, dtype=float) * dataset.dtype.itemsize > _MAX_CHUNK_BYTES
        ):
            raise ValueError(f'its chunks {dataset.chunks} are too large')
        return dataset

    def _frames(self, name: str, rows: slice) -> Iterator[VideoFrame]:
        where = f'{self.where} {name}'
        with _reading(where):
            frames = frames_from_array(self._dataset(name), rows, where)
        while True:
            with _reading(where):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def _add_column(self, name: str, node: Any) -> None:
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
            return str(parse_json(shared.get('env_args', '{}')).get('env_name', ''))
        except (ValueError, AttributeError):
            return ''


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """The one place that makes a sentence of what h5py raises for a damaged file."""
    try:
        yield
    except GrootRosError:
        raise
    except Exception as error:  # h5py raises whatever the C library's error is translated to
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise GrootRosError(f'{where} cannot be read as HDF5: {reason}.') from error


def _open(file: Path) -> 'h5py.File':
    _need_h5py()
    import h5py

    return h5py.File(file, 'r')


def _own_group(parent: 'h5py.Group', name: str) -> 'h5py.Group':
    """A group that the file itself holds. Raises ValueError for a link, which may lead into another file."""
    import h5py

    if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f'{name} is a link, which may lead into another file: copy the data into this one')
    group = parent[name]
    if not isinstance(group, h5py.Group):
        raise ValueError(f'{name} is not a group')
    return group


def _need_h5py() -> None:
    if importlib.util.find_spec('h5py') is None:
        raise GrootRosError('HDF5 files need h5py: pip install "groot_ros[hdf5]".')


def _group_names(file: Path) -> list[str]:
    with _reading(str(file)), _open(file) as opened:
        return list(_own_group(opened, _GROUP)) if _GROUP in opened else []


def _by_number(name: str) -> tuple[int, str]:
    numbers = re.findall(r'\d{1,9}', name)
    return (int(numbers[-1]) if numbers else -1, name)
