# SPDX-License-Identifier: Apache-2.0
"""The folder of episodes: numbering that goes on after a restart, one recorder at a time, an index of what there is."""

import fcntl
import json
import os
import shutil
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from groot_ros.bags.folder_lock import LOCK_FILE, is_being_recorded
from groot_ros.bags.recover import LEFT_BY_RECOVERY
from groot_ros.errors import GrootRosError

_PREFIX = 'episode_'
_PROBE_BYTES = 16 << 20
INDEX_FILE = 'episodes.json'


@dataclass
class IndexEntry:
    """One saved episode."""

    name: str
    task: str
    outcome: str
    verdict: str
    rows: int
    duration_s: float

    @property
    def is_usable(self) -> bool:
        """Whether it counts for its task."""
        return self.outcome == 'success' and self.verdict != 'fail'


class EpisodeFolder:
    """Owns a folder while the recorder runs.

    Raises GrootRosError where it cannot be written or another recorder has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock: TextIO = (path / LOCK_FILE).open('w')
        except OSError as error:
            raise GrootRosError(
                f'Episodes cannot be written to {path} ({error.strerror}): choose another output_dir.'
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise GrootRosError(
                f'Another recorder writes to {path}: stop it, or choose another output_dir.'
            ) from error
        self.entries = _read_index(path)

    def next_path(self) -> Path:
        """Folder of the next episode, one number above the highest that ever stood here."""
        numbers = [
            int(path.name[len(_PREFIX) :][:6])
            for path in self.path.glob(f'{_PREFIX}[0-9]*')
            if path.name[len(_PREFIX) :][:6].isdigit()
        ]
        return self.path / f'{_PREFIX}{max(numbers, default=-1) + 1:06d}'

    def discard(self, path: Path) -> None:
        """Deletes an episode of this folder."""
        if path.parent == self.path:
            shutil.rmtree(path, ignore_errors=True)

    def add(self, entry: IndexEntry) -> None:
        """Notes a saved episode in episodes.json, which is whole at any time."""
        self.entries = [*(other for other in self.entries if other.name != entry.name), entry]
        text = json.dumps({'version': 1, 'episodes': [asdict(other) for other in self.entries]}, indent=1)
        fresh = self.path / f'{INDEX_FILE}.new'
        with fresh.open('w') as file:
            file.write(text + '\n')
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path / INDEX_FILE)

    def good_episode_counts(self) -> dict[str, int]:
        """Good episodes by task."""
        return Counter(entry.task for entry in self.entries if entry.is_usable)

    def free_bytes(self) -> int:
        """What is left on the disk."""
        return shutil.disk_usage(self.path).free

    def write_speed(self) -> float:
        """Bytes a second that reach the disk, by writing 16 MiB; 0 where it takes none, as a full one."""
        probe, block = self.path / '.write_probe', os.urandom(1 << 20)
        began_s = time.perf_counter()
        try:
            with probe.open('wb') as file:
                for _ in range(_PROBE_BYTES // len(block)):
                    file.write(block)
                file.flush()
                os.fdatasync(file.fileno())
        except OSError:
            return 0.0
        finally:
            probe.unlink(missing_ok=True)
        return _PROBE_BYTES / (time.perf_counter() - began_s)

    def close(self) -> None:
        """Lets another recorder have the folder."""
        self._lock.close()


def finished_bags(folder: Path) -> list[Path]:
    """Bags of a folder that nobody writes any more, by name: our recorder lists them when their verdict is made."""
    bags = sorted(
        path.parent
        for path in folder.glob('*/metadata.yaml')
        if not path.parent.name.endswith(LEFT_BY_RECOVERY)
    )
    if not is_being_recorded(folder):
        return bags
    listed = {entry.name for entry in _read_index(folder)}
    return [bag for bag in bags if bag.name in listed]


def _read_index(path: Path) -> list[IndexEntry]:
    """The entries whose episodes are still there; an index that is lost or broken is made again of the verdicts."""
    try:
        found = [IndexEntry(**entry) for entry in json.loads((path / INDEX_FILE).read_text())['episodes']]
    except (OSError, ValueError, KeyError, TypeError):
        found = [
            entry
            for file in sorted(path.glob(f'{_PREFIX}*/verdict.json'))
            if (entry := _entry_of(file)) is not None
        ]
    return [entry for entry in found if (path / entry.name / 'metadata.yaml').is_file()]


def _entry_of(file: Path) -> IndexEntry | None:
    try:
        verdict = json.loads(file.read_text())
        return IndexEntry(
            file.parent.name,
            verdict['task'],
            verdict['outcome'],
            verdict['verdict'],
            verdict['rows'],
            verdict['duration_s'],
        )
    except (OSError, ValueError, KeyError):
        return None
