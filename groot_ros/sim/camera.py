# SPDX-License-Identifier: Apache-2.0
"""The camera process of the cell: renders the states it receives, and streams the frames over TCP."""

import socket
from multiprocessing.connection import Connection as Pipe

import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.sim.ports import CAMERAS, FRAME_HEADER, FRAME_MAGIC
from groot_ros.sim.rendering import SceneRenderer


def run_camera(pipe: Pipe, host: str) -> None:
    """Renders (stamp_ns, qpos) records until the pipe closes.

    Sends one message first: empty when the cameras are ready, else the error.
    """
    try:
        renderer = SceneRenderer()
        streams = [_Stream(host, name, camera.port) for name, camera in CAMERAS.items()]
    except GrootRosError as error:
        pipe.send_bytes(str(error).encode())
        return
    pipe.send_bytes(b'')
    try:
        while True:
            record = _receive_newest(pipe)
            stamp_ns = int(np.frombuffer(record[:8], np.int64)[0])
            qpos = np.frombuffer(record[8:], np.float64)
            for stream in streams:
                stream.send(renderer, qpos, stamp_ns)
    except (EOFError, KeyboardInterrupt):
        for stream in streams:
            stream.close()


class _Stream:
    """The port of one camera, and who is connected to it."""

    def __init__(self, host: str, camera: str, port: int) -> None:
        self._camera = camera
        self._clients: list[socket.socket] = []
        try:
            self._listener = socket.create_server((host, port))
        except OSError as error:
            raise GrootRosError(
                f'The simulated camera cannot listen on {host}:{port} ({error.strerror}).'
            ) from error
        self._listener.setblocking(False)

    def send(self, renderer: SceneRenderer, qpos: np.ndarray, stamp_ns: int) -> None:
        """Renders a frame, and sends it to everybody who is connected; nothing is rendered for nobody."""
        self._accept()
        if not self._clients:
            return
        frame = renderer.render(qpos, self._camera)
        header = FRAME_HEADER.pack(FRAME_MAGIC, renderer.width, renderer.height, stamp_ns)
        data = header + frame.tobytes()
        for client in list(self._clients):
            self._send_to(client, data)

    def close(self) -> None:
        """Closes the port and the connections to it."""
        self._listener.close()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            return
        client.settimeout(0.5)
        self._clients.append(client)

    def _send_to(self, client: socket.socket, data: bytes) -> None:
        try:
            client.sendall(data)
        except OSError:
            self._clients.remove(client)
            client.close()


def _receive_newest(pipe: Pipe) -> bytes:
    record = pipe.recv_bytes()
    while pipe.poll():
        record = pipe.recv_bytes()
    return record
