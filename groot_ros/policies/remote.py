"""A policy behind GR00T's wire: what it wants is compared with the embodiment before anything is asked."""

from typing import Any

import cv2
import numpy as np

from groot_ros.dataset.layout import EEF_9D
from groot_ros.embodiment import Embodiment
from groot_ros.geometry import Array, eef_9d_of
from groot_ros.policies.base import Observation, PolicyError, PolicySpec
from groot_ros.policies.client import Client
from groot_ros.policies.targets import EEF_6D
from groot_ros.policies.wire import FLAVOURS, Modality

_SHORTEST_EDGE = 256
_KINDS = ('video', 'state', 'action', 'language')


class RemotePolicy:
    """Asks a server of a flavour. Raises PolicyError where it does not answer, or wants other rows than the embodiment's."""

    def __init__(self, client: Client, embodiment: Embodiment, flavour: str = 'n1.7') -> None:
        if flavour not in FLAVOURS:
            raise PolicyError(f'There is no flavour {flavour!r}: choose one of {", ".join(FLAVOURS)}.')
        self._client, self._embodiment, self._flavour = client, embodiment, flavour
        self._modalities = _modalities(client, flavour)
        if problems := mismatches(self._modalities, embodiment):
            raise PolicyError(f'The model at {client.address} does not fit the embodiment {embodiment.name}: {"; ".join(problems)}.')
        self.spec = PolicySpec(f'the model at {client.address}', len(self._modalities['action'].delta_indices))

    def infer(self, observation: Observation) -> dict[str, Array]:
        """One request."""
        if self._flavour == 'n1.5':
            reply = self._client.request('get_action', self._flat(observation))
        else:
            reply = self._client.request('get_action', {'observation': self._nested(observation), 'options': None})
        action = reply[0] if isinstance(reply, (list, tuple)) and reply else reply
        if not isinstance(action, dict):
            raise PolicyError(f'The server at {self._client.address} answered with {type(action).__name__} instead of actions.')
        return {str(name).removeprefix('action.'): _unbatched(name, values) for name, values in action.items()}

    def reset(self) -> None:
        """Tells the server, where its release knows that."""
        if self._flavour != 'n1.5':
            self._client.request('reset', {'options': None})

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def _nested(self, observation: Observation) -> dict[str, Any]:
        wanted = self._modalities
        return {
            'video': {name: _smaller(observation.images[name])[None, None] for name in wanted['video'].keys},
            'state': {name: self._state(observation, name)[None, None] for name in wanted['state'].keys},
            'language': {name: [[observation.task]] for name in wanted['language'].keys},
        }

    def _flat(self, observation: Observation) -> dict[str, Any]:
        wanted = self._modalities
        return {
            # N1.5 takes pictures only in the size that it was trained with.
            **{f'video.{name}': observation.images[name][None] for name in wanted['video'].keys},
            **{f'state.{name}': self._state(observation, name)[None].astype(float) for name in wanted['state'].keys},
            **{name: [observation.task] for name in wanted['language'].keys},
        }

    def _state(self, observation: Observation, name: str) -> Array:
        if name == EEF_9D:
            return eef_9d_of(observation.state[None, self._embodiment.pose_part])[0].astype(np.float32)
        return observation.state[self._embodiment.state_slices[name]].astype(np.float32)


def mismatches(modalities: dict[str, Modality], embodiment: Embodiment) -> list[str]:
    """What a model wants or gives that the embodiment has not, each field named."""
    cameras, states = {camera.name for camera in embodiment.cameras}, {field.name for field in embodiment.state}
    actions = {field.name for field in embodiment.action}
    poses = {EEF_9D} if any(field.field == 'pose' for field in embodiment.state) else set()
    absolute = {*poses, *({EEF_6D} if poses else set())}
    found = []
    for kind, known in (('video', cameras), ('state', states | poses), ('action', actions | absolute), ('language', {embodiment.language})):
        for name in modalities[kind].keys:
            if name not in known:
                found.append(f'{kind} {name} is not among {", ".join(sorted(known))}')
    for kind in ('video', 'state'):
        if modalities[kind].delta_indices != [0]:
            found.append(f'{kind} wants the steps {modalities[kind].delta_indices}, and only the present one is sent')
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


def _modalities(client: Client, flavour: str) -> dict[str, Modality]:
    reply = client.request('get_modality_config')
    if not isinstance(reply, dict) or not all(isinstance(reply.get(kind), Modality) for kind in _KINDS):
        raise PolicyError(f'The server at {client.address} does not tell its modalities: is it of another release than {flavour}?')
    # N1.5 writes the kind before each name.
    return {
        kind: Modality(reply[kind].delta_indices, [name.removeprefix(f'{kind}.') for name in reply[kind].keys], reply[kind].actions)
        for kind in _KINDS
    }


def _unbatched(name: str, values: Any) -> Array:
    array = np.asarray(values)
    if array.dtype.kind not in 'fiu':
        raise PolicyError(f'The action {name} came as {array.dtype}, which are no numbers.')
    return array[0].astype(float) if array.ndim == 3 else array.astype(float)


def _smaller(image: np.ndarray) -> np.ndarray:
    """The shortest edge is what the model makes of it anyway; sending more takes longer than the control tick."""
    height, width = image.shape[:2]
    scale = _SHORTEST_EDGE / min(height, width)
    if scale >= 1:
        return image
    return cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
