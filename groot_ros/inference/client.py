# SPDX-License-Identifier: Apache-2.0
"""A client of GR00T's inference server: NVIDIA's own, or one of `groot-ros serve`."""

from typing import Any

import numpy as np
import zmq

from groot_ros.errors import PolicyError
from groot_ros.inference.protocol import MAX_MESSAGE_BYTES, ProtocolError, pack, unpack


class Client:
    """Asks a server at `host:port`, one request at a time. Every failure is a PolicyError, after which it may be asked again.

    To be used in one thread.
    """

    def __init__(
        self, host: str, port: int, gr00t_version: str, token: str = '', timeout_s: float = 5.0
    ) -> None:
        self.address = f'{host}:{port}'
        self._gr00t_version, self._token, self._timeout_ms = gr00t_version, token, round(timeout_s * 1e3)
        self._context = zmq.Context.instance()
        self._socket: zmq.Socket | None = None

    def request(
        self, endpoint: str, data: dict[str, Any] | None = None, reply_timeout_s: float = np.inf
    ) -> Any:
        """The server's reply, within the time-out or `reply_timeout_s`, whichever is shorter.

        Raises PolicyError where there is none, where it is no message, and with what the server says is wrong.
        """
        message: dict[str, Any] = {'endpoint': endpoint}
        if data is not None:
            message['data'] = data
        if self._token:
            message['api_token'] = self._token
        reply = self._exchange(
            pack(message, self._gr00t_version), round(min(reply_timeout_s * 1e3, self._timeout_ms))
        )
        if isinstance(reply, dict) and 'error' in reply:
            raise PolicyError(
                f'The server at {self.address} refused {endpoint}: {reply["error"] or "it could not read the request"}.'
            )
        return reply

    def close(self) -> None:
        """Closes the connection."""
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None

    def _exchange(self, request: bytes, timeout_ms: int) -> Any:
        socket = self._socket or self._connect()
        try:
            socket.setsockopt(zmq.RCVTIMEO, timeout_ms)
            socket.send(request)
            return unpack(socket.recv())
        except zmq.Again as error:
            self.close()  # a REQ socket that waits for a reply takes no other request
            waited = f'{timeout_ms / 1e3:g} s'
            raise PolicyError(
                f'The server at {self.address} gave no answer for {waited}: does it run, and is the port right?'
            ) from error
        except zmq.ZMQError as error:
            self.close()
            raise PolicyError(f'The server at {self.address} cannot be reached ({error}).') from error
        except ProtocolError as error:
            self.close()
            raise PolicyError(
                f'The server at {self.address} is no GR00T server, or of another release: {error}.'
            ) from error

    def _connect(self) -> zmq.Socket:
        socket = self._context.socket(zmq.REQ)
        for option, value in ((zmq.SNDTIMEO, self._timeout_ms), (zmq.LINGER, 0)):
            socket.setsockopt(option, value)
        # A larger message closes the connection before it fills the memory.
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.connect(f'tcp://{self.address}')
        self._socket = socket
        return socket
