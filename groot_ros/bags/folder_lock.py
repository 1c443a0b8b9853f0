# SPDX-License-Identifier: Apache-2.0
"""Whether a recorder has a folder of episodes: it holds a lock on a file in there while it runs."""

import fcntl
from pathlib import Path

LOCK_FILE = '.recorder.lock'


def is_being_recorded(folder: Path) -> bool:
    """Whether a recorder holds the lock of a folder of episodes now."""
    lock = folder / LOCK_FILE
    if not lock.exists():
        return False
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
