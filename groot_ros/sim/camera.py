# SPDX-License-Identifier: Apache-2.0
"""The camera process of the cell: renders the states it receives and streams the frames over TCP."""

import socket
from multiprocessing.connection import Connection as Pipe

import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.sim.ports import CAMERA_PORT, FRAME_HEADER, FRAME_MAGIC
from groot_ros.sim.rendering import SceneRenderer


def run_camera(pipe: Pipe, host: str, width: int, height: int) -> None:
    """Renders (stamp_ns, qpos) records until the pipe closes.

    Sends one message first: empty when the camera is ready, else the error.
    """
    try:
        renderer = SceneRenderer(width, height)
        listener = _listen(host)
    except GrootRosError as error:
        pipe.send_bytes(str(error).encode())
        return
    pipe.send_bytes(b'')
    clients: list[socket.socket] = []
    try:
        while True:
            record = _receive_newest(pipe)
            _accept(listener, clients)
            if clients:
                stamp_ns = int(np.frombuffer(record[:8], np.int64)[0])
                frame = renderer.render(np.frombuffer(record[8:], np.float64), 'zed').tobytes()
                _send(clients, FRAME_HEADER.pack(FRAME_MAGIC, width, height, stamp_ns) + frame)
    except (EOFError, KeyboardInterrupt):
        listener.close()


def _listen(host: str) -> socket.socket:
    try:
        listener = socket.create_server((host, CAMERA_PORT))
    except OSError as error:
        raise GrootRosError(
            f'The simulated camera cannot listen on {host}:{CAMERA_PORT} ({error.strerror}).'
        ) from error
    listener.setblocking(False)
    return listener


def _receive_newest(pipe: Pipe) -> bytes:
    record = pipe.recv_bytes()
    while pipe.poll():
        record = pipe.recv_bytes()
    return record


def _accept(listener: socket.socket, clients: list[socket.socket]) -> None:
    try:
        client, _ = listener.accept()
    except BlockingIOError:
        return
    client.settimeout(0.5)
    clients.append(client)


def _send(clients: list[socket.socket], data: bytes) -> None:
    for client in list(clients):
        try:
            client.sendall(data)
        except OSError:
            clients.remove(client)
            client.close()
