# SPDX-License-Identifier: Apache-2.0
"""Policies of LeRobot: ACT, diffusion, SmolVLA, GR00T and all others that predict action chunks.

LeRobot has GR00T N1.7 since 0.6, and N1.5 up to 0.5.1.
"""

import contextlib
import inspect
import itertools
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groot_ros.errors import BackendError
from groot_ros.inference.protocol import Modality

_IMAGE_PREFIX = 'observation.images.'
_STATE = 'observation.state'
_ACTION = 'action'
_CHUNKS_KEPT = 8


def load(settings: dict[str, Any]) -> 'LeRobotBackend':
    """Loads a checkpoint's policy with its processors.

    Raises BackendError if it does not fit the embodiment.
    """
    import torch
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.policies import factory

    folder = _find_config_folder(Path(settings['checkpoint']))
    config = PreTrainedConfig.from_pretrained(folder)
    config.device = settings['device'] or ('cuda' if torch.cuda.is_available() else 'cpu')
    policy = factory.get_policy_class(config.type).from_pretrained(folder, config=config)
    policy.to(config.device).eval()
    preprocess, postprocess = _make_processors(factory, config, folder)
    return LeRobotBackend(policy, preprocess, postprocess, settings)


def _find_config_folder(checkpoint: Path) -> Path:
    """The folder with config.json; a training run has it in checkpoints/last/pretrained_model."""
    for inside in ('', 'pretrained_model', 'checkpoints/last/pretrained_model'):
        if (checkpoint / inside / 'config.json').is_file():
            return checkpoint / inside
    raise BackendError(
        f'{checkpoint} is not a checkpoint of LeRobot: it has no config.json. '
        'Give the folder of a training run.'
    )


def _make_processors(factory: Any, config: Any, folder: Path) -> tuple[Any, Any]:
    """The pre- and postprocessor; before LeRobot 0.4 the policies normalised by themselves."""
    if not hasattr(factory, 'make_pre_post_processors'):
        return (lambda batch: batch), (lambda action: action)
    overrides = {'device_processor': {'device': config.device}}
    return factory.make_pre_post_processors(
        config, pretrained_path=str(folder), preprocessor_overrides=overrides
    )


@dataclass(frozen=True)
class _Chunk:
    """A chunk as the policy predicted it, and in physical units: tensors (1, H, size)."""

    raw: Any
    physical: Any


def _steps(processor: Any) -> list[Any]:
    """The steps of a processor; before LeRobot 0.4 there were none."""
    return list(getattr(processor, 'steps', []))


class LeRobotBackend:
    """A policy of LeRobot with the embodiment's own keys.

    Raises BackendError unless the policy's features have the sizes of the embodiment's rows.
    """

    def __init__(self, policy: Any, preprocess: Any, postprocess: Any, settings: dict[str, Any]) -> None:
        self._policy = policy
        self._preprocess = preprocess
        self._postprocess = postprocess
        self._rows = settings['rows']
        self._cameras = {
            name: feature for name, feature in self._rows['cameras'].items() if feature in self._features
        }
        self._check()
        self._chunk_numbers = itertools.count(1)
        self._chunks: OrderedDict[int, _Chunk] = OrderedDict()
        self._horizon = 1
        self._relative_step = self._find_relative_step()
        self._continues = self._enable_real_time_chunking()
        self.name = f'{policy.config.type} {settings["checkpoint"].rstrip("/").rsplit("/", 1)[-1]}'

    @property
    def _features(self) -> dict[str, Any]:
        return self._policy.config.input_features

    def modalities(self) -> dict[str, Modality]:
        """The embodiment's keys, with the steps of the policy."""
        observation_steps = int(getattr(self._policy.config, 'n_obs_steps', 1) or 1)
        indices = list(range(1 - observation_steps, 1))
        return {
            'video': Modality(indices, list(self._cameras)),
            'state': Modality(indices, list(self._rows['state'])),
            'action': Modality(list(range(self._horizon)), list(self._rows['action'])),
            'language': Modality([0], [self._rows['language']]),
        }

    def extra_info(self) -> dict[str, Any]:
        """The image sizes of the training, and whether the policy continues chunks."""
        sizes = {name: list(self._features[feature].shape[:0:-1]) for name, feature in self._cameras.items()}
        return {'image_sizes': sizes, 'real_time_chunking': self._continues}

    def get_action(
        self, observation: dict[str, Any], options: dict[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Actions (1, H, size) in physical units, and the number of the chunk.

        `options` may have `follows`: the number of the chunk being executed, elapsed_steps and frozen_steps.
        """
        import torch

        with torch.inference_mode():
            batch = self._preprocess(self._make_batch(observation))
            raw = self._policy.predict_action_chunk(batch, **self._rtc_arguments(options or {}))
            physical = self._postprocess(raw)
            actions = np.asarray(physical.float().cpu(), np.float32)
        number = next(self._chunk_numbers)
        self._chunks[number] = _Chunk(raw.detach(), physical.detach())
        while len(self._chunks) > _CHUNKS_KEPT:
            self._chunks.popitem(last=False)
        self._horizon = actions.shape[1]
        by_key = {name: actions[..., start:stop] for name, (start, stop) in self._rows['action'].items()}
        return by_key, {'chunk': number}

    def reset(self) -> None:
        """Starts a new episode and forgets the earlier chunks."""
        self._policy.reset()
        self._chunks.clear()

    def _make_batch(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The observation as tensors; a policy that sees one row gets no axis of steps."""
        import torch

        device = self._policy.config.device
        sees_several_rows = len(self.modalities()['state'].delta_indices) > 1
        steps = slice(None) if sees_several_rows else 0
        state = np.concatenate([observation['state'][name] for name in self._rows['state']], axis=-1)
        batch: dict[str, Any] = {_STATE: torch.from_numpy(np.array(state[:, steps], np.float32)).to(device)}
        for name, feature in self._cameras.items():
            images = torch.from_numpy(np.array(observation['video'][name][:, steps])).to(device)
            batch[feature] = images.movedim(-1, -3).float() / 255
        batch['task'] = [texts[0] for texts in observation['language'][self._rows['language']]]
        return batch

    def _enable_real_time_chunking(self) -> bool:
        """Prepares real-time chunking (RTC) and returns whether the policy supports it."""
        policy = self._policy
        if not callable(getattr(policy, 'supports_rtc', None)) or not policy.supports_rtc():
            return False
        if any(getattr(step, 'use_relative_action', False) for step in _steps(self._postprocess)):
            # GR00T of LeRobot would take what is relative to an old state as relative to the new one.
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

    def _rtc_arguments(self, options: dict[str, Any]) -> dict[str, Any]:
        """The rest of the chunk being executed, and how many of its steps are frozen."""
        follows = options.get('follows') or {}
        previous = self._chunks.get(follows.get('chunk'))
        if not self._continues:
            return {}
        left = self._left_over(previous, int(follows['elapsed_steps'])) if previous is not None else None
        if left is None or not len(left):
            return {'inference_delay': 0, 'prev_chunk_left_over': None}
        return {'inference_delay': min(int(follows['frozen_steps']), len(left)), 'prev_chunk_left_over': left}

    def _left_over(self, previous: '_Chunk', elapsed: int) -> Any:
        """The steps (n, size) of a chunk that are not past, as the policy predicts them.

        Those of a policy that is relative to the state are expressed relative to the state of the new
        observation, which the preprocessor has just seen.
        """
        if self._relative_step is None or elapsed >= len(previous.physical[0]):
            return previous.raw[0, elapsed:]
        from lerobot.policies.rtc import reanchor_relative_rtc_prefix

        steps = _steps(self._preprocess)
        normaliser = next((step for step in steps if type(step).__name__ == 'NormalizerProcessorStep'), None)
        return reanchor_relative_rtc_prefix(
            prev_actions_absolute=previous.physical[0, elapsed:],
            current_state=self._relative_step.get_cached_state(),
            relative_step=self._relative_step,
            normalizer_step=normaliser,
            policy_device=self._policy.config.device,
        )

    def _find_relative_step(self) -> Any:
        """The step of the preprocessor that makes actions relative to the state; None if there is none.

        It needs the names of the actions to leave some of them absolute, such as the gripper.
        """
        for step in _steps(self._preprocess):
            if getattr(step, 'enabled', False) and callable(getattr(step, 'get_cached_state', None)):
                names = getattr(self._policy.config, 'action_feature_names', None)
                if names and getattr(step, 'action_names', None) is None:
                    step.action_names = list(names)
                return step
        return None

    def _check(self) -> None:
        """Compares the policy's features with the embodiment; a policy may do without a state."""
        rows = self._rows
        problems = [
            f'it wants the image {name}'
            for name in self._features
            if name.startswith(_IMAGE_PREFIX) and name not in self._cameras.values()
        ]
        state = self._features.get(_STATE)
        action = self._policy.config.output_features.get(_ACTION)
        sizes = {'state': state.shape[0]} if state else {}
        sizes['action'] = action.shape[0] if action else 0
        for name, size in sizes.items():
            wanted_size = rows[f'{name}_size']
            if size != wanted_size:
                problems.append(f'its {name} has {size} numbers where the rows have {wanted_size}')
        if problems:
            raise BackendError(
                f'The checkpoint does not fit the embodiment {rows["embodiment"]}: {"; ".join(problems)}.'
            )
