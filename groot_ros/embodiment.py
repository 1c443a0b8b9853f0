"""One YAML file says what a row is: state, action, cameras, rate, topics. Everything that needs a layout reads it here."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from groot_ros.errors import GrootRosError
from groot_ros.resources import share_directory
from groot_ros.yaml_files import checked, parse_yaml, read_yaml

POSE_SIZE = 7


class _Strict(BaseModel):
    model_config = ConfigDict(extra='forbid', frozen=True)


class Source(_Strict):
    """Where numbers come from: a field of the messages on a topic, and how it is sampled at a tick.

    The value is `scale` times what the message says, plus `offset`; `latency_s` is subtracted from its stamp.
    """

    topic: str
    field: str
    joints: tuple[str, ...] = ()
    sample: Literal['linear', 'pose', 'nearest', 'hold'] = 'hold'
    latency_s: float = 0.0
    scale: float = 1.0
    offset: float = 0.0

    @property
    def size(self) -> int:
        """How many numbers it gives."""
        return POSE_SIZE if self.field == 'pose' else len(self.joints) or 1


class StateField(Source):
    """A slice of observation.state."""

    name: str


class ActionField(_Strict):
    """A slice of action: a difference of a pose in the state, or a commanded number."""

    name: str
    kind: Literal['delta_position', 'delta_rotation', 'command']
    of: str = ''
    topic: str = ''
    field: str = ''
    joints: tuple[str, ...] = ()
    latency_s: float = 0.0
    scale: float = 1.0
    offset: float = 0.0

    @property
    def size(self) -> int:
        """How many numbers it gives."""
        return 1 if self.kind == 'command' else 3

    @property
    def absolute(self) -> bool:
        """False for a difference to the row before: GR00T N1.5 pads those with zeros."""
        return self.kind == 'command'

    @property
    def source(self) -> Source:
        """Where a command comes from: the value in force, whatever its age."""
        shared = {key: getattr(self, key) for key in ('topic', 'field', 'joints', 'latency_s', 'scale', 'offset')}
        return Source(**shared, sample='hold')


class CameraField(_Strict):
    """One video of the dataset; the first camera gives the ticks. `rate_hz` is what the camera sends, where that is not the dataset's fps."""

    name: str
    topic: str
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
    """The layout of a row and the topics behind it."""

    name: str
    robot_type: str
    fps: float = Field(gt=0, le=200)
    max_age_s: float = Field(default=0.1, gt=0)
    state: tuple[StateField, ...] = Field(min_length=1)
    action: tuple[ActionField, ...] = Field(min_length=1)
    cameras: tuple[CameraField, ...] = Field(min_length=1)
    annotation: Annotation = Annotation()
    also_record: tuple[str, ...] = ()
    rates_hz: dict[str, float] = {}

    @model_validator(mode='after')
    def _consistent(self) -> 'Embodiment':
        poses = {field.name for field in self.state if field.field == 'pose'}
        for field in self.action:
            if field.kind == 'command' and not (field.topic and field.field):
                raise ValueError(f'action {field.name}: a command needs `topic` and `field`')
            if field.kind != 'command' and field.of not in poses:
                raise ValueError(f'action {field.name}: `of` must name a pose of the state, one of {sorted(poses)}')
        for names in ([f.name for f in self.state], [f.name for f in self.action], [c.name for c in self.cameras]):
            if len(set(names)) != len(names):
                raise ValueError(f'a name occurs twice among {names}')
        return self

    @property
    def state_slices(self) -> dict[str, slice]:
        """Where each state field lies in observation.state."""
        return _slices(self.state)

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

    def action_part(self, kind: str) -> slice:
        """Where the first action of a kind lies in action. Raises GrootRosError where there is none."""
        for field in self.action:
            if field.kind == kind:
                return self.action_slices[field.name]
        raise GrootRosError(f'The embodiment {self.name} has no action of kind {kind}: add one to its YAML.')

    @property
    def pose_part(self) -> slice:
        """Where the first pose lies in observation.state. Raises GrootRosError where there is none."""
        for field in self.state:
            if field.field == 'pose':
                return self.state_slices[field.name]
        raise GrootRosError(f'The embodiment {self.name} has no pose in its state: add one to its YAML.')

    @property
    def row_topics(self) -> list[str]:
        """Topics that rows are sampled from, cameras left out."""
        commands = [field.topic for field in self.action if field.kind == 'command']
        return list(dict.fromkeys([*(field.topic for field in self.state), *commands]))

    def expected_hz(self, topic: str) -> float:
        """The rate at which a topic should come, 0 where the embodiment does not say."""
        for camera in self.cameras:
            if camera.topic == topic:
                return camera.rate_hz or self.fps
        return self.rates_hz.get(topic, 0.0)

    def at_fps(self, fps: float) -> 'Embodiment':
        """The same rows at another rate; the cameras keep theirs."""
        cameras = [{**camera.model_dump(), 'rate_hz': camera.rate_hz or self.fps} for camera in self.cameras]
        return checked(Embodiment, {**self.model_dump(), 'fps': fps, 'cameras': cameras}, f'The embodiment {self.name} at {fps:g} frames a second')

    def text(self) -> str:
        """This embodiment as YAML, for bags and datasets."""
        return yaml.safe_dump(self.model_dump(mode='json'), sort_keys=False)


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
            raise GrootRosError(f'There is no embodiment {name_or_path!r}: name one of {known}, or give the path of a YAML file.')
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
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) and 'name' in entry for entry in value)


def _slices(fields) -> dict[str, slice]:
    start, slices = 0, {}
    for field in fields:
        slices[field.name] = slice(start, start + field.size)
        start += field.size
    return slices
