# SPDX-License-Identifier: Apache-2.0
"""The folder of episodes: continuous numbering, one recorder at a time, and the index episodes.json."""

import fcntl
import json
import os
import shutil
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TextIO

from groot_ros.bags.folder_lock import LOCK_FILE, is_being_recorded
from groot_ros.bags.label import Label, write_label
from groot_ros.bags.recover import LEFT_BY_RECOVERY
from groot_ros.errors import GrootRosError
from groot_ros.quality.verdict import relabel_verdict
from groot_ros.resources import VERDICT_FILE

_PREFIX = 'episode_'
_PROBE_BYTES = 16 << 20
INDEX_FILE = 'episodes.json'


@dataclass
class IndexEntry:
    """What episodes.json says about a saved episode."""

    name: str
    task: str
    outcome: str
    verdict: str
    rows: int
    duration_s: float

    @property
    def is_usable(self) -> bool:
        """Whether it counts for its task: a success whose verdict is not fail."""
        return self.outcome == 'success' and self.verdict != 'fail'


class EpisodeFolder:
    """Locks a folder for one recorder. Raises GrootRosError if it cannot be written or is locked already."""

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
        self.entries = read_index(path)

    def next_path(self) -> Path:
        """Folder of the next episode: one above the highest number in this folder."""
        highest = -1
        for path in self.path.glob(f'{_PREFIX}[0-9]*'):
            digits = path.name.removeprefix(_PREFIX)[:6]
            if digits.isdigit():
                highest = max(highest, int(digits))
        return self.path / f'{_PREFIX}{highest + 1:06d}'

    def discard(self, path: Path) -> None:
        """Deletes an episode of this folder."""
        if path.parent == self.path:
            shutil.rmtree(path, ignore_errors=True)

    def add(self, entry: IndexEntry) -> None:
        """Adds a saved episode to episodes.json, or replaces its entry."""
        places = {other.name: other for other in self.entries}
        places[entry.name] = entry
        self.entries = list(places.values())
        self._write_index()

    def relabel(self, name: str, label: Label) -> IndexEntry:
        """Changes what is written about a saved episode, and returns its new entry.

        Raises GrootRosError if there is no such episode, or its verdict cannot be read.
        """
        path = self._saved_path(name)
        entry = next(entry for entry in self.entries if entry.name == name)
        write_label(path, label)
        changes = label.changes()
        changed = replace(entry, **{key: changes[key] for key in ('outcome', 'task') if key in changes})
        relabel_verdict(path, changed.outcome, changed.task)
        self.add(changed)
        return changed

    def delete(self, name: str) -> None:
        """Deletes a saved episode for good. Raises GrootRosError if there is none of this name."""
        path = self._saved_path(name)
        self.entries = [entry for entry in self.entries if entry.name != name]
        self._write_index()
        shutil.rmtree(path)

    def _saved_path(self, name: str) -> Path:
        """The folder of a saved episode. The name must be one of the index: it comes from a service."""
        if name not in [entry.name for entry in self.entries]:
            raise GrootRosError(f'There is no saved episode {name[:100]!r} in {self.path}.')
        return self.path / name

    def _write_index(self) -> None:
        """Writes episodes.json, which is replaced at once and never half written."""
        text = json.dumps({'version': 1, 'episodes': [asdict(other) for other in self.entries]}, indent=1)
        new_file = self.path / f'{INDEX_FILE}.new'
        with new_file.open('w') as file:
            file.write(text + '\n')
            file.flush()
            os.fsync(file.fileno())
        new_file.replace(self.path / INDEX_FILE)

    def good_episode_counts(self) -> dict[str, int]:
        """Number of usable episodes of each task."""
        return Counter(entry.task for entry in self.entries if entry.is_usable)

    def free_bytes(self) -> int:
        """Free space on the disk in bytes."""
        return shutil.disk_usage(self.path).free

    def write_speed(self) -> float:
        """Write speed of the disk in bytes/s, measured with 16 MiB; 0 if it cannot be written."""
        probe = self.path / '.write_probe'
        block = os.urandom(1 << 20)
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
        """Unlocks the folder for another recorder."""
        self._lock.close()


def finished_bags(folder: Path) -> list[Path]:
    """Bags in a folder that are complete, by name.

    While a recorder runs there, an episode is complete once it is in episodes.json, after its verdict.
    """
    bags = sorted(
        path.parent
        for path in folder.glob('*/metadata.yaml')
        if not path.parent.name.endswith(LEFT_BY_RECOVERY)
    )
    if not is_being_recorded(folder):
        return bags
    listed = {entry.name for entry in read_index(folder)}
    return [bag for bag in bags if bag.name in listed]


def read_index(path: Path) -> list[IndexEntry]:
    """Entries whose episodes still exist. A missing or broken index is rebuilt from the verdicts."""
    try:
        entries = [IndexEntry(**entry) for entry in json.loads((path / INDEX_FILE).read_text())['episodes']]
    except (OSError, ValueError, KeyError, TypeError):
        entries = _entries_from_verdicts(path)
    return [entry for entry in entries if (path / entry.name / 'metadata.yaml').is_file()]


def _entries_from_verdicts(path: Path) -> list[IndexEntry]:
    entries = []
    for file in sorted(path.glob(f'{_PREFIX}*/{VERDICT_FILE}')):
        try:
            verdict = json.loads(file.read_text())
            fields = {key: verdict[key] for key in ('task', 'outcome', 'verdict', 'rows', 'duration_s')}
        except (OSError, ValueError, KeyError):
            continue
        entries.append(IndexEntry(file.parent.name, **fields))
    return entries
