# SPDX-License-Identifier: Apache-2.0
"""The list of tasks that an operator works through: what to show, and how often."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from groot_ros.config_files import checked, read_yaml


class Task(BaseModel):
    """A text for the language column, and how many good episodes of it are wanted."""

    model_config = ConfigDict(extra='forbid', frozen=True)

    text: str = Field(min_length=1, max_length=2000)
    count: int = Field(default=1, ge=1)


class _File(BaseModel):
    model_config = ConfigDict(extra='forbid')

    tasks: list[Task] = Field(min_length=1)


@dataclass
class TaskProgress:
    """A task, and how many good episodes of it there are."""

    task: Task
    done: int


def load_tasks(path: Path) -> list[Task]:
    """The tasks of a YAML file like `tasks: [{text: ..., count: 20}]`.

    Raises GrootRosError naming what is wrong with it.
    """
    return checked(_File, read_yaml(path, 'The task list'), f'The task list {path}').tasks


def next_task(tasks: list[Task], done: dict[str, int]) -> TaskProgress | None:
    """The task that lacks the largest share of its episodes, the first of the list among equals; None where all is done.

    Going round the list keeps the data even, should the day end early.
    """
    lacking = [
        TaskProgress(task, done.get(task.text, 0)) for task in tasks if done.get(task.text, 0) < task.count
    ]
    return min(lacking, key=lambda progress: progress.done / progress.task.count, default=None)
