# SPDX-License-Identifier: Apache-2.0
"""The list of tasks that an operator demonstrates, and how often each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from groot_ros.config_files import checked, read_yaml


class Task(BaseModel):
    """A task in words, as in the language column, and how many usable episodes of it are wanted."""

    model_config = ConfigDict(extra='forbid', frozen=True)

    text: str = Field(min_length=1, max_length=2000)
    count: int = Field(default=1, ge=1, le=1_000_000)


class TaskList(BaseModel):
    """Tasks, and their order: `alternate` between them, or in `blocks`, one after the other is finished."""

    model_config = ConfigDict(extra='forbid')

    tasks: list[Task] = Field(min_length=1)
    order: Literal['alternate', 'blocks'] = 'alternate'


@dataclass
class TaskProgress:
    """A task, and how many usable episodes of it exist."""

    task: Task
    done: int


def load_tasks(path: Path) -> TaskList:
    """The task list of a YAML file such as `tasks: [{text: ..., count: 20}]`.

    Raises GrootRosError if the file cannot be read or has a wrong form.
    """
    return checked(TaskList, read_yaml(path, 'The task list'), f'The task list {path}')


def next_task(task_list: TaskList, done: dict[str, int]) -> TaskProgress | None:
    """The next task of the list; None if all are done. `done` is the number of usable episodes by task text.

    In blocks it is the first unfinished task. Otherwise it is the one with the lowest share of its wanted
    episodes, the first among equals: that keeps the data balanced, even if the list is not completed.
    """
    progress = [TaskProgress(task, done.get(task.text, 0)) for task in task_list.tasks]
    unfinished = [entry for entry in progress if entry.done < entry.task.count]
    if task_list.order == 'blocks':
        return next(iter(unfinished), None)
    return min(unfinished, key=lambda entry: entry.done / entry.task.count, default=None)
