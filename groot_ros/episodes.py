"""The folder of episodes: numbering that goes on after a restart, one recorder at a time, discarding."""

import fcntl
import shutil
from pathlib import Path
from typing import TextIO

from groot_ros.errors import GrootRosError

_PREFIX = 'episode_'
_LOCK = '.recorder.lock'


class EpisodeFolder:
    """Owns a folder while the recorder runs. Raises GrootRosError where it cannot be written or another recorder has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock: TextIO = (path / _LOCK).open('w')
        except OSError as error:
            raise GrootRosError(f'Episodes cannot be written to {path} ({error.strerror}): choose another output_dir.') from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise GrootRosError(f'Another recorder writes to {path}: stop it, or choose another output_dir.') from error

    def next_path(self) -> Path:
        """Folder of the next episode, one number above the highest that ever stood here."""
        numbers = [int(path.name[len(_PREFIX) :][:6]) for path in self.path.glob(f'{_PREFIX}[0-9]*') if path.name[len(_PREFIX) :][:6].isdigit()]
        return self.path / f'{_PREFIX}{max(numbers, default=-1) + 1:06d}'

    def discard(self, path: Path) -> None:
        """Deletes an episode of this folder."""
        if path.parent == self.path:
            shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """Lets another recorder have the folder."""
        self._lock.close()


def is_being_recorded(folder: Path) -> bool:
    """Whether a recorder holds the folder of episodes now."""
    lock = folder / _LOCK
    if not lock.exists():
        return False
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
