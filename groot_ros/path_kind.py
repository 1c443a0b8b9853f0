# SPDX-License-Identifier: Apache-2.0
"""Says what a path is that was given in place of another one, and which path was probably meant."""

import json
from pathlib import Path

from groot_ros.errors import nearest

_MODEL_FILES = ('config.json', 'processor_config.json', 'policy_preprocessor.json', 'experiment_cfg')
_BAG_SUFFIXES = ('.mcap', '.db3')
_HDF5_SUFFIXES = ('.hdf5', '.h5')


def describe_path(path: Path) -> str:
    """The rest of a sentence that begins with the path, such as "is a folder of 3 bags, such as ...".

    Looks at most one folder deep, and reads nothing but a dataset's meta/info.json.
    """
    if not path.exists():
        return _missing(path)
    return _describe_folder(path) if path.is_dir() else _describe_file(path)


def is_bag(path: Path) -> bool:
    """Whether a folder is a bag that was closed."""
    return (path / 'metadata.yaml').is_file()


def is_dataset(path: Path) -> bool:
    """Whether a folder is a LeRobot dataset."""
    return (path / 'meta' / 'info.json').is_file()


def dataset_version(path: Path) -> str:
    """What meta/info.json says, such as v2.1; empty where it cannot be read."""
    try:
        return str(json.loads((path / 'meta' / 'info.json').read_bytes())['codebase_version'])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ''


def is_torn_bag(path: Path) -> bool:
    """Whether a folder is a bag whose recording was cut off."""
    return path.is_dir() and not is_bag(path) and any(_files(path, '.mcap'))


def _missing(path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        return f'does not exist, and neither does the folder {parent}'
    folders = [parent / name for name in _names(parent) if (parent / name).is_dir()]
    for folder in folders:
        if (folder / path.name).exists():
            return f'does not exist; the nearest is {folder / path.name}'
    return f'does not exist{nearest(path.name, _names(parent))}'


def _describe_file(path: Path) -> str:
    if path.suffix in _BAG_SUFFIXES:
        return f'is a file of the bag {path.parent}'
    if path.suffix in _HDF5_SUFFIXES:
        return 'is an HDF5 file'
    return 'is a file'


def _describe_folder(path: Path) -> str:
    if is_dataset(path):
        return f'is a LeRobot dataset {dataset_version(path)}'.rstrip()
    if is_bag(path):
        return 'is a bag'
    if is_torn_bag(path):
        return f'is a bag whose recording was cut off (`groot-ros recover {path}` rebuilds it)'
    if any(_files(path, '.db3')):
        return 'is a bag without metadata.yaml (`ros2 bag reindex` makes it)'
    if any((path / name).exists() for name in _MODEL_FILES):
        return 'is the folder of a model'
    for parent in path.resolve().parents[:3]:
        if is_dataset(parent):
            return f'is a part of the dataset {parent}'
    return _describe_content(path)


def _describe_content(path: Path) -> str:
    folders = [path / name for name in _names(path) if (path / name).is_dir()]
    bags = [folder for folder in folders if is_bag(folder) or is_torn_bag(folder)]
    datasets = [folder for folder in folders if is_dataset(folder)]
    hdf5_files = list(_files(path, *_HDF5_SUFFIXES))
    for kind, found in (('bag', bags), ('dataset', datasets), ('HDF5 file', hdf5_files)):
        if found:
            plural = '' if len(found) == 1 else 's'
            return f'is a folder of {len(found)} {kind}{plural}, such as {found[0]}'
    if not _names(path):
        return 'is an empty folder'
    return 'is a folder with neither a bag nor a dataset nor a model in it'


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []


def _files(folder: Path, *suffixes: str) -> list[Path]:
    return [folder / name for name in _names(folder) if Path(name).suffix in suffixes]
