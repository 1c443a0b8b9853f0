# SPDX-License-Identifier: Apache-2.0
"""One conversion at a time for an output: two would delete each other's files."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from groot_ros.errors import GrootRosError


@contextlib.contextmanager
def lock_output(output: Path) -> Iterator[None]:
    """Holds a lock on a file next to `output`, which the system takes away from a process that ends.

    Raises GrootRosError if another conversion holds it, or if the folder cannot be written.
    """
    lock = output.with_name(f'.{output.name}.lock')
    descriptor = _acquire(lock, output)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(lock: Path, output: Path) -> int:
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise GrootRosError(
                f'The dataset cannot be written to {output.parent} ({error.strerror}): '
                'choose another --output.'
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise GrootRosError(
                f'Another conversion writes to {output}: wait for its end, or choose another --output.'
            ) from error
        if _is_the_file(descriptor, lock):
            return descriptor
        os.close(descriptor)  # its owner removed it meanwhile, and another process may have made a new one


def _is_the_file(descriptor: int, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), lock.stat())
    except FileNotFoundError:
        return False
