# SPDX-License-Identifier: Apache-2.0
"""One fine-tuning: which dataset, with which preset, in which Python, into which folder."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from groot_ros.config_files import checked
from groot_ros.dataset.meta import DatasetMeta
from groot_ros.embodiment import Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.training.hold_out import choose_held_out
from groot_ros.training.preset import Preset

# Files of ours in the output folder, next to the trainer's.
RECEIPT_FILE = 'training.json'
LOG_FILE = 'training.log'
LOCK_FILE = '.training.lock'


@dataclass
class FinetuneJob:
    """What is asked for.

    `python` is the interpreter that has the trainer's libraries. `hold_out` is the share of the episodes,
    0 to 1, that is not trained on.
    """

    dataset: Path
    output: Path
    preset: Preset
    python: str
    resume: bool = False
    hold_out: float = 0.0

    @cached_property
    def meta(self) -> DatasetMeta:
        """The meta/ of the dataset, read once."""
        return DatasetMeta(self.dataset)

    @cached_property
    def held_out(self) -> list[int]:
        """Indices of the episodes that are not trained on. Raises GrootRosError if none would be left."""
        return choose_held_out(self.meta, self.hold_out)

    @cached_property
    def embodiment(self) -> Embodiment:
        """The embodiment that the converter noted in the dataset. Raises GrootRosError if there is none."""
        noted = self.meta.conversion.get('embodiment')
        if not isinstance(noted, dict):
            raise GrootRosError(
                f'{self.dataset}/meta/conversion.json names no embodiment: convert the dataset with '
                'groot-ros convert.'
            )
        return checked(Embodiment, noted, f'The embodiment in {self.dataset}/meta/conversion.json')


@dataclass(frozen=True)
class TrainerCommand:
    """What is started: the arguments, additions to the environment, and files that are written first.

    `files` maps names in the output folder to their texts.
    """

    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
