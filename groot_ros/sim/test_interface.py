# SPDX-License-Identifier: Apache-2.0
"""What tests and the scripted operator may ask of the cell beyond a real robot's protocols: JSON lines on port 40000."""

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
    """`{"do": NAME, ...}` calls one of the given functions and answers `{"result": ...}` or `{"error": text}`."""

    name = 'test hooks'

    def __init__(self, host: str, calls: dict[str, Callable[..., Any]]) -> None:
        super().__init__(host, HOOK_PORT)
        self._calls = calls

    def received(self, connection: Connection) -> None:
        """Answers each complete line."""
        for line in connection.lines():
            connection.send(json.dumps(self._answer(line)).encode() + b'\n')

    def _answer(self, line: str) -> dict[str, Any]:
        try:
            request = json.loads(line)
            return {'result': self._calls[request.pop('do')](**request)}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return {'error': f'{type(error).__name__}: {error}'}


class CellHooks:
    """Client of the hooks. Raises GrootRosError where no cell answers within `patience_s`."""

    def __init__(self, host: str, patience_s: float = 2.0) -> None:
        self._socket = _connect(host, time.monotonic() + patience_s)
        self._file = self._socket.makefile('rw')

    def call(self, name: str, **arguments: float) -> Any:
        """Calls a hook by name."""
        try:
            self._file.write(json.dumps({'do': name, **arguments}) + '\n')
            self._file.flush()
            answer = json.loads(self._file.readline() or '{"error": "the cell closed the connection"}')
        except OSError as error:
            raise GrootRosError(f'The sim_cell stopped answering its test hooks ({error}).') from error
        if 'error' in answer:
            raise GrootRosError(f'The sim_cell refused the hook {name}: {answer["error"]}')
        return answer['result']

    def cube_pose(self) -> Array:
        """Pose (7,) of the cube in `base`."""
        return np.array(self.call('cube_pose'))

    def place_cube(self, x_m: float, y_m: float, yaw_rad: float) -> None:
        """Puts the cube on the table."""
        self.call('place_cube', x_m=x_m, y_m=y_m, yaw_rad=yaw_rad)

    def close(self) -> None:
        """Hangs up."""
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
