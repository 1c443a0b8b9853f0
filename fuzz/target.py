# SPDX-License-Identifier: Apache-2.0
"""What a fuzz target is: seeds, and one damaged case after the other."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np


class WrongAcceptError(Exception):
    """Damaged input was accepted, although a checksum or a count shows it; the text says the result."""


class Target(ABC):
    """One kind of input and the entry point that reads it. A new one is a line in targets.TARGETS.

    `prepare` and each case run in child processes of their own, so nothing that they keep in `self` stays.
    """

    name: str
    time_limit_s = 20.0
    # What the entry point imports when it runs.
    modules: tuple[str, ...] = ()

    @abstractmethod
    def prepare(self, seeds: Path) -> None:
        """Writes whole inputs, and what is known of them, into the folder `seeds`."""

    @abstractmethod
    def run_case(self, random: np.random.Generator, seeds: Path, folder: Path) -> int:
        """Damages a copy of a seed in the empty `folder`, reads it, and returns the exit code.

        0 means accepted; 1 and 2 mean refused with a sentence that was printed. All randomness comes from
        `random`, so that a case can be run again. Raises WrongAcceptError; any other exception is a finding.
        """
