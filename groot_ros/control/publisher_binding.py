# SPDX-License-Identifier: Apache-2.0
"""Binds a source of commands to one publisher at a time. Used by control/command_gate.py.

rclpy of ROS 2 Jazzy does not tell which publisher a message comes from. So each of our nodes counts its
commands from a random number on, and a number that does not follow the last one is of another publisher.
"""

import secrets

import numpy as np

from groot_ros.control.limits import RefusedError

# At 125 commands per second a source that lost more of them has been silent for too long anyway.
_MAX_GAP = 50
_TAKEOVER_S = 1.0
_NUMBERS = 2**32


class RivalError(RefusedError):
    """The command is of another publisher than the one that its source is bound to."""


def first_sequence() -> int:
    """A random number from which a node counts its commands, with room for years of them in a uint32."""
    return secrets.randbelow(2**31)


class PublisherBinding:
    """Follows the sequence numbers of one source.

    Another publisher takes over when the bound one has been silent for 1 s, does not command, and either is
    not seen any more or was last heard before `loosen`.
    """

    def __init__(self) -> None:
        self._last: int | None = None
        self._heard_s = -np.inf
        self._loose = True

    def loosen(self) -> None:
        """Lets another publisher take over even if the silent one is still seen."""
        self._loose = True

    def take(self, sequence: int, now_s: float, commands: bool, alone: bool) -> None:
        """Takes the number of a message. Raises RefusedError if it is repeated or from another publisher.

        `commands` says whether the source commands the arm now, `alone` whether its topic has one publisher.
        """
        problem = self._problem(sequence)
        silent = now_s - self._heard_s >= _TAKEOVER_S
        if problem is not None and not (silent and not commands and (alone or self._loose)):
            raise problem
        self._last = sequence
        self._heard_s = now_s
        self._loose = False

    def _problem(self, sequence: int) -> RefusedError | None:
        if self._last is None:
            return None
        ahead = (sequence - self._last + _NUMBERS // 2) % _NUMBERS - _NUMBERS // 2
        if 0 < ahead <= _MAX_GAP:
            return None
        if -_MAX_GAP < ahead <= 0:
            return RefusedError(f'sequence {sequence} came twice or late')
        return RivalError(f'sequence {sequence} does not follow {self._last}: it is of a second publisher')
