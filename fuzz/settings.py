# SPDX-License-Identifier: Apache-2.0
"""Damaged YAML of a user, and JSON of checkpoints."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.damage import damage_json, damage_yaml
from fuzz.target import Target, WrongAcceptError
from groot_ros.cli.main import main
from groot_ros.dataset.sources.time_ranges import load_ranges
from groot_ros.embodiment import load_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.quality.verdict import load_thresholds
from groot_ros.recording.task_list import load_tasks
from groot_ros.resources import share_directory
from groot_ros.teleop.mapping import load_map

_TASKS = """
tasks:
  - {text: put the cube away, count: 20}
  - {text: open the drawer, count: 5}
"""
_RANGES = """
ranges:
  - {bag: morning, start_s: 1.0, end_s: 4.5, task: open the drawer}
  - {bag: morning, start_s: 6, end_s: 9}
"""


class EmbodimentFile(Target):
    """`groot-ros modality-config` of a damaged embodiment writes Python, and no command of the file."""

    name = 'embodiment-yaml'
    modules = ('groot_ros.dataset.modality_config',)

    def prepare(self, seeds: Path) -> None:
        """Takes three embodiments of the package."""
        for name in ('ur5e_robotiq_zed', 'ur5e_robotiq_zed_9d', 'franka_mcx'):
            (seeds / f'{name}.yaml').write_text(load_embodiment(name).text())

    def run_case(self, random: np.random.Generator, seeds: Path, folder: Path) -> int:
        """Writes the config file of a damaged embodiment."""
        files = sorted(seeds.glob('*.yaml'))
        text = files[random.integers(len(files))].read_text()
        file = folder / 'x.yaml'
        file.write_text(damage_yaml(random, text), errors='surrogatepass')
        version = ('n1.5', 'n1.6', 'n1.7')[random.integers(3)]
        made = folder / 'config.py'
        arguments = ['--gr00t-version', version, '--output', str(made)]
        code = main(['modality-config', '--embodiment', str(file), *arguments])
        if code == 0:
            _check_source(made.read_text())
        return code


def _check_source(text: str) -> None:
    try:
        code = compile(text, 'config', 'exec')
    except (SyntaxError, ValueError) as error:
        raise WrongAcceptError(f'the config is not Python: {error}') from error
    if '__import__' in code.co_names:
        raise WrongAcceptError('the config runs what the embodiment says')


class SmallFiles(Target):
    """Task lists, time ranges, thresholds and teleop maps."""

    name = 'small-yaml'

    def prepare(self, seeds: Path) -> None:
        """Writes one file for each reader."""
        (seeds / 'tasks.yaml').write_text(_TASKS)
        (seeds / 'ranges.yaml').write_text(_RANGES)
        config = share_directory() / 'config'
        (seeds / 'thresholds.yaml').write_text((config / 'quality_thresholds.yaml').read_text())
        (seeds / 'map.yaml').write_text((config / 'teleop' / 'joy.yaml').read_text())

    def run_case(self, random: np.random.Generator, seeds: Path, folder: Path) -> int:
        """Reads a damaged file."""
        readers: dict[str, Callable[[Path], Any]] = {
            'tasks.yaml': load_tasks,
            'ranges.yaml': load_ranges,
            'thresholds.yaml': lambda path: load_thresholds(str(path)),
            'map.yaml': lambda path: load_map(str(path)),
        }
        name = list(readers)[random.integers(len(readers))]
        file = folder / name
        file.write_text(damage_yaml(random, (seeds / name).read_text()), errors='surrogatepass')
        try:
            print(readers[name](file))
        except GrootRosError as error:
            print(error, file=sys.stderr)
            return 1
        return 0


class CheckpointFiles(Target):
    """`groot-ros inspect` of a checkpoint with damaged JSON: N1.7, N1.5 and LeRobot."""

    name = 'checkpoint-json'
    modules = ('groot_ros.policies.checkpoint',)

    def prepare(self, seeds: Path) -> None:
        """Writes the files of three checkpoints, without weights."""
        for place, content in _checkpoint_files().items():
            (seeds / place).parent.mkdir(parents=True, exist_ok=True)
            (seeds / place).write_text(json.dumps(content))

    def run_case(self, random: np.random.Generator, seeds: Path, folder: Path) -> int:
        """Inspects a checkpoint with one damaged file."""
        places = list(_checkpoint_files())
        damaged = places[random.integers(len(places))]
        checkpoint = damaged.split('/')[0]
        for place in places:
            if place.startswith(f'{checkpoint}/'):
                text = (seeds / place).read_text()
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                changed = damage_json(random, text) if place == damaged else text
                (folder / place).write_text(changed, errors='surrogatepass')
        return main(['inspect', str(folder / checkpoint), '--json', str(folder / 'found.json')])


def _checkpoint_files() -> dict[str, Any]:
    embodiment = load_embodiment('ur5e_robotiq_zed')
    kinds = {'state': embodiment.state_slices, 'action': embodiment.action_slices}
    sizes = {
        kind: {name: {'min': [0.0] * (part.stop - part.start)} for name, part in parts.items()}
        for kind, parts in kinds.items()
    }
    absolute = {'rep': 'ABSOLUTE', 'type': 'NON_EEF', 'format': 'DEFAULT', 'state_key': None}
    keys = {
        'video': (['zed_camera'], [0]),
        'state': (list(embodiment.state_slices), [0]),
        'action': (list(embodiment.action_slices), list(range(16))),
        'language': ([embodiment.language], [0]),
    }
    configs = {
        name: {'modality_keys': names, 'delta_indices': steps, 'action_configs': [absolute] * 3}
        for name, (names, steps) in keys.items()
    }
    features = {
        'observation.state': {'type': 'STATE', 'shape': [20]},
        'observation.images.zed_camera': {'type': 'VISUAL', 'shape': [3, 480, 640]},
    }
    kwargs = {'modality_configs': {'new_embodiment': configs}, 'use_percentiles': True}
    return {
        'n1_7/processor_config.json': {'processor_class': 'Gr00tN1d7Processor', 'processor_kwargs': kwargs},
        'n1_7/statistics.json': {'new_embodiment': sizes},
        'n1_7/config.json': {'model_type': 'Gr00tN1d7', 'model_name': 'nvidia/x'},
        'n1_5/experiment_cfg/metadata.json': {'new_embodiment': {'statistics': sizes}},
        'lerobot/config.json': {
            'type': 'act',
            'input_features': features,
            'output_features': {'action': {'type': 'ACTION', 'shape': [7]}},
            'n_action_steps': 12,
        },
        'lerobot/train_config.json': {'dataset': {'repo_id': 'lab/cube'}},
    }
