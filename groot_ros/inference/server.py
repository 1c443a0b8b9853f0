# SPDX-License-Identifier: Apache-2.0
"""Serves a policy on GR00T's wire: `groot-ros serve`. Needs numpy, msgpack and pyzmq only, so that it runs in a model's own environment."""

import hmac
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import zmq

from groot_ros.errors import GrootRosError
from groot_ros.inference.protocol import (
    MAX_MESSAGE_BYTES,
    TOKEN_VARIABLE,
    Modality,
    ProtocolError,
    pack,
    unpack,
)

_LOOK_MS = 200


class ModelBackend(Protocol):
    """What a backend gives: modalities as GR00T tells them, and actions (1, H, size) of an observation in GR00T's own form."""

    name: str

    def modalities(self) -> dict[str, Modality]:
        """video, state, action and language."""

    def extra_info(self) -> dict[str, Any]:
        """What our own client wants to know besides: `image_sizes` (width, height by name) and `real_time_chunking`."""

    def get_action(
        self, observation: dict[str, Any], options: dict[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Actions by key, and what else there is to say."""

    def reset(self) -> None:
        """Begins anew."""


class Server:
    """Answers one request after another at `port`, any free one for 0. Without a token `kill` is refused to everybody."""

    def __init__(
        self,
        backend: ModelBackend,
        host: str = '127.0.0.1',
        port: int = 5555,
        gr00t_version: str = 'n1.7',
        token: str = '',
    ) -> None:
        self._backend, self._gr00t_version, self._token = backend, gr00t_version, token
        self.running = True
        self._socket = zmq.Context.instance().socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 500)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        try:
            self._socket.bind(f'tcp://{host}:{port or "*"}')
        except zmq.ZMQError as error:
            self._socket.close()
            raise GrootRosError(
                f'{host}:{port} cannot be served ({error.strerror}): choose another --port, or stop who has it.'
            ) from error
        self.port = int(self._socket.getsockopt(zmq.LAST_ENDPOINT).decode().rsplit(':', 1)[-1])

    def run(self, go_on: Callable[[], bool] = lambda: True) -> None:
        """Serves until `kill`, or until `go_on` says no."""
        try:
            while self.running and go_on():
                if self._socket.poll(_LOOK_MS):
                    self._socket.send(self.answer(self._socket.recv()))
        finally:
            self._socket.close()

    def answer(self, request: bytes) -> bytes:
        """The reply to a request; whatever is wrong with it is told, and the server goes on."""
        try:
            reply = self._reply(unpack(request))
        except (ProtocolError, GrootRosError) as error:
            reply = {'error': str(error)}
        except Exception as error:  # a model raises what it likes
            reply = {'error': f'{type(error).__name__}: {error}'}
        return pack(reply, self._gr00t_version)

    def _reply(self, message: Any) -> Any:
        if not isinstance(message, dict):
            return {'error': 'a request is a map with an endpoint'}
        if self._token and not hmac.compare_digest(str(message.get('api_token', '')), self._token):
            return {'error': 'Unauthorized: Invalid API token'}
        endpoint = str(message.get('endpoint', 'get_action'))
        if endpoint == 'ping':
            return {'status': 'ok', 'message': 'Server is running'}
        if endpoint == 'get_modality_config':
            return {**self._backend.modalities(), **self._backend.extra_info()}
        if endpoint == 'reset':
            self._backend.reset()
            return {}
        if endpoint == 'kill':
            return self._kill()
        if endpoint == 'get_action':
            return self._act(message.get('data'))
        return {'error': f'Unknown endpoint: {endpoint}'}

    def _kill(self) -> Any:
        if not self._token:
            return {
                'error': f'kill needs a server that was started with a token (environment variable {TOKEN_VARIABLE})'
            }
        self.running = False
        return None

    def _act(self, data: Any) -> Any:
        if not isinstance(data, dict):
            return {'error': 'get_action needs data'}
        observation = data if self._gr00t_version == 'n1.5' else data.get('observation', data)
        if self._gr00t_version == 'n1.5':
            action, _ = self._backend.get_action(_nested(observation), None)
            return {f'action.{name}': values[0] for name, values in action.items()}
        return list(self._backend.get_action(observation, data.get('options')))


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """An observation of N1.5, `state.arm` (steps, size) and so on, in the form of the later releases."""
    parts: dict[str, dict[str, Any]] = {'video': {}, 'state': {}, 'language': {}}
    for name, value in flat.items():
        kind, _, rest = str(name).partition('.')
        if kind in ('video', 'state'):
            parts[kind][rest] = np.asarray(value)[None].astype(np.uint8 if kind == 'video' else np.float32)
        else:
            parts['language'][name] = [list(value)]
    return parts
