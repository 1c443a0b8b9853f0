# SPDX-License-Identifier: Apache-2.0
"""Recordings in object storage by way of fsspec: listed, copied to this machine, and their notes read."""

import contextlib
import importlib.util
import posixpath
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from groot_ros.dataset.sources.recording import Recording
from groot_ros.errors import GrootRosError


def is_remote(location: str) -> bool:
    """Whether a location is an address such as s3://bucket/bag."""
    return '://' in location


def list_files(source: str) -> list[str]:
    """Returns the addresses of all files below an address. Raises GrootRosError if it cannot be reached."""
    files, place = _file_system(source)
    scheme = source.split('://')[0]
    return [f'{scheme}://{file}' for file in files.find(place)]


@contextlib.contextmanager
def local_copy(recording: Recording) -> Iterator[Path]:
    """Gives the path of a recording on this machine: its own, or of a copy that is deleted afterwards."""
    if not is_remote(recording.location):
        yield Path(recording.location)
        return
    folder = Path(tempfile.mkdtemp(prefix='groot_ros_'))
    try:
        yield _download(recording, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_sidecar(recording: Recording, name: str) -> str | None:
    """Returns the text of a file in a bag's folder, None if there is no such file."""
    if not is_remote(recording.location):
        file = Path(recording.location) / name
        return file.read_text() if file.exists() else None
    files, place = _file_system(recording.location)
    path = f'{place}/{name}'
    return files.cat_file(path).decode() if files.exists(path) else None


def _download(recording: Recording, folder: Path) -> Path:
    files, place = _file_system(recording.location)
    path = folder / posixpath.basename(place)
    try:
        files.get(f'{place}/', f'{path}/', recursive=True)
    except Exception as error:  # each storage raises its own
        raise GrootRosError(
            f'{recording.location} cannot be copied ({error}): check the address and your access to it.'
        ) from error
    return path


def _file_system(location: str):
    if importlib.util.find_spec('fsspec') is None:
        raise GrootRosError(
            f'{location} needs fsspec and the package of its storage: pip install "groot_ros[storage]" s3fs.'
        )
    import fsspec

    try:
        return fsspec.core.url_to_fs(location)
    except (ImportError, ValueError) as error:
        raise GrootRosError(f'{location} cannot be reached ({error}): check the address.') from error
