# SPDX-License-Identifier: Apache-2.0
"""What a source is: recordings that are found, and the segments that each of them gives."""

import posixpath
import re
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from groot_ros.dataset.options import ConversionOptions
from groot_ros.dataset.sources.segment import Segment
from groot_ros.embodiment import Embodiment

# Before the name of a dataset on the Hugging Face hub: hub:owner/name.
HUB = 'hub:'
# The cache has datasets--OWNER--NAME/snapshots/REVISION.
_CACHED = re.compile(r'/datasets--([^/]+?)--([^/]+)/snapshots/[^/]+/?$')


@dataclass(frozen=True)
class Recording:
    """What is converted on its own: a bag, or one entry of a file or of a dataset.

    `location` is a path, or an address such as s3://bucket/bag.
    """

    format: str
    location: str
    entry: str = ''

    @property
    def name(self) -> str:
        """A short name for people, which the dataset notes as the source of each episode."""
        place = self.place
        name = place.removeprefix(HUB) if place.startswith(HUB) else posixpath.basename(place)
        return f'{name} {self.entry}'.rstrip()

    @property
    def place(self) -> str:
        """Its location for people, see `shown_place`."""
        return shown_place(self.location)

    def __str__(self) -> str:
        return f'{self.location} {self.entry}'.rstrip()


def shown_place(location: str) -> str:
    """A location for people: hub:owner/name for a copy in the cache of Hugging Face, else itself."""
    repository = _CACHED.search(location)
    return f'{HUB}{repository[1]}/{repository[2]}' if repository else location


class OutcomeLeftOutError(Exception):
    """A recording whose outcome is not wanted; it is counted, and no fault."""

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


def check_outcome(outcome: str, options: ConversionOptions) -> None:
    """Raises OutcomeLeftOutError for an outcome that the options do not name."""
    if outcome not in options.outcomes:
        raise OutcomeLeftOutError(outcome)


class RecordingFormat(ABC):
    """One kind of source. A new one is a subclass in a file of its own and a line in discover.FORMATS."""

    name: str
    owns_folder = False  # True where nothing else is looked for in the same folder

    @abstractmethod
    def place_of(self, file: Path) -> Path | None:
        """Returns the file or folder that holds recordings, if this file is a sign of this format."""

    @abstractmethod
    def recordings(self, place: Path) -> list[Recording]:
        """Returns the recordings at such a place. Raises GrootRosError for one that cannot be read."""

    @abstractmethod
    def fingerprint(self, recording: Recording, path: Path, embodiment: Embodiment) -> str:
        """Returns the SHA-256 of a recording at `path`. Raises GrootRosError if it is unreadable."""

    @abstractmethod
    def segments(
        self,
        recording: Recording,
        path: Path,
        embodiment: Embodiment,
        options: ConversionOptions,
        folder: Path,
    ) -> AbstractContextManager[list[Segment]]:
        """Opens a recording at `path` and gives its segments, each an episode; `folder` takes their files.

        Raises GrootRosError for a recording that cannot be converted, and OutcomeLeftOutError, before it
        reads the rows, for one whose outcome is not wanted.
        """
