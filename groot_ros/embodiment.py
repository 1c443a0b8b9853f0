# SPDX-License-Identifier: Apache-2.0
"""One YAML file says what a row is: state, action, cameras, rate, topics. Everything that needs a layout reads it here."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from groot_ros.config_files import checked, parse_yaml, read_yaml
from groot_ros.errors import GrootRosError
from groot_ros.resources import share_directory

_FIELD_SIZES = {'pose': 7, 'quaternion': 4}
OUTCOME = 'outcome'
# Columns of a dataset's rows, and the key of the 9D pose in modality.json and in GR00T's answers.
STATE_COLUMN = 'observation.state'
ACTION_COLUMN = 'action'
STATE_9D = 'observation.eef_9d'
ACTION_9D = 'action.eef_9d'
EEF_9D = 'eef_9d'
REWARD = 'next.reward'
DONE = 'next.done'


class _Strict(BaseModel):
    model_config = ConfigDict(extra='forbid', frozen=True)


class TopicField(_Strict):
    """Where numbers come from.

    In a bag they are a field of the messages on a topic, sampled at a tick; in a table (HDF5, LeRobot) a column, or some of its
    numbers. `joints` are looked up by name: in a message, or in the embodiment's `column_joint_names`. The value is `scale` times what
    stands there, plus `offset`; `latency_s` is subtracted from a message's stamp.
    """

    topic: str = ''
    field: str = ''
    column: str = ''
    joints: tuple[str, ...] = ()
    indices: tuple[int, ...] = ()
    numbers: int = Field(default=0, ge=0)
    sample: Literal['linear', 'pose', 'nearest', 'hold'] = 'hold'
    latency_s: float = 0.0
    scale: float = 1.0
    offset: float = 0.0

    @property
    def size(self) -> int:
        """How many numbers it gives."""
        return _FIELD_SIZES.get(self.field) or len(self.joints) or len(self.indices) or self.numbers or 1

    @property
    def quaternion(self) -> slice | None:
        """Where its x y z w lie among its numbers, whose sign means nothing; None where it has none."""
        return {'pose': slice(3, 7), 'quaternion': slice(0, 4)}.get(self.field)


class StateField(TopicField):
    """A slice of observation.state."""

    name: str


class ActionField(TopicField):
    """A slice of action.

    `delta_position` and `delta_rotation` are differences of poses, either of the state's pose `of`, or of the target poses of a source
    of their own; `command` is a value that was commanded, `delta` one that the source holds as a difference already.
    """

    name: str
    kind: Literal['delta_position', 'delta_rotation', 'command', 'delta']
    of: str = ''

    @property
    def is_derived(self) -> bool:
        """Whether it is computed of successive poses, so that the last row has none."""
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
        """What has to be sampled for it: the command in force whatever its age, or target poses; None where the state has it."""
        if not (self.topic or self.column):
            return None
        shared = {name: getattr(self, name) for name in TopicField.model_fields}
        return TopicField(**{**shared, 'sample': 'pose' if self.is_derived else 'hold'})


class CameraField(_Strict):
    """One video of the dataset; the first camera gives the ticks. `rate_hz` is what the camera sends, where that is not the dataset's fps.

    `topic` is for bags, `column` for tables. Pictures of another size are letterboxed with black bars when they are converted.
    """

    name: str
    topic: str = ''
    column: str = ''
    width: int
    height: int
    rate_hz: float = Field(default=0.0, ge=0)
    latency_s: float = 0.0

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

    task: str = 'human.action.task_description'
    validity: str = 'human.validity'


class Embodiment(_Strict):
    """The layout of a row, and the topics or columns behind it.

    `eef_9d` names the pose of the state that further columns give as position and first two rows of the rotation, for training
    relative to the state. `reward` is a column of rewards, or `outcome`: 1 in the last row of a success. `tasks` gives the texts of
    tasks that a source only names. `language_key` is GR00T's, where it is not the task annotation.
    """

    name: str
    robot_type: str
    fps: float = Field(gt=0, le=200)
    max_age_s: float = Field(default=0.1, gt=0)
    state: tuple[StateField, ...] = Field(min_length=1)
    action: tuple[ActionField, ...] = Field(min_length=1)
    cameras: tuple[CameraField, ...] = Field(min_length=1)
    annotation: Annotation = Annotation()
    extra_topics: tuple[str, ...] = ()
    expected_rates_hz: dict[str, float] = {}
    column_joint_names: dict[str, tuple[str, ...]] = {}
    tasks: dict[str, str] = {}
    language_key: str = ''
    reward: str = ''
    eef_9d: str = ''

    @model_validator(mode='after')
    def _consistent(self) -> 'Embodiment':
        poses = {field.name for field in self.state if field.field == 'pose'}
        for field in self.action:
            if not field.is_derived and not field.source:
                raise ValueError(
                    f'action {field.name}: a {field.kind} needs a `topic` and `field`, or a `column`'
                )
            if field.is_derived and field.of not in poses and not (field.source and field.field == 'pose'):
                raise ValueError(
                    f'action {field.name}: `of` must name a pose of the state, one of {sorted(poses)}'
                )
        for field in (*self.state, *(action.source for action in self.action if action.source)):
            _check_source(field, self.column_joint_names)
        if self.eef_9d and self.eef_9d not in poses:
            raise ValueError(f'eef_9d must name a pose of the state, one of {sorted(poses)}')
        for names in (
            [f.name for f in self.state],
            [f.name for f in self.action],
            [c.name for c in self.cameras],
        ):
            if len(set(names)) != len(names):
                raise ValueError(f'a name occurs twice among {names}')
        return self

    @property
    def state_slices(self) -> dict[str, slice]:
        """Where each state field lies in observation.state."""
        return _slices(self.state)

    @property
    def quaternion_slices(self) -> list[slice]:
        """Where quaternions x y z w lie in observation.state."""
        found = [(self.state_slices[field.name].start, field.quaternion) for field in self.state]
        return [slice(start + part.start, start + part.stop) for start, part in found if part is not None]

    @property
    def action_slices(self) -> dict[str, slice]:
        """Where each action field lies in action."""
        return _slices(self.action)

    @property
    def state_size(self) -> int:
        """Length of observation.state."""
        return sum(field.size for field in self.state)

    @property
    def action_size(self) -> int:
        """Length of action."""
        return sum(field.size for field in self.action)

    @property
    def pose_part(self) -> slice:
        """Where the first pose lies in observation.state. Raises GrootRosError where there is none."""
        for field in self.state:
            if field.field == 'pose':
                return self.state_slices[field.name]
        raise GrootRosError(f'The embodiment {self.name} has no pose in its state: add one to its YAML.')

    @property
    def commands(self) -> tuple[tuple[ActionField, TopicField, slice], ...]:
        """Actions with a source of their own, that source, and where its numbers lie in the commands of a tick."""
        found, start = [], 0
        for field in self.action:
            if (source := field.source) is not None:
                found.append((field, source, slice(start, start + source.size)))
                start += source.size
        return tuple(found)

    @property
    def commands_size(self) -> int:
        """How many numbers the commands of a tick are."""
        return sum(source.size for _, source, _ in self.commands)

    @property
    def sampled_fields(self) -> list[TopicField]:
        """Everything that is sampled at a tick, cameras left out: the state fields, then the commands."""
        return [*self.state, *(field for _, field, _ in self.commands)]

    @property
    def sampled_topics(self) -> list[str]:
        """Topics of `sampled_fields`, each once. Raises GrootRosError for an embodiment of tables only."""
        fields = self.sampled_fields
        if not all(field.topic for field in [*fields, *self.cameras]):
            raise GrootRosError(
                f'The embodiment {self.name} names no topics, because it is for tables (HDF5, LeRobot): '
                'choose another one for bags and live topics.'
            )
        return list(dict.fromkeys(field.topic for field in fields))

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
        cameras = [{**camera.model_dump(), 'rate_hz': camera.rate_hz or self.fps} for camera in self.cameras]
        return checked(
            Embodiment,
            {**self.model_dump(), 'fps': fps, 'cameras': cameras},
            f'The embodiment {self.name} at {fps:g} frames a second',
        )

    def text(self) -> str:
        """This embodiment as YAML, for bags and datasets."""
        return yaml.safe_dump(self.model_dump(mode='json'), sort_keys=False)


def _check_source(source: TopicField, column_joint_names: dict[str, tuple[str, ...]]) -> None:
    where = source.topic or source.column
    if not where or (source.topic and not source.field):
        raise ValueError(
            f'{getattr(source, "name", where) or "a field"} needs a `topic` and `field`, or a `column`'
        )
    if source.column and source.joints:
        unknown = [joint for joint in source.joints if joint not in column_joint_names.get(source.column, ())]
        if unknown:
            raise ValueError(f'column_joint_names of {source.column} does not name {", ".join(unknown)}')


def load_embodiment(name_or_path: str) -> Embodiment:
    """The embodiment of a YAML file, or of a name in config/embodiments. Raises GrootRosError naming what is wrong.

    A file with `base: NAME` takes everything from that embodiment and changes what it names: entries of state, action and
    cameras by their `name`.
    """
    path = _path_of(name_or_path)
    return _embodiment(read_yaml(path, 'The embodiment'), f'The embodiment {path}')


def parse_embodiment(text: str, where: str) -> Embodiment:
    """The embodiment of a YAML text; `where` names it in errors."""
    return _embodiment(parse_yaml(text, f'The embodiment {where}'), f'The embodiment {where}')


def _embodiment(values: Any, what: str) -> Embodiment:
    bases: list[str] = []
    while isinstance(values, dict) and 'base' in values:
        base = str(values.pop('base'))
        if base in bases:
            raise GrootRosError(f'{what} is its own base, by way of {base}.')
        bases.append(base)
        values = _changed(read_yaml(_path_of(base), 'The embodiment'), values)
    return checked(Embodiment, values, what)


def _path_of(name_or_path: str) -> Path:
    folder = share_directory() / 'config' / 'embodiments'
    path = Path(name_or_path)
    if path.suffix not in ('.yaml', '.yml'):
        path = folder / f'{name_or_path}.yaml'
        if not path.is_file() or path.parent != folder:
            known = ', '.join(sorted(p.stem for p in folder.glob('*.yaml')))
            raise GrootRosError(
                f'There is no embodiment {name_or_path!r}: name one of {known}, or give the path of a YAML file.'
            )
    return path


def _changed(base: Any, changes: Any) -> Any:
    """`base` with the values of `changes`: mappings merge, named entries of lists by their name, anything else is replaced."""
    if isinstance(base, dict) and isinstance(changes, dict):
        return {**base, **{key: _changed(base.get(key), value) for key, value in changes.items()}}
    if _named(base) and _named(changes):
        merged = {entry['name']: entry for entry in base}
        for entry in changes:
            merged[entry['name']] = _changed(merged.get(entry['name']), entry)
        return list(merged.values())
    return changes


def _named(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(entry, dict) and 'name' in entry for entry in value)
    )


def _slices(fields) -> dict[str, slice]:
    start, slices = 0, {}
    for field in fields:
        slices[field.name] = slice(start, start + field.size)
        start += field.size
    return slices
