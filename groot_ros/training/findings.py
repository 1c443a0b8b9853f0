# SPDX-License-Identifier: Apache-2.0
"""What a check before training found: its name, by which it can be allowed, and one sentence."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingProblem:
    """One reason not to start. `check` is its name, `text` says what is wrong and what to do."""

    check: str
    text: str

    def __str__(self) -> str:
        return f'{self.text} ({self.check})'
