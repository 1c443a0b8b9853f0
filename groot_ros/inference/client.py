# SPDX-License-Identifier: Apache-2.0
"""A client of GR00T's inference server: NVIDIA's own, or one of `groot-ros serve`."""

from typing import Any

import numpy as np
import zmq

from groot_ros.errors import PolicyError
from groot_ros.inference.protocol import MAX_REPLY_BYTES, ProtocolError, pack, unpack

_MAX_REASON = 500


class Client:
    """Sends requests to a server at `host:port`, one at a time, from one thread.

    Every failure is a PolicyError; the next request connects again.
    """

    def __init__(
        self, host: str, port: int, gr00t_version: str, token: str = '', timeout_s: float = 5.0
    ) -> None:
        self.address = f'{host}:{port}'
        self._gr00t_version = gr00t_version
        self._token = token
        self._timeout_ms = round(timeout_s * 1e3)
        self._context = zmq.Context.instance()
        self._socket: zmq.Socket | None = None

    def request(
        self, endpoint: str, data: dict[str, Any] | None = None, reply_timeout_s: float = np.inf
    ) -> Any:
        """The server's reply, within the client's timeout or `reply_timeout_s`, whichever is shorter.

        Raises PolicyError if no reply comes, if it cannot be decoded, or if it is an error message.
        """
        message: dict[str, Any] = {'endpoint': endpoint}
        if data is not None:
            message['data'] = data
        if self._token:
            message['api_token'] = self._token
        timeout_ms = round(min(reply_timeout_s * 1e3, self._timeout_ms))
        reply = self._exchange(pack(message, self._gr00t_version), timeout_ms)
        if isinstance(reply, dict) and 'error' in reply:
            reason = _reason(reply['error'])
            raise PolicyError(f'The server at {self.address} refused {endpoint}: {reason}.')
        return reply

    def close(self) -> None:
        """Closes the connection; the next request opens it again."""
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None

    def _exchange(self, request: bytes, timeout_ms: int) -> Any:
        socket = self._socket or self._connect()
        try:
            socket.setsockopt(zmq.RCVTIMEO, timeout_ms)
            socket.send(request)
            return self._decode(socket.recv_multipart())
        except zmq.Again as error:
            self.close()  # a REQ socket that waits for a reply takes no other request
            waited = f'{timeout_ms / 1e3:g} s'
            raise PolicyError(
                f'The server at {self.address} gave no answer for {waited}: '
                'check that it runs, and its address and port.'
            ) from error
        except zmq.ZMQError as error:
            self.close()
            raise PolicyError(f'The server at {self.address} cannot be reached ({error}).') from error

    def _decode(self, parts: list[bytes]) -> Any:
        """The reply that the parts of a message are. Raises PolicyError, and closes, if they are none."""
        try:
            if len(parts) != 1:
                raise ProtocolError(f'it answered with {len(parts)} message parts')
            return unpack(parts[0], MAX_REPLY_BYTES)
        except ProtocolError as error:
            self.close()
            raise PolicyError(
                f'The server at {self.address} is not a GR00T model server, or has another GR00T version: '
                f'{error}.'
            ) from error

    def _connect(self) -> zmq.Socket:
        socket = self._context.socket(zmq.REQ)
        socket.setsockopt(zmq.SNDTIMEO, self._timeout_ms)
        socket.setsockopt(zmq.LINGER, 0)
        # A larger message closes the connection before it fills the memory.
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_REPLY_BYTES)
        socket.connect(f'tcp://{self.address}')
        self._socket = socket
        return socket


def _reason(error: Any) -> str:
    """The text of a server's error on one line, for logs."""
    words = str(error)[:_MAX_REASON].split()
    text = ''.join(letter for letter in ' '.join(words) if letter.isprintable())
    return text.rstrip('.') or 'it could not read the request'
