# SPDX-License-Identifier: Apache-2.0
"""The orders that a page may send, and the limits of their values. Nothing else reaches a node."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from groot_ros.config_files import parse_json
from groot_ros.errors import GrootRosError

MAX_ORDER_BYTES = 64 << 10
_MAX_TASK_LENGTH = 2000  # as in a task list

TaskText = Annotated[str, StringConstraints(max_length=_MAX_TASK_LENGTH, strip_whitespace=True)]
Notes = Annotated[str, StringConstraints(max_length=_MAX_TASK_LENGTH, strip_whitespace=True)]
EpisodeName = Annotated[str, StringConstraints(pattern=r'^episode_[0-9]{6}$')]


class Order(BaseModel):
    """What every order has: a number of the page's own, which the answer repeats."""

    model_config = ConfigDict(extra='forbid')

    number: int = Field(ge=0, le=2**53)


class StopArm(Order):
    """Disables the arm. Every page may send it."""

    order: Literal['stop_arm']


class StopPolicy(Order):
    """Ends a run of the policy. Every page may send it."""

    order: Literal['stop_policy']


class TakeControl(Order):
    """Makes this page the one that controls."""

    order: Literal['take_control']


class EnableArm(Order):
    """Enables the arm: commands move it."""

    order: Literal['enable_arm']


class RecoverArm(Order):
    """Recovers from a protective stop or a released emergency stop."""

    order: Literal['recover_arm']


class CheckReady(Order):
    """Asks the recorder whether an episode could start."""

    order: Literal['preflight']


class StartEpisode(Order):
    """Starts an episode; without a task, of the next task."""

    order: Literal['start_episode']
    task: TaskText = ''
    operator_name: Annotated[str, StringConstraints(max_length=200, strip_whitespace=True)] = ''


class StopEpisode(Order):
    """Saves the episode as a success or a failure."""

    order: Literal['stop_episode']
    succeeded: bool
    notes: Notes = ''


class PauseEpisode(Order):
    """Pauses the episode, or goes on with it."""

    order: Literal['pause_episode']
    on: bool


class RedoEpisode(Order):
    """Discards the episode and starts it again."""

    order: Literal['redo_episode']


class DiscardEpisode(Order):
    """Discards the episode."""

    order: Literal['discard_episode']


class NextTask(Order):
    """Goes on to another open task of the task list."""

    order: Literal['next_task']


class SkipTask(Order):
    """Leaves the next task of the task list out."""

    order: Literal['skip_task']


class RelabelEpisode(Order):
    """Changes outcome or notes of a saved episode; an empty text keeps what is written."""

    order: Literal['relabel_episode']
    episode: EpisodeName
    outcome: Literal['', 'success', 'failure', 'excluded'] = ''
    notes: Notes = ''


class DeleteEpisode(Order):
    """Deletes a saved episode for good."""

    order: Literal['delete_episode']
    episode: EpisodeName


AnyOrder = Annotated[
    StopArm
    | StopPolicy
    | TakeControl
    | EnableArm
    | RecoverArm
    | CheckReady
    | StartEpisode
    | StopEpisode
    | PauseEpisode
    | RedoEpisode
    | DiscardEpisode
    | NextTask
    | SkipTask
    | RelabelEpisode
    | DeleteEpisode,
    Field(discriminator='order'),
]
_ADAPTER: TypeAdapter[Any] = TypeAdapter(AnyOrder)
# Stopping needs no control: whoever sees that something goes wrong may stop it.
FREE_ORDERS = ('stop_arm', 'stop_policy', 'take_control')


class OrderError(GrootRosError):
    """An order that cannot be read; `number` is that of the order where it is known, else -1."""

    def __init__(self, text: str, number: int = -1) -> None:
        super().__init__(text)
        self.number = number


def parse_order(text: str) -> Any:
    """The order in a JSON text. Raises OrderError, with the value that is wrong, in one sentence."""
    try:
        content = parse_json(text)
    except ValueError as error:
        raise OrderError(f'The order is not JSON ({error}).') from error
    number = content.get('number') if isinstance(content, dict) else None
    known_number = number if isinstance(number, int) else -1
    try:
        return _ADAPTER.validate_python(content)
    except ValidationError as error:
        raise OrderError(_sentence(error), known_number) from error


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    key = '.'.join(str(part) for part in first['loc'][1:]) or 'order'
    return f'The order is refused at {key}: {first["msg"].removeprefix("Value error, ")}.'
