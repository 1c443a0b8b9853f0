# SPDX-License-Identifier: Apache-2.0
"""Damaged and hostile messages of the inference protocol, at the server and at the client."""

import sys
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from fuzz.damage import damage_bytes
from fuzz.target import Target, WrongAcceptError
from groot_ros.embodiment import Embodiment, load_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.inference.backends import GR00T_VERSIONS
from groot_ros.inference.client import Client
from groot_ros.inference.protocol import Modality, pack, unpack
from groot_ros.inference.server import Server
from groot_ros.policies.policy import Observation
from groot_ros.policies.remote_policy import RemotePolicy

_TOKEN = 'a long secret'
_ODD_VALUES = (
    None, True, -1, 2**63, 1e400, float('nan'), '', 'x' * 50_000, b'', b'\x00' * 1000, [], {}, [[]], [None],
    {3: 4},
    [0] * 20_000, np.zeros(()), np.zeros((0, 3)), np.zeros((3, 5000)), np.full((1, 16, 3), np.nan),
    np.array(['a']), [10**9], [10**9, 10**9], {'zed_camera': [0, 0]}, {'zed_camera': [10**5, 10**5]},
    Modality([0], []), Modality([-(10**6)], ['zed_camera']), Modality([0], ['no such key']),
    msgpack.ExtType(3, b'x'), [[[[[[]]]]]], {'as_npy': b'', '__ndarray_class__': True},
    {b'nd': True, b'type': '<f8', b'kind': b'', b'shape': [10**9, 10**9], b'data': b''},
    {b'nd': True, b'type': '|O', b'kind': b'O', b'shape': [1], b'data': b'12345678'},
    {'__ModalityConfig__': True, 'as_json': '[' * 50_000},
)  # fmt: skip
_BOMBS = (
    b'\xdd\x03\x93\x87\x00' + b'\x90' * 60_000_000,
    b'\xdd\x03\x93\x87\x00' + b'\x80' * 60_000_000,
    b'\x91' * 1_000_000,
    b'\xdd\xff\xff\xff\xff',
    b'\xdf\xff\xff\xff\xff',
    (b'\xdc\x27\x10' + b'\xc0' * 9_999) * 2000,
)


class _Model:
    """Answers with zeros, and notes that it was asked."""

    name = 'fuzz'

    def __init__(self, embodiment: Embodiment) -> None:
        self.embodiment = embodiment
        self.asked = 0

    def modalities(self) -> dict[str, Modality]:
        """The keys of the embodiment."""
        embodiment = self.embodiment
        return {
            'video': Modality([0], [camera.name for camera in embodiment.cameras]),
            'state': Modality([0], list(embodiment.state_slices)),
            'action': Modality(list(range(16)), list(embodiment.action_slices)),
            'language': Modality([0], [embodiment.language]),
        }

    def extra_info(self) -> dict[str, Any]:
        """Sizes as a LeRobot model has them."""
        return {'image_sizes': {'zed_camera': [64, 48]}, 'real_time_chunking': True}

    def get_action(
        self, observation: dict[str, Any], options: dict[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Zeros for each action."""
        self.asked += 1
        parts = self.embodiment.action_slices.items()
        action = {name: np.zeros((1, 16, part.stop - part.start), np.float32) for name, part in parts}
        return action, {'chunk': self.asked}

    def reset(self) -> None:
        """Does nothing."""


def _odd_value(random: np.random.Generator) -> Any:
    return _ODD_VALUES[random.integers(len(_ODD_VALUES))]


def _with_odd_value(random: np.random.Generator, message: Any) -> Any:
    """The message with another value somewhere in it."""
    if isinstance(message, dict) and message and random.random() < 0.85:
        changed = dict(message)
        key = list(changed)[random.integers(len(changed))]
        changed[key] = _with_odd_value(random, changed[key])
        return changed
    if isinstance(message, list | tuple) and len(message) and random.random() < 0.85:
        items = list(message)
        at = int(random.integers(len(items)))
        items[at] = _with_odd_value(random, items[at])
        return items
    return _odd_value(random)


def _damaged(random: np.random.Generator, message: Any, version: str) -> bytes:
    choice = random.random()
    if choice < 0.05:
        return _BOMBS[random.integers(len(_BOMBS))]
    if choice < 0.5:
        return damage_bytes(random, pack(message, version))
    try:
        return pack(_with_odd_value(random, message), version)
    except (GrootRosError, OverflowError, ValueError):
        return random.bytes(int(random.integers(1, 2000)))


def _observation(embodiment: Embodiment) -> Observation:
    images = {camera.name: np.zeros((48, 64, 3), np.uint8) for camera in embodiment.cameras}
    return Observation(0, np.zeros(embodiment.state_size), images, 'push')


def _request_data(embodiment: Embodiment, version: str) -> dict[str, Any]:
    """An observation that reaches the model, in the form of a GR00T version."""
    states = {
        name: np.zeros((1, part.stop - part.start), np.float32)
        for name, part in embodiment.state_slices.items()
    }
    images = {camera.name: np.zeros((1, 48, 64, 3), np.uint8) for camera in embodiment.cameras}
    if version == 'n1.5':
        flat = {f'state.{name}': values for name, values in states.items()}
        flat |= {f'video.{name}': values for name, values in images.items()}
        return {**flat, embodiment.language: ['push']}
    observation = {
        'video': {name: values[None] for name, values in images.items()},
        'state': {name: values[None] for name, values in states.items()},
        'language': {embodiment.language: [['push']]},
    }
    return {'observation': observation, 'options': {'tick_ns': 1, 'follows': {'chunk': 1}}}


class WireServer(Target):
    """Requests to a model server. It answers each, and without the token nobody reaches the model."""

    name = 'protocol-server'

    def prepare(self, seeds: Path) -> None:
        """Needs no files."""

    def run_case(self, random: np.random.Generator, seeds: Path, folder: Path) -> int:
        """Sends some damaged requests to one server, and an honest one after each."""
        embodiment = load_embodiment('ur5e_robotiq_zed')
        version = GR00T_VERSIONS[random.integers(3)]
        model = _Model(embodiment)
        has_token = random.random() < 0.5
        server = Server(model, '127.0.0.1', 0, version, token=_TOKEN if has_token else '')
        token = {'api_token': _TOKEN} if has_token else {}
        endpoints = ('ping', 'get_action', 'get_modality_config', 'reset')
        for _ in range(5):
            data = _request_data(embodiment, version)
            message = {'endpoint': endpoints[random.integers(4)], 'data': data}
            own = {} if random.random() < 0.5 else token
            reply = unpack(server.answer(_damaged(random, {**message, **own}, version)))
            if has_token and not own and model.asked:
                raise WrongAcceptError('the model was asked without the token')
            model.asked = 0
            print(str(reply)[:200])
            honest = unpack(server.answer(pack({'endpoint': 'ping', **token}, version)))
            if honest.get('status') != 'ok':
                raise WrongAcceptError(f'an honest request was answered with {honest}')
        server.run(lambda: False)
        return 0


class _Replies(Client):
    """A client whose server answers with given bytes."""

    def __init__(self, replies: list[bytes], version: str) -> None:
        super().__init__('127.0.0.1', 1, version)
        self._replies = replies

    def _exchange(self, request: bytes, timeout_ms: int) -> Any:
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        return self._decode([reply])


class WireClient(Target):
    """Answers to the client of a policy, from a server that is damaged or hostile."""

    name = 'protocol-client'

    def prepare(self, seeds: Path) -> None:
        """Needs no files."""

    def run_case(self, random: np.random.Generator, seeds: Path, folder: Path) -> int:
        """Makes a policy and asks it, with one damaged answer."""
        embodiment = load_embodiment('ur5e_robotiq_zed')
        version = GR00T_VERSIONS[random.integers(3)]
        model = _Model(embodiment)
        modalities = {**model.modalities(), **model.extra_info()}
        action = model.get_action({}, None)
        if version == 'n1.5':
            action = {f'action.{name}': values[0] for name, values in action[0].items()}
        replies = [pack(modalities, version), pack(action, version)]
        damaged = int(random.integers(2))
        replies[damaged] = _damaged(random, (modalities, action)[damaged], version)
        try:
            policy = RemotePolicy(_Replies(replies, version), embodiment, version)
            answer = policy.infer(_observation(embodiment))
        except GrootRosError as error:
            print(str(error)[:500], file=sys.stderr)
            return 1
        print({name: values.shape for name, values in answer.items()})
        return 0
