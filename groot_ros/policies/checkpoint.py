# SPDX-License-Identifier: Apache-2.0
"""Reads what a checkpoint folder says about its model, without the libraries that made it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, RootModel, StringConstraints

from groot_ros.config_files import Model, checked
from groot_ros.embodiment import ACTION_COLUMN, EEF_6D, EEF_9D, STATE_COLUMN, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.inference.backends import BACKENDS, GR00T, LEROBOT, SMALL
from groot_ros.inference.checkpoint_files import backend_of, find_file, read_json_object
from groot_ros.inference.protocol import Modality
from groot_ros.policies.remote_policy import mismatches
from groot_ros.small_policy.spec import SPEC_FILE, PolicySpec

_POSE_SIZES = {EEF_9D: 9, EEF_6D: 6}
_MODALITIES = ('video', 'state', 'action', 'language')
_GR00T_VERSIONS = {'Gr00tN1d7Processor': 'GR00T N1.7', 'Gr00tN1d6Processor': 'GR00T N1.6'}
_NOTED_SETTINGS = (
    'use_percentiles',
    'clip_outliers',
    'shortest_image_edge',
    'crop_fraction',
    'max_action_horizon',
)
_MAX_NOTE = 200
# One line, since it is printed.
_Key = Annotated[str, StringConstraints(pattern=r'^[^\x00-\x1f]*$', max_length=300)]
_Step = Annotated[int, Field(ge=-1000, le=1000)]
_Steps = Annotated[int, Field(ge=1, le=1000)]
_Size = Annotated[int, Field(ge=0, le=100_000)]


@dataclass
class Checkpoint:
    """A model for one embodiment tag.

    `model_label` is the GR00T version, such as "GR00T N1.7", or LeRobot and the type of its policy. `sizes`
    has the size of each key by modality, as far as the checkpoint says it.
    """

    path: Path
    backend: str
    model_label: str
    tag: str = ''
    modalities: dict[str, Modality] = field(default_factory=dict)
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def mismatches(self, embodiment: Embodiment) -> list[str]:
        """The differences from an embodiment, one text for each key; empty if the checkpoint fits."""
        if self.backend == LEROBOT:
            return _lerobot_mismatches(self, embodiment)
        found = mismatches(self.modalities, embodiment) if self.modalities else []
        for modality, slices in (('state', embodiment.state_slices), ('action', embodiment.action_slices)):
            known = _sizes_of_slices(slices) | _POSE_SIZES
            for key, size in self.sizes.get(modality, {}).items():
                if known.get(key, size) != size:
                    found.append(f'{modality} {key} has {size} numbers where the embodiment has {known[key]}')
        return found

    def summary_lines(self, embodiment: Embodiment) -> list[str]:
        """A table of the checkpoint next to the embodiment, for the terminal."""
        tag = f', tag {self.tag}' if self.tag else ''
        lines = [f'{self.path.name}: {self.model_label}, for the backend {self.backend}{tag}']
        available = _describe_embodiment(embodiment)
        for name, modality in self.modalities.items():
            lines.append(f'{name}: {_describe_steps(modality.delta_indices)}')
            sizes = self.sizes.get(name, {})
            for number, key in enumerate(modality.keys):
                size = str(sizes.get(key, '?'))
                representation = _describe_action(modality.actions[number : number + 1])
                match = available[name].get(key, 'NOT IN THE EMBODIMENT')
                lines.append(f'  {key:34} {size:>8}  {representation:28} {match}')
        return [*lines, *(f'  {note}' for note in self.notes)]

    def as_dict(self) -> dict[str, Any]:
        """The content of the file of `--json`."""
        return {
            'path': str(self.path),
            'backend': self.backend,
            'model_label': self.model_label,
            'tag': self.tag,
            'modalities': {name: vars(modality) for name, modality in self.modalities.items()},
            'sizes': self.sizes,
            'notes': self.notes,
        }


def read_checkpoint(folder: Path, tag: str = 'new_embodiment') -> Checkpoint:
    """Reads a checkpoint of GR00T (N1.5, N1.6, N1.7), of LeRobot, or of the small policy.

    Raises GrootRosError if the folder is not a checkpoint or does not have the embodiment tag.
    """
    backend = backend_of(folder)
    if backend == SMALL:
        return _read_small(_file_of(folder, SPEC_FILE))
    if backend == LEROBOT:
        return _read_lerobot(_file_of(folder, 'config.json'))
    if processor := find_file(folder, 'processor_config.json'):
        return _read_gr00t(folder, processor, tag)
    if metadata := find_file(folder, 'experiment_cfg/metadata.json'):
        return _read_gr00t_n1_5(folder, metadata, tag)
    raise GrootRosError(
        f'{folder} is not a checkpoint of GR00T or LeRobot: it has no processor_config.json, '
        'no experiment_cfg and no config.json of LeRobot.'
    )


def read_matching_checkpoint(folder: Path, tag: str, embodiment: Embodiment) -> Checkpoint:
    """Reads a checkpoint. Raises GrootRosError, which names each key, if it does not fit the embodiment."""
    checkpoint = read_checkpoint(folder, tag)
    if problems := checkpoint.mismatches(embodiment):
        raise GrootRosError(f'{folder} does not fit the embodiment {embodiment.name}: {"; ".join(problems)}.')
    return checkpoint


class _Content(BaseModel):
    """What is read of a file of a checkpoint; its other keys are of no concern here."""

    model_config = ConfigDict(extra='ignore', strict=True)


class _ModalityConfig(_Content):
    delta_indices: list[_Step] = Field(default=[0], min_length=1, max_length=1000)
    modality_keys: list[_Key] = Field(default=[], max_length=1000)
    action_configs: list[dict[str, Any]] | None = None


class _ProcessorKwargs(_Content):
    model_config = ConfigDict(extra='allow')
    modality_configs: dict[_Key, dict[str, _ModalityConfig | None]] = {}


class _Processor(_Content):
    processor_class: str = ''
    processor_kwargs: _ProcessorKwargs


class _KeyStatistics(_Content):
    min: list[Any]


_Statistics = dict[_Key, _KeyStatistics]


class _TagStatistics(_Content):
    state: _Statistics = {}
    action: _Statistics = {}

    def sizes(self) -> dict[str, dict[str, int]]:
        return {
            'state': {key: len(values.min) for key, values in self.state.items()},
            'action': {key: len(values.min) for key, values in self.action.items()},
        }


class _StatisticsFile(RootModel[dict[_Key, _TagStatistics]]):
    pass


class _TagMetadata(_Content):
    statistics: _TagStatistics = _TagStatistics()


class _Metadata(RootModel[dict[_Key, _TagMetadata]]):
    pass


class _LeRobotFeature(_Content):
    shape: list[_Size] = Field(min_length=1, max_length=10)


class _LeRobotConfig(_Content):
    type: _Key
    input_features: dict[_Key, _LeRobotFeature] | None
    output_features: dict[_Key, _LeRobotFeature] | None = None
    n_obs_steps: _Steps | None = None
    n_action_steps: _Steps | None = None
    chunk_size: _Steps | None = None
    horizon: _Steps | None = None


class _TrainDataset(_Content):
    repo_id: Any = None


class _TrainConfig(_Content):
    dataset: _TrainDataset | None = None


def _file_of(folder: Path, name: str) -> Path:
    """The file by which a checkpoint was recognised."""
    path = find_file(folder, name)
    assert path is not None
    return path


def _read(model: type[Model], path: Path) -> Model:
    return checked(model, read_json_object(path), str(path))


def _select_tag(tags: dict[str, Any], tag: str, path: Path) -> Any:
    for name, content in tags.items():
        if name.lower() == tag.lower():
            return content
    known = ', '.join(tags) or 'none'
    raise GrootRosError(
        f'{path} has no embodiment tag {tag}: it has {known}; choose one with --embodiment-tag.'
    )


def _read_gr00t(folder: Path, processor: Path, tag: str) -> Checkpoint:
    """Reads a checkpoint of N1.6 or N1.7."""
    config_file = find_file(folder, 'config.json')
    config = read_json_object(config_file) if config_file else {}
    content = _read(_Processor, processor)
    kwargs = content.processor_kwargs
    configs = _select_tag(kwargs.modality_configs, tag, processor)
    modalities = {name: _make_modality(configs.get(name) or _ModalityConfig()) for name in _MODALITIES}
    statistics = processor.parent / 'statistics.json'
    sizes = {}
    if statistics.is_file():
        sizes = _select_tag(_read(_StatisticsFile, statistics).root, tag, statistics).sizes()
    gr00t_version = _GR00T_VERSIONS.get(content.processor_class, 'GR00T')
    settings = kwargs.model_extra or {}
    notes = [f'{name}: {_short(settings[name])}' for name in _NOTED_SETTINGS if name in settings]
    if 'model_name' in config:
        notes.append(f'model: {_short(config["model_name"])}')
    return Checkpoint(folder, GR00T, gr00t_version, tag, modalities, sizes, notes)


def _short(value: Any) -> str:
    """A value of a file in at most some words, on one line."""
    return ' '.join(str(value)[:_MAX_NOTE].split())


def _make_modality(content: _ModalityConfig) -> Modality:
    return Modality(content.delta_indices, content.modality_keys, content.action_configs or [])


def _read_gr00t_n1_5(folder: Path, metadata: Path, tag: str) -> Checkpoint:
    sizes = _select_tag(_read(_Metadata, metadata).root, tag, metadata).statistics.sizes()
    notes = [f'{modality}: {", ".join(keys)}' for modality, keys in sizes.items()]
    notes.append(
        'the checkpoint does not hold its data config, which has its keys and steps: '
        'serve it with --data-config MODULE:CLASS'
    )
    return Checkpoint(folder, GR00T, 'GR00T N1.5', tag, {}, sizes, notes)


def _read_lerobot(path: Path) -> Checkpoint:
    config = _read(_LeRobotConfig, path)
    inputs = config.input_features or {}
    outputs = config.output_features or {}
    observation_indices = list(range(1 - (config.n_obs_steps or 1), 1))
    steps = config.n_action_steps or config.chunk_size or config.horizon or 1
    cameras = {
        name: feature.shape for name, feature in inputs.items() if name.startswith('observation.images.')
    }
    modalities = {
        'video': Modality(observation_indices, list(cameras)),
        'state': Modality(observation_indices, [name for name in inputs if name == STATE_COLUMN]),
        'action': Modality(list(range(steps)), list(outputs)),
    }
    sizes = {
        'state': {name: inputs[name].shape[0] for name in modalities['state'].keys},
        'action': {name: feature.shape[0] for name, feature in outputs.items()},
    }
    notes = [f'{name}: {"x".join(map(str, shape[:0:-1]))}' for name, shape in cameras.items()]
    train = path.parent / 'train_config.json'
    if train.is_file() and (dataset := _read(_TrainConfig, train).dataset):
        notes.append(f'trained on: {_short(dataset.repo_id)}')
    label = f'{BACKENDS[LEROBOT].label} {config.type}'
    return Checkpoint(path.parent, LEROBOT, label, '', modalities, sizes, notes)


def _read_small(path: Path) -> Checkpoint:
    spec = _read(PolicySpec, path)
    modalities = {
        'video': Modality([0], [camera.name for camera in spec.cameras]),
        'state': Modality([0], [key.name for key in spec.state]),
        'action': Modality(list(range(spec.horizon)), [key.name for key in spec.action]),
        'language': Modality([0], [spec.language]),
    }
    sizes = {
        'state': {key.name: key.size for key in spec.state},
        'action': {key.name: key.size for key in spec.action},
    }
    notes = [f'{camera.name}: {camera.width}x{camera.height}' for camera in spec.cameras]
    notes.append(f'trained on: {_short(spec.embodiment)} at {spec.fps:g} Hz')
    return Checkpoint(path.parent, SMALL, BACKENDS[SMALL].label, '', modalities, sizes, notes)


def _lerobot_mismatches(checkpoint: Checkpoint, embodiment: Embodiment) -> list[str]:
    features = {camera.feature for camera in embodiment.cameras}
    found = [
        f'video {name} is not among {", ".join(sorted(features))}'
        for name in checkpoint.modalities['video'].keys
        if name not in features
    ]
    for modality, wanted in (('state', embodiment.state_size), ('action', embodiment.action_size)):
        for key, size in checkpoint.sizes[modality].items():
            if size != wanted:
                found.append(f'{key} has {size} numbers where the embodiment has {wanted}')
    return found


def _sizes_of_slices(slices: dict[str, slice]) -> dict[str, int]:
    return {name: part.stop - part.start for name, part in slices.items()}


def _describe_steps(indices: list[int]) -> str:
    if len(indices) < 4:
        return f'steps {indices}'
    return f'{len(indices)} steps, {indices[0]} to {indices[-1]}'


def _describe_action(configs: list[dict[str, Any]]) -> str:
    """The representation of an action key in GR00T's words; empty for a key without an action config."""
    settings = [config.get(name) for config in configs for name in ('rep', 'type', 'format')]
    return ' '.join(str(setting).lower() for setting in settings if setting)


def _describe_embodiment(embodiment: Embodiment) -> dict[str, dict[str, str]]:
    """What the embodiment has for each key of a modality, in words."""
    states = {name: f'{size} numbers' for name, size in _sizes_of_slices(embodiment.state_slices).items()}
    actions = {name: f'{size} numbers' for name, size in _sizes_of_slices(embodiment.action_slices).items()}
    pose = {}
    if any(field.field == 'pose' for field in embodiment.state):
        pose = {name: f'made of the pose, {size} numbers' for name, size in _POSE_SIZES.items()}
    cameras = {camera.name: f'{camera.width}x{camera.height}' for camera in embodiment.cameras}
    return {
        'video': cameras | {camera.feature: cameras[camera.name] for camera in embodiment.cameras},
        'state': states | pose | {STATE_COLUMN: f'{embodiment.state_size} numbers'},
        'action': actions | pose | {ACTION_COLUMN: f'{embodiment.action_size} numbers'},
        'language': {embodiment.language: 'the task'},
    }
