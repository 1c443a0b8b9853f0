# SPDX-License-Identifier: Apache-2.0
"""Errors that a person can act on: one sentence that names the thing and says what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


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
