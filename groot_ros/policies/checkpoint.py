# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint folder says of itself, read without the libraries that made it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groot_ros.embodiment import ACTION_COLUMN, EEF_6D, EEF_9D, STATE_COLUMN, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.inference.backends import BACKENDS, GR00T, LEROBOT
from groot_ros.inference.protocol import Modality
from groot_ros.policies.remote_policy import mismatches

_POSE_SIZES = {EEF_9D: 9, EEF_6D: 6}
_KINDS = ('video', 'state', 'action', 'language')


@dataclass
class Checkpoint:
    """A model for one embodiment tag: the backend that loads it, what it takes and gives, and sizes (kind to key to size) where known."""

    path: Path
    backend: str
    release: str
    tag: str = ''
    modalities: dict[str, Modality] = field(default_factory=dict)
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def mismatches(self, embodiment: Embodiment) -> list[str]:
        """What differs from an embodiment, each field named."""
        if self.backend == LEROBOT:
            return _lerobot_mismatches(self, embodiment)
        found = mismatches(self.modalities, embodiment) if self.modalities else []
        for kind, fields in (('state', embodiment.state_slices), ('action', embodiment.action_slices)):
            known = {name: part.stop - part.start for name, part in fields.items()} | _POSE_SIZES
            for name, size in self.sizes.get(kind, {}).items():
                if known.get(name, size) != size:
                    found.append(f'{kind} {name} has {size} numbers where the embodiment has {known[name]}')
        return found

    def lines(self, embodiment: Embodiment) -> list[str]:
        """A table beside the embodiment, for people."""
        rows = [
            f'{self.path.name}: {self.release}, for the backend {self.backend}{", tag " if self.tag else ""}{self.tag}'
        ]
        has = _fields(embodiment)
        for kind, modality in self.modalities.items():
            steps = modality.delta_indices
            rows.append(
                f'{kind}: {"steps " + str(steps) if len(steps) < 4 else f"{len(steps)} steps, {steps[0]} to {steps[-1]}"}'
            )
            for number, name in enumerate(modality.keys):
                size = self.sizes.get(kind, {}).get(name, '?')
                config = modality.actions[number] if number < len(modality.actions) else {}
                how = ' '.join(
                    str(config[part]).lower() for part in ('rep', 'type', 'format') if config.get(part)
                )
                rows.append(
                    f'  {name:34} {size!s:>8}  {how:28} {has[kind].get(name, "NOT IN THE EMBODIMENT")}'
                )
        return [*rows, *(f'  {note}' for note in self.notes)]

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        modalities = {kind: vars(modality) for kind, modality in self.modalities.items()}
        return {'path': str(self.path), 'backend': self.backend, 'release': self.release, 'tag': self.tag, 'modalities': modalities,
                'sizes': self.sizes, 'notes': self.notes}  # fmt: skip


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a model's configuration."""
    return any(
        _inside(folder, name)
        for name in (
            'processor_config.json',
            'policy_preprocessor.json',
            'experiment_cfg/metadata.json',
            'config.json',
        )
    )


def read_checkpoint(folder: Path, tag: str = 'new_embodiment') -> Checkpoint:
    """Reads a checkpoint of GR00T (N1.5, N1.6, N1.7) or LeRobot. Raises GrootRosError for what is none, or lacks the tag."""
    config_file = _inside(folder, 'config.json')
    config = _json(config_file) if config_file else {}
    if config_file and isinstance(config.get('type'), str) and 'input_features' in config:
        return _lerobot(config_file.parent, config)
    if processor := _inside(folder, 'processor_config.json'):
        return _gr00t(folder, processor, config, tag)
    if metadata := _inside(folder, 'experiment_cfg/metadata.json'):
        return _gr00t_n1_5(folder, metadata, tag)
    raise GrootRosError(
        f'{folder} is not a checkpoint of GR00T or LeRobot: it has no processor_config.json, '
        'no experiment_cfg and no config.json of LeRobot.'
    )


def read_matching_checkpoint(folder: Path, tag: str, embodiment: Embodiment) -> Checkpoint:
    """Reads a checkpoint. Raises GrootRosError, naming each field, if it does not fit the embodiment."""
    checkpoint = read_checkpoint(folder, tag)
    if problems := checkpoint.mismatches(embodiment):
        raise GrootRosError(
            f'{folder} does not fit the embodiment {embodiment.name}: {"; ".join(problems)}.'
        )
    return checkpoint


def _inside(folder: Path, name: str) -> Path | None:
    """Training leaves the configuration in the checkpoint, in `processor` beside it, or deep in LeRobot's folder of a run."""
    places = ('', 'processor', 'pretrained_model', 'checkpoints/last/pretrained_model')
    return next((folder / place / name for place in places if (folder / place / name).is_file()), None)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise GrootRosError(f'{path} cannot be read ({error}).') from error
    if not isinstance(content, dict):
        raise GrootRosError(f'{path} is not a JSON object.')
    return content


def _chosen(tags: dict[str, Any], tag: str, path: Path) -> dict[str, Any]:
    for name, content in tags.items():
        if name.lower() == tag.lower():
            return content
    raise GrootRosError(
        f'{path} has no embodiment tag {tag}: it has {", ".join(tags) or "none"}; choose one with --embodiment-tag.'
    )


def _gr00t(folder: Path, processor: Path, config: dict[str, Any], tag: str) -> Checkpoint:
    content = _json(processor)
    kwargs = content.get('processor_kwargs', {})
    chosen = _chosen(kwargs.get('modality_configs', {}), tag, processor)
    modalities = {kind: _modality(chosen.get(kind) or {}) for kind in _KINDS}
    statistics = processor.parent / 'statistics.json'
    sizes = {}
    if statistics.is_file():
        numbers = _chosen(_json(statistics), tag, statistics)
        sizes = {
            kind: {name: len(values['min']) for name, values in numbers.get(kind, {}).items()}
            for kind in ('state', 'action')
        }
    gr00t_version = {'Gr00tN1d7Processor': 'GR00T N1.7', 'Gr00tN1d6Processor': 'GR00T N1.6'}.get(
        content.get('processor_class', ''), 'GR00T'
    )
    known = ('use_percentiles', 'clip_outliers', 'shortest_image_edge', 'crop_fraction', 'max_action_horizon')
    notes = [f'{name}: {kwargs[name]}' for name in known if name in kwargs]
    notes += [f'model: {config["model_name"]}'] if 'model_name' in config else []
    return Checkpoint(folder, GR00T, gr00t_version, tag, modalities, sizes, notes)


def _modality(content: dict[str, Any]) -> Modality:
    return Modality(
        list(content.get('delta_indices', [0])),
        list(content.get('modality_keys', [])),
        list(content.get('action_configs') or []),
    )


def _gr00t_n1_5(folder: Path, metadata: Path, tag: str) -> Checkpoint:
    statistics = _chosen(_json(metadata), tag, metadata).get('statistics', {})
    sizes = {
        kind: {name: len(values['min']) for name, values in statistics.get(kind, {}).items()}
        for kind in ('state', 'action')
    }
    keys = {kind: Modality([0], list(sizes[kind])) for kind in ('state', 'action')}
    notes = [
        'keys and steps are those of its data config, which the checkpoint does not hold: serve it with --data-config MODULE:CLASS'
    ]
    return Checkpoint(
        folder,
        GR00T,
        'GR00T N1.5',
        tag,
        {},
        sizes,
        [*(f'{kind}: {", ".join(keys[kind].keys)}' for kind in keys), *notes],
    )


def _lerobot(folder: Path, config: dict[str, Any]) -> Checkpoint:
    inputs, outputs = config['input_features'] or {}, config.get('output_features') or {}
    seen = list(range(1 - int(config.get('n_obs_steps') or 1), 1))
    steps = int(config.get('n_action_steps') or config.get('chunk_size') or config.get('horizon') or 1)
    cameras = {
        name: feature['shape'] for name, feature in inputs.items() if name.startswith('observation.images.')
    }
    modalities = {
        'video': Modality(seen, list(cameras)),
        'state': Modality(seen, [name for name in inputs if name == STATE_COLUMN]),
        'action': Modality(list(range(steps)), list(outputs)),
    }
    sizes = {
        'state': {name: inputs[name]['shape'][0] for name in modalities['state'].keys},
        'action': {name: outputs[name]['shape'][0] for name in outputs},
    }
    notes = [f'{name}: {shape[2]}x{shape[1]}' for name, shape in cameras.items()]
    train = folder / 'train_config.json'
    if train.is_file():
        dataset = _json(train).get('dataset') or {}
        notes += [f'trained on: {dataset.get("repo_id")}']
    return Checkpoint(
        folder, LEROBOT, f'{BACKENDS[LEROBOT].label} {config["type"]}', '', modalities, sizes, notes
    )


def _lerobot_mismatches(checkpoint: Checkpoint, embodiment: Embodiment) -> list[str]:
    features = {camera.feature for camera in embodiment.cameras}
    found = [
        f'video {name} is not among {", ".join(sorted(features))}'
        for name in checkpoint.modalities['video'].keys
        if name not in features
    ]
    for kind, size in (('state', embodiment.state_size), ('action', embodiment.action_size)):
        for name, has in checkpoint.sizes[kind].items():
            if has != size:
                found.append(f'{name} has {has} numbers where the embodiment has {size}')
    return found


def _fields(embodiment: Embodiment) -> dict[str, dict[str, str]]:
    """What the embodiment has under each name, in words."""
    states = {name: f'{part.stop - part.start} numbers' for name, part in embodiment.state_slices.items()}
    actions = {name: f'{part.stop - part.start} numbers' for name, part in embodiment.action_slices.items()}
    pose = (
        {name: f'made of the pose, {size} numbers' for name, size in _POSE_SIZES.items()}
        if 'pose' in {field.field for field in embodiment.state}
        else {}
    )
    cameras = {camera.name: f'{camera.width}x{camera.height}' for camera in embodiment.cameras}
    return {
        'video': cameras | {camera.feature: cameras[camera.name] for camera in embodiment.cameras},
        'state': states | pose | {STATE_COLUMN: f'{embodiment.state_size} numbers'},
        'action': actions | pose | {ACTION_COLUMN: f'{embodiment.action_size} numbers'},
        'language': {embodiment.language: 'the task'},
    }
