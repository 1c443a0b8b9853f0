# SPDX-License-Identifier: Apache-2.0
"""Policies of LeRobot: ACT, diffusion, SmolVLA, GR00T (N1.7 since 0.6, N1.5 up to 0.5.1) and whatever else gives chunks of actions."""

import contextlib
import inspect
import itertools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from groot_ros.errors import BackendError
from groot_ros.inference.protocol import Modality

_IMAGES, _STATE, _ACTION = 'observation.images.', 'observation.state', 'action'
_CHUNKS_KEPT = 8


def load(settings: dict[str, Any]) -> 'LeRobotBackend':
    """Loads a checkpoint's policy with its processors."""
    import torch
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.policies import factory

    folder = _folder(Path(settings['checkpoint']))
    config = PreTrainedConfig.from_pretrained(folder)
    config.device = settings['device'] or ('cuda' if torch.cuda.is_available() else 'cpu')
    policy = factory.get_policy_class(config.type).from_pretrained(folder, config=config)
    policy.to(config.device).eval()
    before, after = _processors(factory, config, folder)
    return LeRobotBackend(policy, before, after, settings)


def _folder(checkpoint: Path) -> Path:
    """The folder with config.json: of a training run it lies in checkpoints/last/pretrained_model."""
    for inside in ('', 'pretrained_model', 'checkpoints/last/pretrained_model'):
        if (checkpoint / inside / 'config.json').is_file():
            return checkpoint / inside
    raise BackendError(f'{checkpoint} holds no checkpoint of LeRobot: there is no config.json in it.')


def _processors(factory: Any, config: Any, folder: Path) -> tuple[Any, Any]:
    """What turns rows into a model's numbers and back; before LeRobot 0.4 the policies did that themselves."""
    if not hasattr(factory, 'make_pre_post_processors'):
        return (lambda batch: batch), (lambda action: action)
    overrides = {'device_processor': {'device': config.device}}
    return factory.make_pre_post_processors(
        config, pretrained_path=str(folder), preprocessor_overrides=overrides
    )


class LeRobotBackend:
    """Answers in the embodiment's own names. The policy's features must have the sizes of the embodiment's rows."""

    def __init__(self, policy: Any, before: Any, after: Any, settings: dict[str, Any]) -> None:
        self._policy, self._before, self._after, self._rows = policy, before, after, settings['rows']
        self._cameras = {
            name: self._rows['cameras'][name]
            for name in self._rows['cameras']
            if self._rows['cameras'][name] in self._features
        }
        self._check()
        self._numbers = itertools.count(1)
        self._chunks: OrderedDict[int, Any] = OrderedDict()
        self._horizon = 1
        self._continues = self._prepare_continuing()
        self.name = f'{policy.config.type} {settings["checkpoint"].rstrip("/").rsplit("/", 1)[-1]}'

    @property
    def _features(self) -> dict[str, Any]:
        return self._policy.config.input_features

    def modalities(self) -> dict[str, Modality]:
        """The embodiment's names; the steps are those of the policy."""
        seen = list(range(1 - int(getattr(self._policy.config, 'n_obs_steps', 1) or 1), 1))
        return {
            'video': Modality(seen, list(self._cameras)),
            'state': Modality(seen, list(self._rows['state'])),
            'action': Modality(list(range(self._horizon)), list(self._rows['action'])),
            'language': Modality([0], [self._rows['language']]),
        }

    def extra_info(self) -> dict[str, Any]:
        """The images' sizes that it was trained with, and whether it continues chunks."""
        sizes = {name: list(self._features[feature].shape[:0:-1]) for name, feature in self._cameras.items()}
        return {'image_sizes': sizes, 'real_time_chunking': self._continues}

    def get_action(
        self, observation: dict[str, Any], options: dict[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Actions (1, H, size) in physical units. `options` may hold `follows`: chunk, elapsed_steps and frozen_steps."""
        import torch

        with torch.inference_mode():
            batch = self._before(self._batch(observation))
            raw = self._policy.predict_action_chunk(batch, **self._continuing(options or {}))
            actions = np.asarray(self._after(raw).float().cpu(), np.float32)
        number = next(self._numbers)
        self._chunks[number] = raw.detach()
        while len(self._chunks) > _CHUNKS_KEPT:
            self._chunks.popitem(last=False)
        self._horizon = actions.shape[1]
        return {name: actions[..., start:stop] for name, (start, stop) in self._rows['action'].items()}, {
            'chunk': number
        }

    def reset(self) -> None:
        """Begins anew."""
        self._policy.reset()
        self._chunks.clear()

    def _batch(self, observation: dict[str, Any]) -> dict[str, Any]:
        import torch

        device, many = self._policy.config.device, len(self.modalities()['state'].delta_indices) > 1
        part = slice(None) if many else 0
        state = np.concatenate([observation['state'][name] for name in self._rows['state']], axis=-1)
        batch: dict[str, Any] = {_STATE: torch.from_numpy(np.array(state[:, part], np.float32)).to(device)}
        for name, feature in self._cameras.items():
            images = torch.from_numpy(np.array(observation['video'][name][:, part])).to(device)
            batch[feature] = images.movedim(-1, -3).float() / 255
        batch['task'] = [texts[0] for texts in observation['language'][self._rows['language']]]
        return batch

    def _prepare_continuing(self) -> bool:
        """Real-time chunking, where the policy says that it can."""
        policy = self._policy
        if not callable(getattr(policy, 'supports_rtc', None)) or not policy.supports_rtc():
            return False
        try:
            inspect.signature(policy.predict_action_chunk).bind(
                None, inference_delay=0, prev_chunk_left_over=None
            )
        except TypeError:
            return False
        if getattr(policy.config, 'rtc_config', None) is None:
            from lerobot.policies.rtc.configuration_rtc import RTCConfig

            policy.config.rtc_config = RTCConfig()
        with contextlib.suppress(AttributeError):
            policy.init_rtc_processor()
        return True

    def _continuing(self, options: dict[str, Any]) -> dict[str, Any]:
        follows = options.get('follows') or {}
        previous = self._chunks.get(follows.get('chunk'))
        if not self._continues:
            return {}
        left = previous[0, int(follows['elapsed_steps']) :] if previous is not None else None
        if left is None or not len(left):
            return {'inference_delay': 0, 'prev_chunk_left_over': None}
        return {'inference_delay': min(int(follows['frozen_steps']), len(left)), 'prev_chunk_left_over': left}

    def _check(self) -> None:
        rows, wanted = self._rows, self._features
        problems = [
            f'it wants the image {name}'
            for name in wanted
            if name.startswith(_IMAGES) and name not in self._cameras.values()
        ]
        state = wanted.get(_STATE)
        action = self._policy.config.output_features.get(_ACTION)
        sizes = {'state': state.shape[0] if state else 0, 'action': action.shape[0] if action else 0}
        problems += [
            f'its {kind} has {found} numbers where the rows have {rows[f"{kind}_size"]}'
            for kind, found in sizes.items()
            if found != rows[f'{kind}_size'] and not (kind == 'state' and not state)
        ]
        if problems:
            raise BackendError(
                f'The checkpoint does not fit the embodiment {rows["embodiment"]}: {"; ".join(problems)}.'
            )
