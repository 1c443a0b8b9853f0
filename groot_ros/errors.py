# SPDX-License-Identifier: Apache-2.0
"""Errors that a person can act on: one sentence that names the thing and says what to do."""

import errno
from collections.abc import Iterable
from difflib import get_close_matches

_OS_ERRORS = {
    errno.ENOSPC: 'the disk is full. Free some space and run the command again',
    errno.EDQUOT: 'your disk quota is used up. Free some space and run the command again',
    errno.EFBIG: 'the file is larger than this file system or your `ulimit -f` allows',
    errno.EACCES: 'permission denied. Change the permissions or choose another path',
    errno.EPERM: 'the operation is not permitted. Check the owner of the file or choose another path',
    errno.EROFS: 'the file system is read-only. Choose another path',
    errno.ENOENT: 'no such file or folder. Check the path; an output file needs a folder that exists',
    errno.ENOTDIR: 'a part of this path is a file, not a folder. Check the path',
    errno.EISDIR: 'this is a folder, and a file is needed. Check the path',
}
_MAX_REASON_LENGTH = 300


class GrootRosError(Exception):
    """A fault of input, files or devices; the command line prints its text and exits with 1."""


class BackendError(GrootRosError):
    """A model backend cannot load or run its model; the text goes to the person who started it."""


class PolicyError(GrootRosError):
    """A policy cannot answer; the text says why and what to do."""


def choose(what: str, value: str, known: Iterable[str], otherwise: str = '') -> str:
    """The value, if it is one of the known ones. Raises GrootRosError, which names them all, if it is not.

    `what` says what is chosen, such as "video codec"; `otherwise` what else would do.
    """
    names = list(known)
    if value in names:
        return value
    alternative = f', {otherwise}' if otherwise else ''
    hint = nearest(value, names)
    raise GrootRosError(
        f'The {what} {value!r} is not known: use one of {", ".join(names)}{alternative}{hint}.'
    )


def nearest(value: str, known: Iterable[str]) -> str:
    """The end of a sentence with the known name that is most like `value`; empty if none is like it."""
    names = [*known]
    longer = [name for name in names if name.startswith(value)]
    found = longer or get_close_matches(value, names, 1, cutoff=0.6)
    return f'; the nearest is {found[0]}' if value and found else ''


def explain_error(error: Exception) -> str:
    """One sentence for any error: what it names, the reason, and what to do where that is known."""
    if isinstance(error, GrootRosError):
        return str(error)
    if not isinstance(error, OSError):
        reason = ' '.join(str(error).split())[:_MAX_REASON_LENGTH].rstrip('.') or 'no reason was given'
        return f'{type(error).__name__}: {reason}.'
    reason = _OS_ERRORS.get(error.errno or 0, error.strerror or str(error))
    return f'{error.filename}: {reason}.' if error.filename else f'{reason[:1].upper()}{reason[1:]}.'
