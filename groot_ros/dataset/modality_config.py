# SPDX-License-Identifier: Apache-2.0
"""The Python file that describes the columns of a dataset to GR00T, in the form of N1.5, N1.6 or N1.7.

It is made from the embodiment, whose names are identifiers, and every value is written with repr: GR00T runs
this file. meta/modality.json is another file, see writers/features.py. Steps that are differences to the row
before are called ABSOLUTE here, since GR00T does not interpret its DELTA.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from groot_ros.dataset.meta import DatasetMeta, column_to_array
from groot_ros.embodiment import ACTION_COLUMN, EEF_9D, ActionField, Embodiment
from groot_ros.errors import GrootRosError, choose


@dataclass(frozen=True)
class Gr00tVersion:
    """The maximum sizes of a GR00T version: numbers of a state and of an action, and steps of a chunk.

    Those of N1.6 are defaults of its code; a model with a larger `max_state_dim` takes more.
    """

    state_size: int
    action_size: int
    horizon: int


GR00T_VERSIONS = {
    'n1.5': Gr00tVersion(64, 32, 16),
    'n1.6': Gr00tVersion(29, 29, 16),
    'n1.7': Gr00tVersion(132, 132, 40),
}

_REGISTERED = '''"""Modality config of {name} for GR00T {gr00t_version}, made by groot-ros modality-config.

Pass it as --modality-config-path.
"""

from gr00t.configs.data.embodiment_configs import register_modality_config
from gr00t.data.embodiment_tags import EmbodimentTag
from gr00t.data.types import ActionConfig, ActionFormat, ActionRepresentation, ActionType, ModalityConfig

# The dataset has the action as it is to be predicted: a delta to the row before, or a commanded value.
AS_STORED = ActionConfig(
    rep=ActionRepresentation.ABSOLUTE, type=ActionType.NON_EEF, format=ActionFormat.DEFAULT
)
{relative}
register_modality_config(
    {{
        "video": ModalityConfig(delta_indices=[0], modality_keys={cameras}),
        "state": ModalityConfig(delta_indices=[0], modality_keys={state}),
        "action": ModalityConfig(
            delta_indices=list(range({horizon})), modality_keys={action}, action_configs={configs}
        ),
        "language": ModalityConfig(delta_indices=[0], modality_keys={language}),{note}
    }},
    embodiment_tag=EmbodimentTag.NEW_EMBODIMENT,
)
'''

_RELATIVE = """\
# Every pose of a chunk is predicted relative to the pose of the state; GR00T returns it as an absolute one.
RELATIVE = ActionConfig(rep=ActionRepresentation.RELATIVE, type=ActionType.EEF, format=ActionFormat.XYZ_ROT6D)
"""

_CLASS = '''"""Data config of {name} for GR00T N1.5, made by groot-ros modality-config.

Pass it as --data-config {module}:{class_name}.
"""

from gr00t.data.dataset import ModalityConfig
from gr00t.data.transform.base import ComposedModalityTransform
from gr00t.data.transform.concat import ConcatTransform
from gr00t.data.transform.state_action import StateActionToTensor, StateActionTransform
from gr00t.data.transform.video import VideoColorJitter, VideoCrop, VideoResize, VideoToNumpy, VideoToTensor
from gr00t.experiment.data_config import BaseDataConfig
from gr00t.model.transforms import GR00TTransform


class {class_name}(BaseDataConfig):
    video_keys = {cameras}
    state_keys = {state}
    action_keys = {action}
    language_keys = {language}
    observation_indices = [0]
    action_indices = list(range({horizon}))
    normalization_modes = {modes}

    def modality_config(self):
        keys = {{"video": self.video_keys, "state": self.state_keys, "language": self.language_keys}}
        configs = {{}}
        for name, value in keys.items():
            configs[name] = ModalityConfig(delta_indices=self.observation_indices, modality_keys=value)
        configs["action"] = ModalityConfig(delta_indices=self.action_indices, modality_keys=self.action_keys)
        return configs

    def transform(self):
        def normalised(keys):
            modes = {{key: self.normalization_modes.get(key, "min_max") for key in keys}}
            return [
                StateActionToTensor(apply_to=keys),
                StateActionTransform(apply_to=keys, normalization_modes=modes),
            ]

        video = self.video_keys
        return ComposedModalityTransform(
            transforms=[
                VideoToTensor(apply_to=video),
                VideoCrop(apply_to=video, scale=0.95),
                VideoResize(apply_to=video, height=224, width=224, interpolation="linear"),
                VideoColorJitter(apply_to=video, brightness=0.3, contrast=0.4, saturation=0.5, hue=0.08),
                VideoToNumpy(apply_to=video),
                *normalised(self.state_keys),
                *normalised(self.action_keys),
                ConcatTransform(
                    video_concat_order=video,
                    state_concat_order=self.state_keys,
                    action_concat_order=self.action_keys,
                ),
                GR00TTransform(
                    state_horizon=len(self.observation_indices),
                    action_horizon=len(self.action_indices),
                    max_state_dim={state_size},
                    max_action_dim={action_size},
                ),
            ]
        )
'''


def modality_config(
    embodiment: Embodiment,
    gr00t_version: str,
    horizon: int = 16,
    relative: bool = False,
    two_valued: Collection[str] = (),
) -> str:
    """Returns Python source for a GR00T version (n1.5, n1.6, n1.7).

    `relative` predicts the poses of the embodiment's eef_9d relative to the state instead of its deltas.
    `two_valued` names the commands that are 0 or 1, see `find_two_valued`; N1.5 thresholds them at 0.5.
    Raises GrootRosError for rows that are larger than the version takes.
    """
    choose('GR00T version', gr00t_version, GR00T_VERSIONS)
    if relative and (not embodiment.eef_9d or gr00t_version == 'n1.5'):
        raise GrootRosError(
            'Poses relative to the state need `eef_9d` in the embodiment, and GR00T N1.6 or N1.7.'
        )
    states = list(embodiment.state)
    actions = list(embodiment.action)
    absolute: list[str] = []
    if relative:
        absolute = [EEF_9D]
        states = [field for field in states if field.name != embodiment.eef_9d]
        actions = [field for field in actions if not field.is_derived]
    state_size = sum(field.size for field in states) + 9 * len(absolute)
    action_size = sum(field.size for field in actions) + 9 * len(absolute)
    _check_limits(embodiment, gr00t_version, horizon, state_size, action_size)
    keys = {
        'video': [camera.name for camera in embodiment.cameras],
        'state': absolute + [field.name for field in states],
        'action': absolute + [field.name for field in actions],
    }
    if gr00t_version == 'n1.5':
        return _class_source(embodiment, horizon, keys, two_valued)
    return _registered_source(embodiment, gr00t_version, horizon, keys, max(state_size, action_size))


def find_two_valued(meta: DatasetMeta, embodiment: Embodiment) -> list[str]:
    """The commands of one number that are 0 or 1 in every row of a dataset, and both.

    N1.5 learns such a command as a class, which no other can be: of 0 to 100, or of -1 and 1, it would make
    0 and 1. Raises GrootRosError for a dataset that cannot be read.
    """
    stats = meta.stats.get(ACTION_COLUMN, {})
    columns = {
        field.name: embodiment.action_slices[field.name].start
        for field in embodiment.action
        if _is_one_command(field)
    }
    lowest = stats.get('min', [])
    highest = stats.get('max', [])
    if len(lowest) == len(highest) == embodiment.action_size:  # which spares reading most datasets
        columns = {
            name: column for name, column in columns.items() if (lowest[column], highest[column]) == (0, 1)
        }
    seen: dict[str, set[float]] = {name: set() for name in columns}
    for record in meta.episodes if columns else []:
        actions = column_to_array(meta.rows(record['episode_index'], [ACTION_COLUMN]), ACTION_COLUMN)
        for name, column in columns.items():
            seen[name] |= set(np.unique(actions[:, column]).tolist())
    return [name for name, values in seen.items() if values == {0.0, 1.0}]


def _is_one_command(field: ActionField) -> bool:
    return field.absolute and field.size == 1


def _class_source(
    embodiment: Embodiment, horizon: int, keys: dict[str, list[str]], two_valued: Collection[str]
) -> str:
    """The data config class that N1.5 loads by its name."""
    limits = GR00T_VERSIONS['n1.5']
    commands = [field for field in embodiment.action if _is_one_command(field) and field.name in two_valued]
    prefixed = {kind: [f'{kind}.{name}' for name in names] for kind, names in keys.items()}
    return _CLASS.format(
        name=embodiment.name,
        horizon=horizon,
        cameras=repr(prefixed['video']),
        state=repr(prefixed['state']),
        action=repr(prefixed['action']),
        language=repr([embodiment.language]),
        modes=repr({f'action.{field.name}': 'binary' for field in commands}),
        class_name=''.join(word.capitalize() for word in embodiment.name.split('_')) + 'DataConfig',
        module=f'{embodiment.name}_n1_5',
        state_size=limits.state_size,
        action_size=limits.action_size,
    )


def _registered_source(
    embodiment: Embodiment, gr00t_version: str, horizon: int, keys: dict[str, list[str]], max_size: int
) -> str:
    """The modality config that N1.6 and N1.7 register."""
    relative = EEF_9D in keys['action']
    stored = len(keys['action']) - relative
    return _REGISTERED.format(
        name=embodiment.name,
        gr00t_version=gr00t_version.upper(),
        horizon=horizon,
        cameras=repr(keys['video']),
        state=repr(keys['state']),
        action=repr(keys['action']),
        language=repr([embodiment.language]),
        configs=f'[RELATIVE] + [AS_STORED] * {stored}' if relative else f'[AS_STORED] * {stored}',
        relative=_RELATIVE if relative else '',
        note=_size_note(gr00t_version, max_size),
    )


def _size_note(gr00t_version: str, max_size: int) -> str:
    """A comment for rows that N1.6 takes only with a larger model."""
    if gr00t_version != 'n1.6' or max_size <= GR00T_VERSIONS['n1.6'].state_size:
        return ''
    return (
        f'\n        # The model must have a max_state_dim and max_action_dim of at least {max_size}; '
        'the default of N1.6 is 29.'
    )


def _check_limits(
    embodiment: Embodiment, gr00t_version: str, horizon: int, state_size: int, action_size: int
) -> None:
    limits = GR00T_VERSIONS[gr00t_version]
    checked = [('a chunk', horizon, limits.horizon)]
    if gr00t_version != 'n1.6':
        checked += [
            ('a state', state_size, limits.state_size),
            ('an action', action_size, limits.action_size),
        ]
    for what, size, limit in checked:
        if size > limit:
            raise GrootRosError(
                f'GR00T {gr00t_version.upper()} takes {what} of at most {limit}, '
                f'and {embodiment.name} has {size}: leave fields out of the embodiment, or give a smaller '
                '--horizon.'
            )
