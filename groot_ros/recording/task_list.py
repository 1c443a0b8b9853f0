# SPDX-License-Identifier: Apache-2.0
"""The list of tasks that an operator demonstrates, and how often each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from groot_ros.config_files import checked, read_yaml
from groot_ros.errors import GrootRosError

# Longer texts do not fit into the language column of a model.
MAX_TASK_LENGTH = 2000


class Task(BaseModel):
    """A task in words, as in the language column, and how many usable episodes of it are wanted."""

    model_config = ConfigDict(extra='forbid', frozen=True)

    text: str = Field(min_length=1, max_length=MAX_TASK_LENGTH)
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


class TaskQueue:
    """Chooses the task of the next episode. `done` is always the number of usable episodes by task text.

    A person may ask for another task than the order gives (`advance`), or leave a task out (`skip`).
    """

    def __init__(self, task_list: TaskList) -> None:
        self._task_list = task_list
        self._skipped: set[str] = set()
        self._asked: TaskProgress | None = None

    def next_task(self, done: dict[str, int]) -> TaskProgress | None:
        """The next task of the list; None if all are done or left out.

        In blocks it is the first unfinished task. Otherwise it is the one with the lowest share of its wanted
        episodes, the first among equals: that keeps the data balanced, even if the list is not completed.
        A task that `advance` gave stays until one usable episode of it is saved; in blocks, until it is done.
        """
        open_tasks = self._open_tasks(done)
        asked = self._asked_for(open_tasks)
        if asked is not None:
            return asked
        if self._task_list.order == 'blocks':
            return next(iter(open_tasks), None)
        return min(open_tasks, key=lambda entry: entry.done / entry.task.count, default=None)

    def advance(self, done: dict[str, int]) -> TaskProgress:
        """Goes on to the open task after the next one, in the order of the list; after the last, the first.

        Raises GrootRosError if there is no other.
        """
        current = self._current(done)
        open_tasks = self._open_tasks(done)
        if len(open_tasks) < 2:
            raise GrootRosError(f'{current.task.text!r} is the only task that is left.')
        after = (open_tasks.index(current) + 1) % len(open_tasks)
        self._asked = open_tasks[after]
        return self._asked

    def skip(self, done: dict[str, int]) -> TaskProgress:
        """Leaves the next task out from now on, and returns it. Raises GrootRosError if there is none."""
        skipped = self._current(done)
        self._skipped.add(skipped.task.text)
        return skipped

    def progress(self, done: dict[str, int]) -> list[TaskProgress]:
        """All tasks of the list in its order, also those that are done or left out."""
        return [TaskProgress(task, done.get(task.text, 0)) for task in self._task_list.tasks]

    def _current(self, done: dict[str, int]) -> TaskProgress:
        current = self.next_task(done)
        if current is None:
            raise GrootRosError(f'The task list is done{self.left_out()}.')
        return current

    def left_out(self) -> str:
        """A clause that names the tasks that were skipped; empty if none was."""
        if not self._skipped:
            return ''
        return f', but for what was skipped: {", ".join(sorted(self._skipped))}'

    def _open_tasks(self, done: dict[str, int]) -> list[TaskProgress]:
        wanted = [task for task in self._task_list.tasks if task.text not in self._skipped]
        progress = [TaskProgress(task, done.get(task.text, 0)) for task in wanted]
        return [entry for entry in progress if entry.done < entry.task.count]

    def _asked_for(self, open_tasks: list[TaskProgress]) -> TaskProgress | None:
        """The task that a person asked for, while it still holds."""
        if self._asked is None:
            return None
        for entry in open_tasks:
            if entry.task != self._asked.task:
                continue
            if entry.done == self._asked.done or self._task_list.order == 'blocks':
                return entry
        return None
