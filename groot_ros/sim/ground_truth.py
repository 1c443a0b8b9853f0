# SPDX-License-Identifier: Apache-2.0
"""The simulator's own record of every tick, for judging what the drivers and the recorder made of it."""

import threading
from pathlib import Path

import numpy as np

from groot_ros.sim.controller import Controller
from groot_ros.sim.rtde_server import RtdeServer

TRUTH_DTYPE = np.dtype([
    ('stamp_ns', 'i8'), ('joint_positions', 'f8', 6), ('joint_velocities', 'f8', 6), ('opening', 'f8'),
    ('target_positions', 'f8', 6), ('target_accelerations', 'f8', 6),
    ('servo_target', 'f8', 6), ('servo_arrival_ns', 'i8'),
])  # fmt: skip
"""Per tick: the measured arm (rad, rad/s), the opening, the controller's set-point, and the newest servo target with its arrival."""


class TruthLog:
    """Appends one record a tick to a file of TRUTH_DTYPE records; a thread writes, since a busy disk can block for a second."""

    def __init__(self, path: Path) -> None:
        self._file = path.open('wb')
        self._record = np.zeros(1, TRUTH_DTYPE)
        self._waiting = bytearray()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name='truth', daemon=True)
        self._thread.start()

    def write(self, stamp_ns: int, controller: Controller, opening: float, rtde: RtdeServer) -> None:
        """Records the state of a tick."""
        actual, setpoint = controller.actual, controller.setpoint
        self._record[0] = (
            stamp_ns, actual.positions, actual.velocities, opening, setpoint.positions, setpoint.accelerations,
            rtde.servo_target, rtde.servo_arrival_ns,
        )  # fmt: skip
        self._waiting += self._record.tobytes()

    def close(self) -> None:
        """Writes what still waits."""
        self._closing.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._closing.wait(0.5):
            self._flush()
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, bytearray()
        self._file.write(waiting)


def read_truth(path: Path) -> np.ndarray:
    """Records (n,) of TRUTH_DTYPE; a torn last record is left out."""
    data = path.read_bytes()
    return np.frombuffer(data[: len(data) // TRUTH_DTYPE.itemsize * TRUTH_DTYPE.itemsize], TRUTH_DTYPE)
