# SPDX-License-Identifier: Apache-2.0
"""Finds what can be converted: recordings of every known format, here, in object storage or on the hub."""

import posixpath
from pathlib import Path

from groot_ros.bags.recover import LEFT_BY_RECOVERY
from groot_ros.dataset.sources.bag import BagFormat
from groot_ros.dataset.sources.hdf5 import Hdf5Format
from groot_ros.dataset.sources.hub import download, download_meta, is_hub
from groot_ros.dataset.sources.lerobot import LeRobotFormat
from groot_ros.dataset.sources.recording import Recording, RecordingFormat
from groot_ros.dataset.sources.storage import is_remote, list_files
from groot_ros.errors import GrootRosError, explain_error
from groot_ros.path_kind import describe_path

# The one table of sources; arrays in memory are converted by arrays.convert_arrays.
FORMATS: dict[str, RecordingFormat] = {
    format.name: format for format in (BagFormat(), Hdf5Format(), LeRobotFormat())
}


def find_recordings(sources: list[str], unreadable: dict[str, str] | None = None) -> list[Recording]:
    """Returns everything to convert at and below some paths or addresses, in the order of their names.

    Raises GrootRosError for a source that holds nothing, and for an unreadable file or dataset, unless
    `unreadable` is given: it then takes the reason by the path.
    """
    found: list[Recording] = []
    for source in sources:
        recordings = _recordings(source, unreadable)
        if not recordings and not unreadable:
            raise GrootRosError(
                f'{source} holds no bag (no metadata.yaml or .mcap file), HDF5 file or LeRobot dataset: '
                'give the folder with the data.'
            )
        found += recordings
    return list(dict.fromkeys(found))


def _recordings(source: str, unreadable: dict[str, str] | None) -> list[Recording]:
    if is_hub(source):
        FORMATS[LeRobotFormat.name].recordings(download_meta(source))  # before the videos are copied
        return FORMATS[LeRobotFormat.name].recordings(download(source))
    if is_remote(source):
        return _remote_bags(source)
    return _local_recordings(Path(source), unreadable)


def find_bags(folder: Path) -> list[Path]:
    """Returns the bags at or below a folder. Raises GrootRosError if there is nothing to convert."""
    recordings = find_recordings([str(folder)])
    return [Path(recording.location) for recording in recordings if recording.format == BagFormat.name]


def _local_recordings(path: Path, unreadable: dict[str, str] | None) -> list[Recording]:
    if not path.exists():
        raise GrootRosError(
            f'{path} {describe_path(path)}: give a bag, an HDF5 file, a LeRobot dataset, or a folder of them.'
        )
    places = _places(path)
    owned = [place for place, format in places.items() if format.owns_folder]
    recordings: list[Recording] = []
    for place in sorted(places):
        if any(folder in place.parents for folder in owned):
            continue
        try:
            recordings += places[place].recordings(place)
        except Exception as error:  # each library has its own for a damaged file
            if unreadable is None:
                raise
            unreadable[str(place)] = explain_error(error)
    return recordings


def _places(path: Path) -> dict[Path, RecordingFormat]:
    """Returns the files and folders that hold recordings at or below a path, and their formats."""
    places: dict[Path, RecordingFormat] = {}
    files = [path] if path.is_file() else sorted(path.rglob('*'))
    for file in files:
        for format in FORMATS.values():
            place = format.place_of(file)
            if place is not None and (place not in places or format.owns_folder):
                places[place] = format
    # A single file of a bag or of a dataset is not the whole recording.
    return {place: format for place, format in places.items() if place.is_relative_to(path)}


def _remote_bags(source: str) -> list[Recording]:
    files = [file for file in list_files(source) if file.endswith(('.mcap', '/metadata.yaml'))]
    folders = sorted({posixpath.dirname(file) for file in files})
    return [Recording(BagFormat.name, folder) for folder in folders if not folder.endswith(LEFT_BY_RECOVERY)]
