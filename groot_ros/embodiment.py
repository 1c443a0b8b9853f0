# SPDX-License-Identifier: Apache-2.0
"""What a row is, in one YAML file: state, action, cameras, rate, topics.

Everything that needs a layout reads it here.
"""

from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from groot_ros.config_files import checked, parse_yaml, read_yaml
from groot_ros.embodiment_file import embodiment_path, with_bases
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array

_FIELD_SIZES = {'pose': 7, 'quaternion': 4}
OUTCOME = 'outcome'
# Columns of a dataset's rows, and the key of the 9D pose in modality.json and in GR00T's answers.
STATE_COLUMN = 'observation.state'
ACTION_COLUMN = 'action'
STATE_9D = 'observation.eef_9d'
ACTION_9D = 'action.eef_9d'
EEF_9D = 'eef_9d'
EEF_6D = 'eef_6d'
REWARD = 'next.reward'
DONE = 'next.done'
_MAX_SIZE = 10_000
_UNIT_TOLERANCE = 1e-3


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError('a text must be one line of printable characters')
    return text


# Names become keys, folders and identifiers of Python code.
Name = Annotated[str, StringConstraints(pattern=r'^[A-Za-z][A-Za-z0-9_]*$', max_length=100)]
Text = Annotated[str, StringConstraints(max_length=1000), AfterValidator(_printable)]
Index = Annotated[int, Field(ge=0, lt=_MAX_SIZE)]
# The encoders take even sizes only.
Pixels = Annotated[int, Field(ge=16, le=8192, multiple_of=2)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra='forbid', frozen=True, allow_inf_nan=False)


class TopicField(_Strict):
    """Where the numbers of a field come from.

    In a bag they are a field of the messages on a topic, sampled at a tick; in a table (HDF5, LeRobot) they
    are a column, or some of its numbers. `joints` are looked up by name: in a message, or in the embodiment's
    `column_joint_names`. The value is `scale` times the source's number plus `offset`; `obs_latency_s` is
    subtracted from a message's stamp.
    """

    topic: Text = ''
    field: Text = ''
    column: Text = ''
    joints: tuple[Text, ...] = Field(default=(), max_length=_MAX_SIZE)
    indices: tuple[Index, ...] = Field(default=(), max_length=_MAX_SIZE)
    declared_size: int = Field(default=0, ge=0, le=_MAX_SIZE, alias='size')
    sample: Literal['linear', 'pose', 'nearest', 'hold'] = 'hold'
    obs_latency_s: float = 0.0
    scale: float = 1.0
    offset: float = 0.0

    @property
    def size(self) -> int:
        """How many numbers it gives, by its field, joints or indices, else as declared."""
        known = _FIELD_SIZES.get(self.field) or len(self.joints) or len(self.indices)
        return known or self.declared_size or 1

    @property
    def quaternion(self) -> slice | None:
        """Which of its numbers are a quaternion x y z w, whose sign is arbitrary; None where it has none."""
        return {'pose': slice(3, 7), 'quaternion': slice(0, 4)}.get(self.field)


class StateField(TopicField):
    """A named slice of observation.state, sampled from a topic or taken from a column."""

    name: Name


class ActionField(TopicField):
    """A slice of action.

    `delta_position` and `delta_rotation` are differences of successive poses: of the state's pose named
    `pose`, or of target poses, where the action has a topic or column of its own. `command` is a value that
    was commanded. `delta` is a difference that the source already holds.
    """

    name: Name
    kind: Literal['delta_position', 'delta_rotation', 'command', 'delta']
    pose: Text = ''

    @property
    def is_derived(self) -> bool:
        """Whether it is computed from successive poses, so that the last sample of an episode has none."""
        return self.kind in ('delta_position', 'delta_rotation')

    @property
    def size(self) -> int:
        """How many numbers it gives."""
        return 3 if self.is_derived else super().size

    @property
    def absolute(self) -> bool:
        """False for a difference to the row before: GR00T N1.5 pads those with zeros."""
        return self.kind == 'command'

    @property
    def source(self) -> TopicField | None:
        """What has to be sampled for it; None where it is computed from the state.

        A command is the last one, whatever its age; target poses are interpolated.
        """
        if not (self.topic or self.column):
            return None
        shared = self.model_dump(include=set(TopicField.model_fields), by_alias=True)
        sample = 'pose' if self.is_derived else 'hold'
        return TopicField.model_validate({**shared, 'sample': sample})


class Mount(_Strict):
    """Where a camera is: its optical frame (z forward, x right) in `frame`.

    `frame` is `base`, or `tool0_controller` for a camera at the TCP. `position` is x y z in m,
    `orientation` a unit quaternion x y z w.
    """

    frame: Literal['base', 'tool0_controller'] = 'base'
    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float]

    @model_validator(mode='after')
    def _unit(self) -> 'Mount':
        if abs(float(np.linalg.norm(self.orientation)) - 1.0) > _UNIT_TOLERANCE:
            raise ValueError('orientation must be a unit quaternion x y z w')
        return self

    @property
    def pose(self) -> Array:
        """Position and orientation in one (7,)."""
        return np.array([*self.position, *self.orientation])


class CameraField(_Strict):
    """One video of the dataset. The first camera gives the ticks.

    `topic` is for bags, `column` for tables. `rate_hz` is the rate of the camera where it is not the
    dataset's fps. Images of another size are letterboxed with black bars in the conversion. `mount` is known
    for a calibrated camera only.
    """

    name: Name
    topic: Text = ''
    column: Text = ''
    width: Pixels
    height: Pixels
    rate_hz: float = Field(default=0.0, ge=0, le=1000)
    obs_latency_s: float = 0.0
    mount: Mount | None = None

    @property
    def feature(self) -> str:
        """Name of the dataset's column, such as observation.images.zed_camera."""
        return f'observation.images.{self.name}'

    @property
    def video_topic(self) -> str:
        """Topic of the encoded video in a bag."""
        return f'video/{self.name}'


class Annotation(_Strict):
    """Keys of the language columns, without the leading `annotation.`."""

    task: Text = 'human.action.task_description'
    validity: Text = 'human.validity'


class Embodiment(_Strict):
    """The layout of a row, and the topics or columns that its numbers come from.

    `eef_9d` names a pose of the state that is also stored as position and first two rows of the rotation, for
    training relative to the state. `reward` is a column of rewards, or `outcome`: 1 in the last row of a
    success. `tasks` gives the texts of tasks that a source only names. `language_key` is GR00T's, where it is
    not the task annotation.
    """

    name: Name
    robot_type: Text
    fps: float = Field(ge=1, le=200)
    max_age_s: float = Field(default=0.1, gt=0)
    state: tuple[StateField, ...] = Field(min_length=1, max_length=_MAX_SIZE)
    action: tuple[ActionField, ...] = Field(min_length=1, max_length=_MAX_SIZE)
    cameras: tuple[CameraField, ...] = Field(min_length=1, max_length=100)
    annotation: Annotation = Annotation()
    extra_topics: tuple[Text, ...] = ()
    expected_rates_hz: dict[Text, float] = {}
    column_joint_names: dict[Text, tuple[Text, ...]] = {}
    tasks: dict[Text, Text] = {}
    language_key: Text = ''
    reward: Text = ''
    eef_9d: Text = ''

    @model_validator(mode='after')
    def _consistent(self) -> 'Embodiment':
        poses = sorted(field.name for field in self.state if field.field == 'pose')
        for action in self.action:
            _check_action(action, poses)
        for field in self.sampled_fields:
            _check_source(field, self.column_joint_names)
        if self.eef_9d and self.eef_9d not in poses:
            raise ValueError(f'eef_9d must name a pose of the state, one of {poses}')
        if max(self.state_size, self.action_size) > _MAX_SIZE:
            raise ValueError(f'state and action have at most {_MAX_SIZE} numbers')
        for fields in (self.state, self.action, self.cameras):
            names = [field.name for field in fields]
            if len(set(names)) != len(names):
                raise ValueError(f'a name occurs twice among {names}')
        return self

    @property
    def state_slices(self) -> dict[str, slice]:
        """The slice of observation.state that each state field is."""
        return _slices(self.state)

    @property
    def quaternion_slices(self) -> list[slice]:
        """The slices of observation.state that are quaternions x y z w."""
        found = []
        for field in self.state:
            start = self.state_slices[field.name].start
            if field.quaternion is not None:
                found.append(slice(start + field.quaternion.start, start + field.quaternion.stop))
        return found

    @property
    def action_slices(self) -> dict[str, slice]:
        """The slice of action that each action field is."""
        return _slices(self.action)

    @property
    def state_size(self) -> int:
        """The number of values in observation.state, over all its fields."""
        return sum(field.size for field in self.state)

    @property
    def action_size(self) -> int:
        """The number of values in action, over all its fields."""
        return sum(field.size for field in self.action)

    @property
    def pose_part(self) -> slice:
        """The slice of observation.state that is its first pose. Raises GrootRosError where there is none."""
        for field in self.state:
            if field.field == 'pose':
                return self.state_slices[field.name]
        raise GrootRosError(
            f'The embodiment {self.name} has no pose in its state: add one with `field: pose` to its YAML.'
        )

    # Cached from here on: the recorder asks at each message. model_copy copies these too, so that it may not
    # change states or actions.
    @cached_property
    def commands(self) -> tuple[tuple[ActionField, TopicField, slice], ...]:
        """Actions with a source: the action, what is sampled, and its slice of a tick's commands."""
        found = []
        start = 0
        for action in self.action:
            source = action.source
            if source is not None:
                found.append((action, source, slice(start, start + source.size)))
                start += source.size
        return tuple(found)

    @cached_property
    def commands_size(self) -> int:
        """How many numbers the commands of a tick are."""
        return sum(source.size for _, source, _ in self.commands)

    @cached_property
    def sampled_fields(self) -> tuple[TopicField, ...]:
        """Everything that is sampled at a tick, cameras left out: the state fields, then the commands."""
        return (*self.state, *(field for _, field, _ in self.commands))

    @cached_property
    def sampled_topics(self) -> tuple[str, ...]:
        """Topics of `sampled_fields`, each once. Raises GrootRosError for an embodiment of tables only."""
        fields = self.sampled_fields
        if not all(field.topic for field in [*fields, *self.cameras]):
            raise GrootRosError(
                f'The embodiment {self.name} names no topics, because it is for tables (HDF5, LeRobot): '
                'choose another one for bags and live topics.'
            )
        return tuple(dict.fromkeys(field.topic for field in fields))

    @property
    def required_topics(self) -> list[str]:
        """Topics without which there is no row: those of states and commands, and the cameras."""
        return [*self.sampled_topics, *(camera.topic for camera in self.cameras)]

    @property
    def language(self) -> str:
        """The key of GR00T's language modality."""
        return self.language_key or f'annotation.{self.annotation.task}'

    def expected_hz(self, topic: str) -> float:
        """The rate at which a topic should come, 0 where the embodiment does not say."""
        for camera in self.cameras:
            if camera.topic == topic:
                return camera.rate_hz or self.fps
        return self.expected_rates_hz.get(topic, 0.0)

    def at_fps(self, fps: float) -> 'Embodiment':
        """The same rows at another rate; the cameras keep theirs."""
        values = self.values()
        values['fps'] = fps
        for camera in values['cameras']:
            camera['rate_hz'] = camera['rate_hz'] or self.fps
        return checked(Embodiment, values, f'The embodiment {self.name} at {fps:g} frames per second')

    def values(self) -> dict[str, Any]:
        """What its YAML file would hold, with every default."""
        return self.model_dump(mode='json', by_alias=True)

    def text(self) -> str:
        """This embodiment as YAML, for bags and datasets."""
        return yaml.safe_dump(self.values(), sort_keys=False)


def _check_action(action: ActionField, poses: list[str]) -> None:
    if not action.is_derived:
        if action.source is None:
            raise ValueError(
                f'action {action.name}: a {action.kind} needs a `topic` and `field`, or a `column`'
            )
        return
    has_target_poses = action.source is not None and action.field == 'pose'
    if action.pose not in poses and not has_target_poses:
        raise ValueError(f'action {action.name}: `pose` must name a pose of the state, one of {poses}')


def _check_source(field: TopicField, column_joint_names: dict[str, tuple[str, ...]]) -> None:
    where = field.topic or field.column
    if not where or (field.topic and not field.field):
        name = getattr(field, 'name', where) or 'a field'
        raise ValueError(f'{name} needs a `topic` and `field`, or a `column`')
    if field.column:
        named = column_joint_names.get(field.column, ())
        unknown = [joint for joint in field.joints if joint not in named]
        if unknown:
            raise ValueError(f'column_joint_names of {field.column} does not name {", ".join(unknown)}')


def load_embodiment(name_or_path: str) -> Embodiment:
    """The embodiment of a YAML file, or of a name in config/embodiments.

    Raises GrootRosError naming what is wrong.

    A file with `base: NAME` takes everything from that embodiment and changes what it names: entries of
    state, action and cameras by their `name`.
    """
    path = embodiment_path(name_or_path)
    what = f'The embodiment {path}'
    return checked(Embodiment, with_bases(read_yaml(path, 'The embodiment'), what), what)


def parse_embodiment(text: str, where: str) -> Embodiment:
    """The embodiment of a YAML text. It has no `base`: a bag must not name files of this machine.

    `where` names it in the GrootRosError that is raised for a wrong one.
    """
    what = f'The embodiment {where}'
    return checked(Embodiment, parse_yaml(text, what), what)


def _slices(fields: Iterable[StateField | ActionField]) -> dict[str, slice]:
    start = 0
    slices = {}
    for field in fields:
        slices[field.name] = slice(start, start + field.size)
        start += field.size
    return slices
