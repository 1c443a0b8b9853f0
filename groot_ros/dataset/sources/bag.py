# SPDX-License-Identifier: Apache-2.0
"""Bags as a source: of our recorder with its own ticks, or of any recorder."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from groot_ros.bags.reader import EpisodeBag, naming_bag
from groot_ros.bags.recover import LEFT_BY_RECOVERY
from groot_ros.dataset.options import ConversionOptions
from groot_ros.dataset.sources.bag_recorded import recorded_segments
from groot_ros.dataset.sources.bag_resampled import resampled_segments
from groot_ros.dataset.sources.bag_segment import bag_outcome
from groot_ros.dataset.sources.recording import Recording, RecordingFormat, check_outcome
from groot_ros.dataset.sources.segment import Segment
from groot_ros.dataset.sources.time_ranges import TimeRange, recorded_time_ranges
from groot_ros.embodiment import Embodiment

_BLOCK = 1 << 20


class BagFormat(RecordingFormat):
    """Folders with MCAP or SQLite bags."""

    name = 'bag'

    def place_of(self, file: Path) -> Path | None:
        """Returns the folder of a bag's file."""
        is_bag = file.suffix == '.mcap' or file.name == 'metadata.yaml'
        return file.parent if is_bag and file.parent.suffix not in LEFT_BY_RECOVERY else None

    def recordings(self, place: Path) -> list[Recording]:
        """Returns the one recording that a folder is."""
        return [Recording(self.name, str(place))]

    def fingerprint(self, recording: Recording, path: Path, embodiment: Embodiment) -> str:
        """Returns the SHA-256 of the bag's files."""
        digest = hashlib.sha256()
        for file in sorted([*path.glob('*.mcap'), *path.glob('*.db3')]):
            with file.open('rb') as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
        return digest.hexdigest()

    @contextmanager
    def segments(
        self,
        recording: Recording,
        path: Path,
        embodiment: Embodiment,
        options: ConversionOptions,
        folder: Path,
    ) -> Iterator[list[Segment]]:
        """Reads the bag once; `folder` takes the videos of its segments."""
        with EpisodeBag(path) as bag:
            check_outcome(bag_outcome(bag), options)
            ranges = [entry.in_bag(bag) for entry in options.ranges if entry.bag == recording.name]
            with naming_bag(path):
                segments = bag_segments(bag, embodiment, folder, options.codec, ranges)
            yield segments


def bag_segments(
    bag: EpisodeBag, embodiment: Embodiment, folder: Path, codec: str, ranges: list[TimeRange]
) -> list[Segment]:
    """Returns the segments of a bag; `folder` takes their videos, `ranges` choose parts of the bag.

    Recorded ticks at the embodiment's rate are taken as they are; otherwise rows are sampled again.
    Raises GrootRosError for a bag that cannot be converted.
    """
    recorded_fps = float(bag.info.get('fps', 0.0))
    if bag.has_rows and abs(recorded_fps - embodiment.fps) < 1e-9 and not ranges:
        return list(recorded_segments(bag, embodiment, folder, codec))
    return list(resampled_segments(bag, embodiment, folder, codec, ranges or recorded_time_ranges(bag)))
