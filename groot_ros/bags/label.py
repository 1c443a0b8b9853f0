# SPDX-License-Identifier: Apache-2.0
"""label.json next to a bag: what a person changed about the episode later. The bag itself stays as it is."""

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from groot_ros.config_files import checked, parse_json, read_text
from groot_ros.errors import GrootRosError, choose

LABEL_FILE = 'label.json'
# What is excluded is not converted, and does not count for its task.
LABEL_OUTCOMES = ('success', 'failure', 'excluded')
_MAX_BYTES = 64 << 10


class Label(BaseModel):
    """The changed entries of an episode; an empty one is as it was recorded."""

    model_config = ConfigDict(extra='forbid', frozen=True)

    outcome: str = Field(default='', max_length=20)
    task: str = Field(default='', max_length=2000)
    notes: str = Field(default='', max_length=4000)

    def changes(self) -> dict[str, str]:
        """The entries that are not empty."""
        return {key: value for key, value in self.model_dump().items() if value}


def make_label(**entries: str) -> Label:
    """A label of an order. Raises GrootRosError for an outcome that is not known, and for too long a text."""
    label = checked(Label, entries, 'The label')
    if label.outcome:
        choose('outcome', label.outcome, LABEL_OUTCOMES)
    return label


def read_label(bag: Path) -> dict[str, Any]:
    """The entries that label.json changes; none without the file.

    Raises GrootRosError for a file that cannot be read.
    """
    path = bag / LABEL_FILE
    if not path.exists():
        return {}
    try:
        content = parse_json(read_text(path, _MAX_BYTES))
    except (OSError, ValueError) as error:
        raise GrootRosError(f'{path} cannot be read ({error}): correct it or delete it.') from error
    return checked(Label, content, str(path)).changes()


def write_label(bag: Path, label: Label) -> None:
    """Adds the changes of a label to those that label.json has; the file is replaced at once."""
    merged = Label.model_validate({**read_label(bag), **label.changes()})
    new_file = bag / f'{LABEL_FILE}.new'
    with new_file.open('w') as file:
        file.write(merged.model_dump_json(indent=1, exclude_defaults=True) + '\n')
        file.flush()
        os.fsync(file.fileno())
    new_file.replace(bag / LABEL_FILE)
