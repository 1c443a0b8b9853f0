# SPDX-License-Identifier: Apache-2.0
"""Models in NVIDIA's own package: N1.6 and N1.7 (gr00t.policy), and N1.5 (gr00t.model.policy).

A checkpoint of N1.5 does not hold its data config, so it must be named again.
"""

import importlib
import importlib.util
from typing import Any

import numpy as np

from groot_ros.errors import BackendError
from groot_ros.inference.backends.gr00t_continuation import ChunkContinuation, can_continue
from groot_ros.inference.protocol import Modality


def load(settings: dict[str, Any]) -> 'Gr00tBackend':
    """Loads a checkpoint for an embodiment tag.

    Raises ModuleNotFoundError if this Python does not have gr00t, BackendError if the data config is missing.
    """
    import torch

    device = settings['device'] or ('cuda' if torch.cuda.is_available() else 'cpu')
    if importlib.util.find_spec('gr00t') is None:
        raise ModuleNotFoundError(name='gr00t')
    if importlib.util.find_spec('gr00t.policy') is not None:
        from gr00t.data.embodiment_tags import EmbodimentTag
        from gr00t.policy.gr00t_policy import Gr00tPolicy

        resolve = getattr(EmbodimentTag, 'resolve', EmbodimentTag)
        tag = resolve(settings['embodiment_tag'])
        return Gr00tBackend(Gr00tPolicy(tag, settings['checkpoint'], device=device), settings)
    return Gr00tBackend(_load_n1_5(settings, device), settings)


def _load_n1_5(settings: dict[str, Any], device: str) -> Any:
    from gr00t.experiment.data_config import load_data_config
    from gr00t.model.policy import Gr00tPolicy

    if not settings['data_config']:
        raise BackendError(
            'A checkpoint of N1.5 does not hold its data config: name it with --data-config MODULE:CLASS.'
        )
    config = load_data_config(settings['data_config'])
    return Gr00tPolicy(
        model_path=settings['checkpoint'],
        embodiment_tag=settings['embodiment_tag'],
        modality_config=config.modality_config(),
        modality_transform=config.transform(),
        device=device,
    )


class Gr00tBackend:
    """A Gr00tPolicy of any GR00T version, with observations and actions in the form of N1.6 and N1.7."""

    def __init__(self, policy: Any, settings: dict[str, Any]) -> None:
        self._policy = policy
        self._flat = not hasattr(policy, 'reset')  # only N1.5 has no reset; it takes flat observations
        self._sizes = settings['rows']['image_sizes']
        self._continuation = None
        if not self._flat and can_continue(policy):
            tag = getattr(policy, 'embodiment_tag', settings['embodiment_tag'])
            self._continuation = ChunkContinuation(policy, getattr(tag, 'value', tag))
        self.name = f'GR00T {settings["checkpoint"].rstrip("/").rsplit("/", 1)[-1]}'

    def modalities(self) -> dict[str, Modality]:
        """The modalities that the checkpoint was trained with."""
        configs = self._policy.get_modality_config()
        return {
            kind: Modality(
                list(config.delta_indices),
                [name.removeprefix(f'{kind}.') for name in config.modality_keys],
                [_action_config(entry) for entry in getattr(config, 'action_configs', None) or []],
            )
            for kind, config in configs.items()
        }

    def extra_info(self) -> dict[str, Any]:
        """Image sizes for N1.5, which takes only the size that it was trained with; the others resize.

        N1.7 continues chunks.
        """
        if self._flat:
            return {'image_sizes': self._sizes}
        return {'real_time_chunking': self._continuation is not None}

    def get_action(
        self, observation: dict[str, Any], options: dict[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Actions (1, H, size) in physical units; GR00T returns actions relative to the state as absolute."""
        if self._flat:
            flat_action = self._policy.get_action(_flatten(observation))
            action = {
                name.removeprefix('action.'): np.asarray(values)[None] for name, values in flat_action.items()
            }
            return action, {}
        if self._continuation is not None:
            return self._continuation.get_action(observation, options)
        action, info = self._policy.get_action(observation)
        return action, dict(info)

    def reset(self) -> None:
        """Starts a new episode; N1.5 has no such call."""
        if not self._flat:
            self._policy.reset()
        if self._continuation is not None:
            self._continuation.reset()


def _action_config(entry: Any) -> dict[str, Any]:
    """An action config as plain values: the names of its enums."""
    values = {name: getattr(entry, name) for name in ('rep', 'type', 'format', 'state_key')}
    return {name: getattr(value, 'name', value) for name, value in values.items()}


def _flatten(observation: dict[str, Any]) -> dict[str, Any]:
    """An observation in the form of N1.5: one level, no batch."""
    return {
        **{f'video.{name}': images[0] for name, images in observation['video'].items()},
        **{f'state.{name}': np.asarray(values[0], float) for name, values in observation['state'].items()},
        **{name: list(texts[0]) for name, texts in observation['language'].items()},
    }
