# SPDX-License-Identifier: Apache-2.0
"""A policy that sends observations to a model server over GR00T's inference protocol."""

from collections import OrderedDict
from typing import Annotated, Any

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from groot_ros.embodiment import EEF_6D, EEF_9D, Embodiment
from groot_ros.errors import PolicyError, choose
from groot_ros.geometry import Array, pose_to_eef_9d
from groot_ros.inference.backends import GR00T_VERSIONS
from groot_ros.inference.client import Client
from groot_ros.inference.protocol import EXTRA_INFO, TICK_NS, Modality
from groot_ros.policies.policy import Observation, Policy, PolicySpec

_SHORTEST_EDGE = 256
_MAX_BACK = 60
_CHUNK_NUMBERS_KEPT = 8
_MODALITIES = ('video', 'state', 'action', 'language')
_MAX_IMAGE_BYTES = 32 << 20
_MAX_STEPS = 1000
_MAX_KEYS = 100
_Pixels = Annotated[int, Field(gt=0, le=4096)]


class ExtraInfo(BaseModel):
    """What a server of ours says beyond GR00T's protocol; width and height by camera."""

    model_config = ConfigDict(extra='ignore', strict=True)

    image_sizes: dict[str, tuple[_Pixels, _Pixels]] = Field(default={}, max_length=100)
    real_time_chunking: bool = False
    takes_time: bool = False


class RemotePolicy(Policy):
    """A policy on a model server of a GR00T version.

    Raises PolicyError if the server does not answer, or if the keys or steps of its model do not fit the
    embodiment; GrootRosError if the GR00T version is not known.
    """

    def __init__(
        self, client: Client, embodiment: Embodiment, gr00t_version: str = 'n1.7', name: str = ''
    ) -> None:
        choose('GR00T version', gr00t_version, GR00T_VERSIONS)
        self._client = client
        self._embodiment = embodiment
        self._gr00t_version = gr00t_version
        self._modalities, extra_info = _request_modalities(client, gr00t_version)
        problems = mismatches(self._modalities, embodiment)
        problems += problems or _unusable_images(self._modalities['video'], extra_info, embodiment)
        if problems:
            raise PolicyError(
                f'The model at {client.address} does not fit the embodiment {embodiment.name}: '
                f'{"; ".join(problems)}.'
            )
        self._image_sizes = extra_info.image_sizes
        self._takes_time = extra_info.takes_time
        self._chunk_numbers: OrderedDict[int, int] = OrderedDict()
        video_indices = self._modalities['video'].delta_indices
        state_indices = self._modalities['state'].delta_indices
        self.spec = PolicySpec(
            name or f'the model at {client.address}',
            len(self._modalities['action'].delta_indices),
            continues=extra_info.real_time_chunking,
            observation_indices=tuple(sorted({0, *video_indices, *state_indices})),
        )

    def infer(self, observation: Observation) -> dict[str, Array]:
        """Requests one action chunk. Raises PolicyError if the server does not give one."""
        options = self._options(observation)
        if self._gr00t_version == 'n1.5':
            data = self._flat_observation(observation)
            if options:  # only a server of ours asks for any
                data['options'] = options
        else:
            data = {'observation': self._nested_observation(observation), 'options': options}
        reply = self._client.request('get_action', data, observation.reply_timeout_s)
        has_info = isinstance(reply, (list, tuple)) and len(reply) == 2
        action, info = reply if has_info else (reply, {})
        if not isinstance(action, dict) or len(action) > _MAX_KEYS:
            raise PolicyError(
                f'The server at {self._client.address} answered with {type(action).__name__} instead of '
                'actions: check its GR00T version.'
            )
        if isinstance(info, dict) and isinstance(info.get('chunk'), int):
            self._keep_chunk_number(observation.tick_ns, info['chunk'])
        return {
            _key(name).removeprefix('action.'): _without_batch(_key(name), values)
            for name, values in action.items()
        }

    def reset(self) -> None:
        """Starts a new episode on the server; N1.5 has no such request."""
        self._chunk_numbers.clear()
        if self._gr00t_version != 'n1.5':
            self._client.request('reset', {'options': None})

    def close(self) -> None:
        """Closes the connection to the server."""
        self._client.close()

    def _keep_chunk_number(self, tick_ns: int, number: int) -> None:
        self._chunk_numbers[tick_ns] = number
        while len(self._chunk_numbers) > _CHUNK_NUMBERS_KEPT:
            self._chunk_numbers.popitem(last=False)

    def _options(self, observation: Observation) -> dict[str, Any] | None:
        """What only a server of ours understands, if it asks for it: the time, and the chunk to continue."""
        options: dict[str, Any] = {TICK_NS: int(observation.tick_ns)} if self._takes_time else {}
        number = (
            self._chunk_numbers.get(observation.follows_ns) if observation.follows_ns is not None else None
        )
        if number is not None:
            options['follows'] = {
                'chunk': number,
                'elapsed_steps': observation.elapsed_steps,
                'frozen_steps': observation.frozen_steps,
            }
        return options or None

    def _nested_observation(self, observation: Observation) -> dict[str, Any]:
        """The form of N1.6 and N1.7: a map for each modality, with a batch of one."""
        wanted = self._modalities
        return {
            'video': {name: self._images(observation, name)[None] for name in wanted['video'].keys},
            'state': {name: self._states(observation, name)[None] for name in wanted['state'].keys},
            'language': {name: [[observation.task]] for name in wanted['language'].keys},
        }

    def _flat_observation(self, observation: Observation) -> dict[str, Any]:
        """The form of N1.5: one level, no batch."""
        wanted = self._modalities
        flat: dict[str, Any] = {}
        for name in wanted['video'].keys:
            # N1.5 takes images only in the size that it was trained with.
            flat[f'video.{name}'] = self._images(observation, name, keep_size=True)
        for name in wanted['state'].keys:
            flat[f'state.{name}'] = self._states(observation, name).astype(float)
        for name in wanted['language'].keys:
            flat[name] = [observation.task]
        return flat

    def _images(self, observation: Observation, name: str, keep_size: bool = False) -> np.ndarray:
        """Images (steps, height, width, 3) of a camera in the size that the server wants.

        If the server wants no size, they are made as small as the model needs, unless `keep_size` is given.
        """
        images = [observation.at(step).images[name] for step in self._modalities['video'].delta_indices]
        size = self._image_sizes.get(name)
        if size is None and keep_size:
            return np.stack(images)
        return np.stack([_resize(image, size or _small_size(image)) for image in images])

    def _states(self, observation: Observation, name: str) -> Array:
        """States (steps, size) of a key."""
        states = np.array([observation.at(step).state for step in self._modalities['state'].delta_indices])
        if name == EEF_9D:
            return pose_to_eef_9d(states[:, self._embodiment.pose_part]).astype(np.float32)
        return states[:, self._embodiment.state_slices[name]].astype(np.float32)


def mismatches(modalities: dict[str, Modality], embodiment: Embodiment) -> list[str]:
    """The keys and steps of a model that do not fit the embodiment, one text for each; empty if it fits."""
    poses = {EEF_9D, EEF_6D} if any(field.field == 'pose' for field in embodiment.state) else set()
    return [
        *_unknown_keys(modalities, embodiment, poses),
        *_unusable_steps(modalities),
        *_unusable_actions(modalities['action'], embodiment, poses),
    ]


def _unknown_keys(modalities: dict[str, Modality], embodiment: Embodiment, poses: set[str]) -> list[str]:
    known_keys = {
        'video': {camera.name for camera in embodiment.cameras},
        'state': {field.name for field in embodiment.state} | (poses & {EEF_9D}),
        'action': {field.name for field in embodiment.action} | poses,
        'language': {embodiment.language},
    }
    return [
        f'{modality} {key} is not among {", ".join(sorted(known))}'
        for modality, known in known_keys.items()
        for key in modalities[modality].keys
        if key not in known
    ]


def _unusable_steps(modalities: dict[str, Modality]) -> list[str]:
    found = []
    for name in ('video', 'state'):
        steps = modalities[name].delta_indices
        if not steps or max(steps) > 0 or min(steps) < -_MAX_BACK:
            found.append(f'{name} wants the steps {steps}, and those from {-_MAX_BACK} to 0 can be sent')
    steps = modalities['action'].delta_indices
    if not steps or steps != list(range(len(steps))):
        found.append(f'action gives the steps {steps}, and they must count from 0')
    return found


def _unusable_images(video: Modality, extra_info: ExtraInfo, embodiment: Embodiment) -> list[str]:
    """Image sizes that would fill the memory of this machine."""
    sizes = {camera.name: (camera.width, camera.height) for camera in embodiment.cameras}
    sizes |= extra_info.image_sizes
    wanted = sum(3 * sizes[name][0] * sizes[name][1] for name in video.keys) * len(video.delta_indices)
    if extra_info.image_sizes and wanted > _MAX_IMAGE_BYTES:
        return [
            f'it wants {wanted / 1e6:.0f} MB of images in a request, '
            f'and {_MAX_IMAGE_BYTES / 1e6:.0f} MB can be sent'
        ]
    return []


def _unusable_actions(action: Modality, embodiment: Embodiment, poses: set[str]) -> list[str]:
    found = []
    usable = ', '.join(sorted(poses)) or 'no action of this embodiment'
    for key, config in zip(action.keys, action.actions, strict=False):
        if str(config.get('rep', '')).lower() == 'relative' and key not in poses:
            found.append(f'action {key} is relative to the state, which is possible for {usable} only')
    if not ({EEF_9D, EEF_6D} & set(action.keys)):
        derived = [field.name for field in embodiment.action if field.is_derived]
        found += [f'action {key} is missing' for key in derived if key not in action.keys]
    return found


def _request_modalities(client: Client, gr00t_version: str) -> tuple[dict[str, Modality], ExtraInfo]:
    """The modalities of the server, and the extra information of a server of ours."""
    reply = client.request('get_modality_config', {EXTRA_INFO: True})
    if not isinstance(reply, dict) or not all(isinstance(reply.get(name), Modality) for name in _MODALITIES):
        raise PolicyError(
            f'The server at {client.address} does not report its modalities: '
            f'check that its GR00T version is {gr00t_version}.'
        )
    answered = reply['state'].gr00t_version
    if answered != gr00t_version:
        raise PolicyError(
            f'The server at {client.address} answers as GR00T {answered.upper()}, and this client speaks '
            f'{gr00t_version.upper()}: set its GR00T version to {answered}.'
        )
    # N1.5 writes the modality before each key.
    modalities = {
        name: Modality(
            reply[name].delta_indices,
            [key.removeprefix(f'{name}.') for key in reply[name].keys],
            reply[name].actions,
        )
        for name in _MODALITIES
    }
    return modalities, _check_extra_info(client, reply)


def _check_extra_info(client: Client, reply: dict[Any, Any]) -> ExtraInfo:
    values = {name: value for name, value in reply.items() if name in ExtraInfo.model_fields}
    sizes = values.get('image_sizes')
    if isinstance(sizes, dict):  # msgpack has no tuples
        values['image_sizes'] = {
            name: tuple(size) if isinstance(size, list) else size for name, size in sizes.items()
        }
    try:
        return ExtraInfo.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise PolicyError(
            f'The server at {client.address} reports {".".join(map(str, first["loc"]))} that '
            f'cannot be used: {first["msg"]}.'
        ) from error


def _key(name: Any) -> str:
    """The name of an action, fit for logs."""
    return ''.join(letter for letter in str(name)[:_MAX_KEYS] if letter.isprintable())


def _without_batch(name: str, values: Any) -> Array:
    """The actions (H, size) of a key, which come with (N1.6, N1.7) or without (N1.5) a batch of one.

    Raises PolicyError for anything else. A single number per step may also come as (H,).
    """
    if not isinstance(values, np.ndarray) or values.dtype.kind not in 'fiu':
        found = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise PolicyError(f'The action {name} came with the type {found}, but an array of numbers is needed.')
    if values.ndim == 3 and len(values) == 1:
        values = values[0]
    if values.ndim not in (1, 2) or not 0 < len(values) <= _MAX_STEPS:
        raise PolicyError(
            f'The action {name} came with the shape {values.shape}, but steps and numbers are needed.'
        )
    return values.astype(float)


def _small_size(image: np.ndarray) -> tuple[int, int]:
    """Width and height with the shortest edge that models resize to anyway.

    Sending larger images would take longer than a control tick.
    """
    height, width = image.shape[:2]
    scale = min(1.0, _SHORTEST_EDGE / min(height, width))
    return round(width * scale), round(height * scale)


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if size == image.shape[1::-1]:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
