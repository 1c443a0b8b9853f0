# SPDX-License-Identifier: Apache-2.0
"""Garbage, floods and broken answers of a gripper and of the simulated camera."""

import socket
import sys
import threading
from pathlib import Path

import numpy as np

from fuzz.damage import damage_bytes
from fuzz.target import Target
from groot_ros.errors import GrootRosError
from groot_ros.hardware.cameras.base import CameraSettings
from groot_ros.hardware.robotiq.urcap import UrcapSocket
from groot_ros.sim.camera_client import SimCamera
from groot_ros.sim.ports import FRAME_HEADER, FRAME_MAGIC

_REGISTERS = b'POS 3\nPRE 3\nOBJ 3\nFLT 0\nSTA 3\n'
_FLOODS = (
    b'POS ' + b'9' * 5000 + b'\n',
    b'x' * (8 << 20),
    b'POS 3\n' * 1_000_000,
    bytes(8 << 20),
    b'FLT -1\n' * 5,
    b'POS ?\n' * 5,
    FRAME_HEADER.pack(FRAME_MAGIC, 2**32 - 1, 2**32 - 1, 0),
    FRAME_HEADER.pack(FRAME_MAGIC, 0, 0, 0),
)


class Devices(Target):
    """What a gripper or a camera sends is a reading, or an error within some seconds."""

    name = 'devices'

    def prepare(self, seeds: Path) -> None:
        """Needs no files."""

    def run_case(self, random: np.random.Generator, seeds: Path, folder: Path) -> int:
        """Connects to something that sends a damaged answer and hangs up."""
        is_gripper = random.random() < 0.6
        image = random.integers(0, 255, 48 * 64 * 3, np.uint8).tobytes()
        answer = _REGISTERS if is_gripper else FRAME_HEADER.pack(FRAME_MAGIC, 64, 48, 10**18) + image
        if random.random() < 0.3:
            answer = _FLOODS[random.integers(len(_FLOODS))]
        else:
            answer = damage_bytes(random, answer)
        with socket.create_server(('127.0.0.1', 0)) as listener:
            threading.Thread(target=_send, args=(listener, answer), daemon=True).start()
            port = listener.getsockname()[1]
            try:
                return _read_gripper(port) if is_gripper else _read_camera(port)
            except (OSError, GrootRosError) as error:
                print(error, file=sys.stderr)
                return 1


def _send(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        try:
            connection.sendall(answer)
        except OSError:
            return  # the driver has closed the connection


def _read_gripper(port: int) -> int:
    gripper = UrcapSocket('127.0.0.1', port)
    try:
        for _ in range(2):
            print(gripper.read())
    finally:
        gripper.close()
    return 0


def _read_camera(port: int) -> int:
    camera = SimCamera(CameraSettings(host='127.0.0.1'), port)
    try:
        print(next(camera.frames()).images.keys())
    finally:
        camera.close()
    return 0
