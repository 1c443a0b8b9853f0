# SPDX-License-Identifier: Apache-2.0
"""A server of GR00T's inference protocol, for `groot-ros serve` and for the process of a model.

It needs only numpy, msgpack and pyzmq, so it runs in a model's own Python.
"""

import contextlib
import hmac
import os
import secrets
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import zmq

from groot_ros.errors import GrootRosError
from groot_ros.inference.observation_check import check_form, check_observation, wrong_version
from groot_ros.inference.port_guard import PortGuard
from groot_ros.inference.protocol import (
    EXTRA_INFO,
    MAX_MESSAGE_BYTES,
    TOKEN_VARIABLE,
    Envelope,
    Modality,
    ProtocolError,
    open_envelope,
    pack,
    unpack,
)

_POLL_MS = 200
_LINGER_MS = 500
# A client of the protocol has one request on its way.
_WAITING_REQUESTS = 2
_MAX_REASON = 2000


class ModelBackend(Protocol):
    """A model as the server sees it. Observations and actions have the form of GR00T N1.6 and N1.7."""

    name: str

    def modalities(self) -> dict[str, Modality]:
        """The modalities `video`, `state`, `action` and `language`."""

    def extra_info(self) -> dict[str, Any]:
        """What our own client uses beyond GR00T's protocol.

        `image_sizes` has width and height by camera name.
        `real_time_chunking` says whether chunks are continued.
        `takes_time` says whether the time of an observation is used.
        """

    def get_action(
        self, observation: dict[str, Any], options: dict[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Actions (1, H, size) by key in physical units, and information such as the chunk's number.

        The observation has `video` (1, T, height, width, 3), `state` (1, T, size) and `language` by key.
        """

    def reset(self) -> None:
        """Forgets the present episode and starts a new one."""


class Server:
    """Answers one request after another at `port`; 0 is any free port. Clients take turns.

    With a token, requests that do not carry it are refused; without one, `kill` is refused.
    Raises GrootRosError if the address cannot be used.
    """

    def __init__(
        self,
        backend: ModelBackend,
        host: str = '127.0.0.1',
        port: int = 5555,
        gr00t_version: str = 'n1.7',
        token: str = '',
    ) -> None:
        self._backend = backend
        self._gr00t_version = gr00t_version
        self._token = token
        self.running = True
        self._socket = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self._socket.setsockopt(zmq.RCVHWM, _WAITING_REQUESTS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._socket.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
        # An abstract socket of Linux, which leaves no file behind. The guard alone listens to the network.
        inner = f'groot_ros_{secrets.token_hex(16)}'
        self._socket.bind(f'ipc://@{inner}')
        try:
            self._guard = PortGuard(host, port, inner, MAX_MESSAGE_BYTES)
        except OSError as error:
            self._socket.close()
            raise GrootRosError(
                f'{host}:{port} cannot be served ({error.strerror}): choose another --port, '
                'or stop the program that uses this one.'
            ) from error
        self.port = self._guard.port

    def run(self, keep_running: Callable[[], bool] = lambda: True) -> None:
        """Serves until a client sends `kill`, or until `keep_running` returns False."""
        try:
            while self.running and keep_running():
                if self._socket.poll(_POLL_MS):
                    self._serve_one()
        finally:
            self._socket.close()
            self._guard.close(_LINGER_MS / 1e3)

    def _serve_one(self) -> None:
        """Answers one message. A REQ socket sends an empty part before the request."""
        try:
            client, *parts = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:  # the peer broke off
            return
        if len(parts) == 2 and not parts[0]:
            reply = self.answer(parts[1])
        else:
            reply = self._pack_error('a request is one message part of a REQ socket')
        with contextlib.suppress(zmq.Again):  # a client that reads no replies loses them
            self._socket.send_multipart([client, b'', reply], zmq.NOBLOCK)

    def answer(self, request: bytes) -> bytes:
        """The reply to a request. Any error becomes a reply with its text, and the server continues."""
        try:
            return pack(self._reply(open_envelope(request)), self._gr00t_version)
        except GrootRosError as error:
            return self._pack_error(str(error))
        except Exception as error:  # a model may raise anything, and answer what cannot be sent
            return self._pack_error(f'{type(error).__name__}: {error}')

    def _pack_error(self, reason: str) -> bytes:
        printable = reason[:_MAX_REASON].encode(errors='replace').decode()
        return pack({'error': printable}, self._gr00t_version)

    def _reply(self, request: Envelope) -> Any:
        if self._token and not hmac.compare_digest(request.token.encode(), self._token.encode()):
            return {'error': 'Unauthorized: Invalid API token'}
        endpoint = request.endpoint
        if endpoint == 'ping':
            return {'status': 'ok', 'message': 'Server is running'}
        if endpoint == 'get_modality_config':
            return self._describe(unpack(request.data) if request.data else None)
        if endpoint == 'reset':
            self._backend.reset()
            return {}
        if endpoint == 'kill':
            return self._kill()
        if endpoint == 'get_action':
            return self._act(request.data)
        return {'error': f'Unknown endpoint: {endpoint}'}

    def _kill(self) -> Any:
        if not self._token:
            needed = f'a server that was started with a token (environment variable {TOKEN_VARIABLE})'
            return {'error': f'kill needs {needed}'}
        self.running = False
        return None

    def _describe(self, data: Any) -> dict[str, Any]:
        """The modalities, and extra_info if our own client asks for it: NVIDIA's take all for modalities."""
        modalities = self._backend.modalities()
        if self._gr00t_version == 'n1.5':
            modalities = {kind: _with_prefix(kind, modality) for kind, modality in modalities.items()}
        asks_for_more = isinstance(data, dict) and data.get(EXTRA_INFO) is True
        return {**modalities, **self._backend.extra_info()} if asks_for_more else modalities

    def _act(self, request: bytes) -> Any:
        """The reply to get_action, in the form of the version."""
        if not request:
            return {'error': 'get_action needs data'}
        check_form(request, self._gr00t_version)
        data = unpack(request)
        if not isinstance(data, dict):
            return {'error': 'get_action needs data'}
        is_flat = self._gr00t_version == 'n1.5'
        if is_flat and 'observation' in data:
            raise ProtocolError(wrong_version(self._gr00t_version, 'N1.6 or N1.7'))
        if not is_flat and any(str(key).startswith(('video.', 'state.')) for key in data):
            raise ProtocolError(wrong_version(self._gr00t_version, 'N1.5'))
        observation = _nest(data) if is_flat else data.get('observation')
        check_observation(observation, self._backend.modalities())
        options = data.get('options')
        action, info = self._backend.get_action(observation, options if isinstance(options, dict) else None)
        if is_flat:
            return {f'action.{name}': values[0] for name, values in action.items()}
        return [action, info]


def _with_prefix(kind: str, modality: Modality) -> Modality:
    """A modality as N1.5 writes it: `state.arm`; keys of the language are whole already."""
    if kind == 'language':
        return modality
    return Modality(modality.delta_indices, [f'{kind}.{key}' for key in modality.keys], modality.actions)


def _nest(flat: dict[str, Any]) -> dict[str, Any]:
    """Converts an observation of N1.5, such as `state.arm` (steps, size), to the form of N1.6 and N1.7.

    States of N1.5 may have any type of float.
    """
    nested: dict[str, dict[str, Any]] = {'video': {}, 'state': {}, 'language': {}}
    for name, value in flat.items():
        kind, _, key = str(name).partition('.')
        if kind == 'state' and isinstance(value, np.ndarray) and value.dtype.kind == 'f':
            nested[kind][key] = value[None].astype(np.float32)
        elif kind in ('state', 'video'):
            nested[kind][key] = np.asarray(value)[None]
        elif name != 'options':
            nested['language'][name] = [[value] if isinstance(value, str) else list(value)]
    return nested
