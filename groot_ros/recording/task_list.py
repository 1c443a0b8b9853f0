# SPDX-License-Identifier: Apache-2.0
"""The list of tasks that an operator demonstrates, and how often each."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from groot_ros.config_files import checked, read_yaml


class Task(BaseModel):
    """A task in words, as in the language column, and how many usable episodes of it are wanted."""

    model_config = ConfigDict(extra='forbid', frozen=True)

    text: str = Field(min_length=1, max_length=2000)
    count: int = Field(default=1, ge=1, le=1_000_000)


class _File(BaseModel):
    model_config = ConfigDict(extra='forbid')

    tasks: list[Task] = Field(min_length=1)


@dataclass
class TaskProgress:
    """A task, and how many usable episodes of it exist."""

    task: Task
    done: int


def load_tasks(path: Path) -> list[Task]:
    """The tasks of a YAML file such as `tasks: [{text: ..., count: 20}]`.

    Raises GrootRosError if the file cannot be read or has a wrong form.
    """
    return checked(_File, read_yaml(path, 'The task list'), f'The task list {path}').tasks


def next_task(tasks: list[Task], done: dict[str, int]) -> TaskProgress | None:
    """The task with the lowest share of its wanted episodes, the first among equals; None if all are done.

    `done` is the number of usable episodes by task text. Alternating the tasks keeps the data balanced, even
    if the list is not completed.
    """
    progress = [TaskProgress(task, done.get(task.text, 0)) for task in tasks]
    unfinished = [entry for entry in progress if entry.done < entry.task.count]
    return min(unfinished, key=lambda entry: entry.done / entry.task.count, default=None)
