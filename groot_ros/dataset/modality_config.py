# SPDX-License-Identifier: Apache-2.0
"""The Python file that tells GR00T what the columns of a dataset mean, made of the embodiment; N1.5, N1.6 and N1.7 each read their own form.

Steps that are differences to the row before are passed through as they stand: GR00T's DELTA is never interpreted, so it is ABSOLUTE there.
"""

import json
from dataclasses import dataclass

from groot_ros.embodiment import EEF_9D, Embodiment
from groot_ros.errors import GrootRosError


@dataclass(frozen=True)
class Gr00tVersion:
    """What a release of GR00T takes: numbers of a state, numbers of an action, and steps of a chunk.

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

_REGISTERED = '''"""Modality config of {name} for GR00T {gr00t_version}, made by groot-ros modality-config. Pass it as --modality-config-path."""

from gr00t.configs.data.embodiment_configs import register_modality_config
from gr00t.data.embodiment_tags import EmbodimentTag
from gr00t.data.types import ActionConfig, ActionFormat, ActionRepresentation, ActionType, ModalityConfig

# The action stands in the dataset as it is to be predicted: a delta to the row before, or a commanded value.
AS_STORED = ActionConfig(rep=ActionRepresentation.ABSOLUTE, type=ActionType.NON_EEF, format=ActionFormat.DEFAULT)
{relative}
register_modality_config(
    {{
        "video": ModalityConfig(delta_indices=[0], modality_keys={cameras}),
        "state": ModalityConfig(delta_indices=[0], modality_keys={state}),
        "action": ModalityConfig(delta_indices=list(range({horizon})), modality_keys={action}, action_configs={configs}),
        "language": ModalityConfig(delta_indices=[0], modality_keys={language}),{note}
    }},
    embodiment_tag=EmbodimentTag.NEW_EMBODIMENT,
)
'''

_RELATIVE = """\
# Every pose of a chunk is predicted relative to the pose of the state, and comes back from GR00T as an absolute one.
RELATIVE = ActionConfig(rep=ActionRepresentation.RELATIVE, type=ActionType.EEF, format=ActionFormat.XYZ_ROT6D)
"""

_CLASS = '''"""Data config of {name} for GR00T N1.5, made by groot-ros modality-config. Pass it as --data-config {module}:{class_name}."""

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
        now = {{name: ModalityConfig(delta_indices=self.observation_indices, modality_keys=value) for name, value in keys.items()}}
        return {{**now, "action": ModalityConfig(delta_indices=self.action_indices, modality_keys=self.action_keys)}}

    def transform(self):
        def normalised(keys):
            modes = {{key: self.normalization_modes.get(key, "min_max") for key in keys}}
            return [StateActionToTensor(apply_to=keys), StateActionTransform(apply_to=keys, normalization_modes=modes)]

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
                ConcatTransform(video_concat_order=video, state_concat_order=self.state_keys, action_concat_order=self.action_keys),
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
    embodiment: Embodiment, gr00t_version: str, horizon: int = 16, relative: bool = False
) -> str:
    """Python source for a release of GR00T (n1.5, n1.6, n1.7). Raises GrootRosError where the rows are beyond what it takes.

    `relative` predicts the poses of the embodiment's eef_9d relative to the state instead of its deltas.
    """
    if gr00t_version not in GR00T_VERSIONS:
        raise GrootRosError(
            f'There is no GR00T {gr00t_version!r} here: choose one of {", ".join(GR00T_VERSIONS)}.'
        )
    if relative and (not embodiment.eef_9d or gr00t_version == 'n1.5'):
        raise GrootRosError(
            'Poses relative to the state need `eef_9d` in the embodiment, and GR00T N1.6 or N1.7.'
        )
    states = [field.name for field in embodiment.state if not relative or field.name != embodiment.eef_9d]
    actions = [field for field in embodiment.action if not relative or not field.is_derived]
    sizes = (
        sum(field.size for field in embodiment.state if field.name in states),
        sum(field.size for field in actions),
    )
    _check_limits(embodiment, gr00t_version, horizon, *(size + 9 * relative for size in sizes))
    prefixed = gr00t_version == 'n1.5'
    largest = max(sizes) + 9 * relative
    beyond = gr00t_version == 'n1.6' and largest > GR00T_VERSIONS['n1.6'].state_size
    note = (
        f'\n        # The model must have a max_state_dim and max_action_dim of at least {largest}; N1.6 has 29 where nobody says more.'
        * beyond
    )

    def keys(kind: str, names: list[str]) -> str:
        return json.dumps([f'{kind}.{name}' if prefixed else name for name in names])

    modes = {
        f'action.{field.name}': 'binary' for field in embodiment.action if field.absolute and field.size == 1
    }
    class_name = ''.join(word.capitalize() for word in embodiment.name.split('_')) + 'DataConfig'
    return (_CLASS if prefixed else _REGISTERED).format(
        name=embodiment.name, gr00t_version=gr00t_version.upper(), horizon=horizon, cameras=keys('video', [camera.name for camera in embodiment.cameras]),
        state=keys('state', [EEF_9D] * relative + states), action=keys('action', [EEF_9D] * relative + [field.name for field in actions]),
        note=note, configs='[RELATIVE] + ' * relative + f'[AS_STORED] * {len(actions)}', relative=_RELATIVE if relative else '',
        language=json.dumps([embodiment.language]), modes=json.dumps(modes), class_name=class_name,
        module=f'{embodiment.name}_n1_5', state_size=GR00T_VERSIONS[gr00t_version].state_size, action_size=GR00T_VERSIONS[gr00t_version].action_size,
    )  # fmt: skip


def _check_limits(
    embodiment: Embodiment, gr00t_version: str, horizon: int, state_size: int, action_size: int
) -> None:
    limits = GR00T_VERSIONS[gr00t_version]
    for what, size, largest in (
        ('a state', state_size, limits.state_size), ('an action', action_size, limits.action_size), ('a chunk', horizon, limits.horizon),
    ):  # fmt: skip
        if size > largest and (gr00t_version != 'n1.6' or what == 'a chunk'):
            raise GrootRosError(
                f'GR00T {gr00t_version.upper()} takes {what} of at most {largest}, and {embodiment.name} has {size}.'
            )
