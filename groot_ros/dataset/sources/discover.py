# SPDX-License-Identifier: Apache-2.0
"""Finds what can be converted: bags, demonstrations in HDF5 files, episodes of LeRobot datasets; here or in object storage."""

import contextlib
import importlib.util
import json
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from groot_ros.bags.recover import LEFT_BY_RECOVERY
from groot_ros.errors import GrootRosError

Kind = Literal['bag', 'hdf5', 'lerobot']
_HDF5_SUFFIXES = ('.hdf5', '.h5')
_DEMONSTRATIONS = 'data'


@dataclass(frozen=True)
class Recording:
    """What is converted on its own: a bag, or one entry of a file or dataset. `location` is a path, or an address such as s3://bucket/bag."""

    kind: Kind
    location: str
    entry: str = ''

    @property
    def name(self) -> str:
        """For people, and for the file that says where each episode came from."""
        return f'{posixpath.basename(self.location)} {self.entry}'.rstrip()

    def __str__(self) -> str:
        return f'{self.location} {self.entry}'.rstrip()


def find_recordings(sources: list[str]) -> list[Recording]:
    """Everything to convert at and below some paths or addresses, in the order of their names. Raises GrootRosError where there is nothing."""
    items: list[Recording] = []
    for source in sources:
        found = _remote_bags(source) if _is_remote(source) else _local_items(Path(source))
        if not found:
            raise GrootRosError(
                f'{source} holds no bag (no metadata.yaml or .mcap file), HDF5 file or LeRobot dataset: give the folder with the data.'
            )
        items += found
    return list(dict.fromkeys(items))


def find_bags(folder: Path) -> list[Path]:
    """The bags at or below a folder. Raises GrootRosError where there is none."""
    return [Path(item.location) for item in find_recordings([str(folder)]) if item.kind == 'bag']


@contextlib.contextmanager
def fetched(item: Recording) -> Iterator[Path]:
    """The item's path on this machine: itself, or a copy that is deleted afterwards."""
    if not _is_remote(item.location):
        yield Path(item.location)
        return
    folder = Path(tempfile.mkdtemp(prefix='groot_ros_'))
    try:
        files, place = _file_system(item.location)
        try:
            files.get(f'{place}/', f'{folder / posixpath.basename(place)}/', recursive=True)
        except Exception as error:  # each storage raises its own
            raise GrootRosError(
                f'{item.location} cannot be fetched ({error}): is the storage there, and may you read it?'
            ) from error
        yield folder / posixpath.basename(place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_sidecar(item: Recording, name: str) -> str:
    """The text of a file in a bag's folder, empty where there is none."""
    if not _is_remote(item.location):
        file = Path(item.location) / name
        return file.read_text() if file.is_file() else ''
    files, place = _file_system(item.location)
    path = f'{place}/{name}'
    return files.cat_file(path).decode() if files.exists(path) else ''


def need_h5py() -> None:
    """Raises GrootRosError where HDF5 cannot be read."""
    if importlib.util.find_spec('h5py') is None:
        raise GrootRosError('HDF5 files need h5py: pip install "groot_ros[hdf5]".')


def _local_items(path: Path) -> list[Recording]:
    if not path.exists():
        raise GrootRosError(
            f'{path} does not exist: give a bag, an HDF5 file, a LeRobot dataset, or a folder of them.'
        )
    if path.is_file():
        return _demonstrations(path) if path.suffix in _HDF5_SUFFIXES else []
    datasets = [info.parents[1] for info in sorted(path.rglob('meta/info.json'))]
    found = {folder: _episodes(folder) for folder in datasets}
    for file in sorted(path.rglob('*')):
        if any(file.is_relative_to(folder) for folder in datasets):
            continue
        if file.suffix in _HDF5_SUFFIXES and file.is_file():
            found[file] = _demonstrations(file)
        elif (
            file.suffix == '.mcap' or file.name == 'metadata.yaml'
        ) and file.parent.suffix not in LEFT_BY_RECOVERY:
            found[file.parent] = [Recording('bag', str(file.parent))]
    return [item for place in sorted(found) for item in found[place]]


def _demonstrations(file: Path) -> list[Recording]:
    need_h5py()
    import h5py

    try:
        with h5py.File(file, 'r') as opened:
            group = opened.get(_DEMONSTRATIONS)
            names = list(group) if isinstance(group, h5py.Group) else []
    except OSError as error:
        raise GrootRosError(
            f'{file} cannot be read as HDF5 ({error}): it is damaged, or something else.'
        ) from error
    if not names:
        raise GrootRosError(
            f'{file} has no group `{_DEMONSTRATIONS}` of demonstrations, as Isaac Lab and Mimic write it.'
        )
    return [Recording('hdf5', str(file), name) for name in sorted(names, key=_by_number)]


def _by_number(name: str) -> tuple[int, str]:
    numbers = re.findall(r'\d+', name)
    return (int(numbers[-1]) if numbers else -1, name)


def _episodes(folder: Path) -> list[Recording]:
    try:
        version = json.loads((folder / 'meta/info.json').read_text()).get('codebase_version', '')
        lines = (folder / 'meta/episodes.jsonl').read_text().splitlines()
        return [
            Recording('lerobot', str(folder), str(json.loads(line)['episode_index']))
            for line in lines
            if line.strip()
        ]
    except FileNotFoundError as error:
        raise GrootRosError(
            f'{folder} is a LeRobot dataset of {version or "an unknown version"}, and v2.0 and v2.1 can be converted.'
        ) from error
    except (ValueError, KeyError, OSError) as error:
        raise GrootRosError(f'The dataset {folder} cannot be read ({error}).') from error


def _is_remote(location: str) -> bool:
    return '://' in location


def _file_system(location: str):
    if importlib.util.find_spec('fsspec') is None:
        raise GrootRosError(
            f'{location} needs fsspec, and the package of its storage: pip install "groot_ros[storage]" s3fs.'
        )
    import fsspec

    try:
        return fsspec.core.url_to_fs(location)
    except (ImportError, ValueError) as error:
        raise GrootRosError(f'{location} cannot be reached: {error}.') from error


def _remote_bags(source: str) -> list[Recording]:
    files, place = _file_system(source)
    scheme = source.split('://')[0]
    folders = {
        posixpath.dirname(file) for file in files.find(place) if file.endswith(('.mcap', '/metadata.yaml'))
    }
    return [
        Recording('bag', f'{scheme}://{folder}')
        for folder in sorted(folders)
        if not folder.endswith(LEFT_BY_RECOVERY)
    ]
