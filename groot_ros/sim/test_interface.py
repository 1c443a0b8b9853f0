# SPDX-License-Identifier: Apache-2.0
"""Test interface of the cell: JSON lines on port 40000 for what no protocol of a real robot offers."""

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.sim.ports import HOOK_PORT
from groot_ros.sim.sockets import Connection, TcpServer


class HookServer(TcpServer):
    """`{"do": NAME, ...}` calls one of the given functions.

    The answer is `{"result": ...}` or `{"error": text}`.
    """

    name = 'test interface'

    def __init__(self, host: str, calls: dict[str, Callable[..., Any]]) -> None:
        super().__init__(host, HOOK_PORT)
        self._calls = calls

    def on_data(self, connection: Connection) -> None:
        """Answers every complete line in the inbox."""
        for line in connection.take_lines():
            connection.send(json.dumps(self._answer(line)).encode() + b'\n')

    def _answer(self, line: str) -> dict[str, Any]:
        try:
            request = json.loads(line)
            return {'result': self._calls[request.pop('do')](**request)}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return {'error': f'{type(error).__name__}: {error}'}


class CellHooks:
    """Client of the test interface. Raises GrootRosError when no cell answers within `timeout_s`."""

    def __init__(self, host: str, timeout_s: float = 2.0) -> None:
        self._socket = _connect(host, time.monotonic() + timeout_s)
        self._file = self._socket.makefile('rw')

    def call(self, name: str, **arguments: float) -> Any:
        """Calls a function of the cell by its name and returns its result."""
        try:
            self._file.write(json.dumps({'do': name, **arguments}) + '\n')
            self._file.flush()
            answer = json.loads(self._file.readline() or '{"error": "the cell closed the connection"}')
        except OSError as error:
            raise GrootRosError(
                f'The sim_cell no longer answers on its test interface ({error}): see its messages.'
            ) from error
        if 'error' in answer:
            raise GrootRosError(f'The sim_cell refused the call {name}: {answer["error"]}')
        return answer['result']

    def cube_pose(self) -> Array:
        """Pose (7,) of the cube in `base`."""
        return np.array(self.call('cube_pose'))

    def place_cube(self, x_m: float, y_m: float, yaw_rad: float) -> None:
        """Puts the cube flat on the table, at x and y in `base`."""
        self.call('place_cube', x_m=x_m, y_m=y_m, yaw_rad=yaw_rad)

    def close(self) -> None:
        """Closes the connection to the cell."""
        self._file.close()
        self._socket.close()


def _connect(host: str, deadline_s: float) -> socket.socket:
    while True:
        try:
            return socket.create_connection((host, HOOK_PORT), timeout=2.0)
        except OSError as error:
            if time.monotonic() > deadline_s:
                raise GrootRosError(
                    f'No sim_cell answers on {host}:{HOOK_PORT} ({error}): start it with `groot-ros up sim`.'
                ) from error
        time.sleep(0.2)
