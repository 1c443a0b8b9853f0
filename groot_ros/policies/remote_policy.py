# SPDX-License-Identifier: Apache-2.0
"""A policy behind GR00T's wire: what it wants is compared with the embodiment before anything is asked."""

from collections import OrderedDict
from typing import Any

import cv2
import numpy as np

from groot_ros.embodiment import EEF_6D, EEF_9D, Embodiment
from groot_ros.errors import PolicyError
from groot_ros.geometry import Array, pose_to_eef_9d
from groot_ros.inference.client import Client
from groot_ros.inference.protocol import GR00T_VERSIONS, Modality
from groot_ros.policies.policy import Observation, Policy, PolicySpec

_SHORTEST_EDGE = 256
_MAX_BACK = 60
_NUMBERS_KEPT = 8
_KINDS = ('video', 'state', 'action', 'language')


class RemotePolicy(Policy):
    """Asks a server of a gr00t_version. Raises PolicyError where it does not answer, or wants other rows than the embodiment's."""

    def __init__(
        self, client: Client, embodiment: Embodiment, gr00t_version: str = 'n1.7', name: str = ''
    ) -> None:
        if gr00t_version not in GR00T_VERSIONS:
            raise PolicyError(
                f'There is no gr00t_version {gr00t_version!r}: choose one of {", ".join(GR00T_VERSIONS)}.'
            )
        self._client, self._embodiment, self._gr00t_version = client, embodiment, gr00t_version
        self._modalities, extra = _request_modalities(client, gr00t_version)
        if problems := mismatches(self._modalities, embodiment):
            raise PolicyError(
                f'The model at {client.address} does not fit the embodiment {embodiment.name}: {"; ".join(problems)}.'
            )
        self._sizes = {str(camera): tuple(size) for camera, size in extra.get('image_sizes', {}).items()}
        self._numbers: OrderedDict[int, Any] = OrderedDict()
        wanted = self._modalities
        self.spec = PolicySpec(
            name or f'the model at {client.address}',
            len(wanted['action'].delta_indices),
            continues=bool(extra.get('real_time_chunking')),
            observation_indices=tuple(
                sorted({0, *wanted['video'].delta_indices, *wanted['state'].delta_indices})
            ),
        )

    def infer(self, observation: Observation) -> dict[str, Array]:
        """One request."""
        if self._gr00t_version == 'n1.5':
            reply = self._client.request('get_action', self._flat(observation), observation.reply_timeout_s)
        else:
            data = {'observation': self._nested(observation), 'options': self._options(observation)}
            reply = self._client.request('get_action', data, observation.reply_timeout_s)
        action, info = reply if isinstance(reply, (list, tuple)) and len(reply) == 2 else (reply, {})
        if not isinstance(action, dict):
            raise PolicyError(
                f'The server at {self._client.address} answered with {type(action).__name__} instead of actions.'
            )
        if isinstance(info, dict) and 'chunk' in info:
            self._numbers[observation.tick_ns] = info['chunk']
            while len(self._numbers) > _NUMBERS_KEPT:
                self._numbers.popitem(last=False)
        return {
            str(name).removeprefix('action.'): _unbatched(name, values) for name, values in action.items()
        }

    def reset(self) -> None:
        """Tells the server, where its release knows that."""
        self._numbers.clear()
        if self._gr00t_version != 'n1.5':
            self._client.request('reset', {'options': None})

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def _options(self, observation: Observation) -> dict[str, Any] | None:
        """Which of the server's chunks is being carried out, so that it may continue that one."""
        number = self._numbers.get(observation.follows_ns) if observation.follows_ns is not None else None
        if number is None:
            return None
        return {
            'follows': {
                'chunk': number,
                'elapsed_steps': observation.elapsed_steps,
                'frozen_steps': observation.frozen_steps,
            }
        }

    def _nested(self, observation: Observation) -> dict[str, Any]:
        wanted = self._modalities
        return {
            'video': {name: self._images(observation, name)[None] for name in wanted['video'].keys},
            'state': {name: self._states(observation, name)[None] for name in wanted['state'].keys},
            'language': {name: [[observation.task]] for name in wanted['language'].keys},
        }

    def _flat(self, observation: Observation) -> dict[str, Any]:
        wanted = self._modalities
        return {
            # N1.5 takes images only in the size that it was trained with.
            **{f'video.{name}': self._images(observation, name, whole=True) for name in wanted['video'].keys},
            **{
                f'state.{name}': self._states(observation, name).astype(float)
                for name in wanted['state'].keys
            },
            **{name: [observation.task] for name in wanted['language'].keys},
        }

    def _images(self, observation: Observation, name: str, whole: bool = False) -> np.ndarray:
        """Pictures (steps, height, width, 3), in the size that the server says, else as small as a model makes them anyway."""
        images = [observation.at(step).images[name] for step in self._modalities['video'].delta_indices]
        if whole and name not in self._sizes:
            return np.stack(images)
        return np.stack([_resized(image, self._sizes.get(name) or _small_size(image)) for image in images])

    def _states(self, observation: Observation, name: str) -> Array:
        """States (steps, size) of a key."""
        states = np.array([observation.at(step).state for step in self._modalities['state'].delta_indices])
        if name == EEF_9D:
            return pose_to_eef_9d(states[:, self._embodiment.pose_part]).astype(np.float32)
        return states[:, self._embodiment.state_slices[name]].astype(np.float32)


def mismatches(modalities: dict[str, Modality], embodiment: Embodiment) -> list[str]:
    """What a model wants or gives that the embodiment has not, each field named."""
    cameras, states = (
        {camera.name for camera in embodiment.cameras},
        {field.name for field in embodiment.state},
    )
    actions = {field.name for field in embodiment.action}
    poses = {EEF_9D} if any(field.field == 'pose' for field in embodiment.state) else set()
    absolute = {*poses, *({EEF_6D} if poses else set())}
    found = []
    for kind, known in (
        ('video', cameras),
        ('state', states | poses),
        ('action', actions | absolute),
        ('language', {embodiment.language}),
    ):
        for name in modalities[kind].keys:
            if name not in known:
                found.append(f'{kind} {name} is not among {", ".join(sorted(known))}')
    for kind in ('video', 'state'):
        seen = modalities[kind].delta_indices
        if not seen or max(seen) > 0 or min(seen) < -_MAX_BACK:
            found.append(f'{kind} wants the steps {seen}, and those from {-_MAX_BACK} to 0 can be sent')
    steps = modalities['action'].delta_indices
    if steps != list(range(len(steps))) or not steps:
        found.append(f'action gives the steps {steps}, and they must count from 0')
    for name, config in zip(modalities['action'].keys, modalities['action'].actions, strict=False):
        if str(config.get('rep', '')).lower() == 'relative' and name not in absolute:
            found.append(
                f'action {name} is relative to the state, which is taken for {", ".join(sorted(absolute)) or "no action of this embodiment"} only'
            )
    if not ({EEF_9D, EEF_6D} & set(modalities['action'].keys)):
        derived = [field.name for field in embodiment.action if field.is_derived]
        found += [f'action {name} is missing' for name in derived if name not in modalities['action'].keys]
    return found


def _request_modalities(client: Client, gr00t_version: str) -> tuple[dict[str, Modality], dict[str, Any]]:
    """The modalities, and what a server of ours says besides."""
    reply = client.request('get_modality_config')
    if not isinstance(reply, dict) or not all(isinstance(reply.get(kind), Modality) for kind in _KINDS):
        raise PolicyError(
            f'The server at {client.address} does not tell its modalities: is it of another release than {gr00t_version}?'
        )
    # N1.5 writes the kind before each name.
    modalities = {
        kind: Modality(
            reply[kind].delta_indices,
            [name.removeprefix(f'{kind}.') for name in reply[kind].keys],
            reply[kind].actions,
        )
        for kind in _KINDS
    }
    return modalities, {name: value for name, value in reply.items() if name not in _KINDS}


def _unbatched(name: str, values: Any) -> Array:
    array = np.asarray(values)
    if array.dtype.kind not in 'fiu':
        raise PolicyError(f'The action {name} came as {array.dtype}, which are no numbers.')
    return array[0].astype(float) if array.ndim == 3 else array.astype(float)


def _small_size(image: np.ndarray) -> tuple[int, int]:
    """Width and height with the shortest edge that models make of it anyway; sending more takes longer than the control tick."""
    height, width = image.shape[:2]
    scale = min(1.0, _SHORTEST_EDGE / min(height, width))
    return round(width * scale), round(height * scale)


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if size == image.shape[1::-1]:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
