# SPDX-License-Identifier: Apache-2.0
"""A file with the true state of the simulator at every tick, to compare with what was recorded."""

import threading
from collections import deque
from pathlib import Path

import numpy as np

from groot_ros.sim.controller import Controller
from groot_ros.sim.rtde_server import RtdeServer

TRUTH_DTYPE = np.dtype([
    ('stamp_ns', 'i8'), ('joint_positions', 'f8', 6), ('joint_velocities', 'f8', 6), ('opening', 'f8'),
    ('target_positions', 'f8', 6), ('target_accelerations', 'f8', 6),
    ('servo_target', 'f8', 6), ('servo_arrival_ns', 'i8'),
])  # fmt: skip
"""A tick: the measured arm (rad, rad/s), the gripper opening (0 to 1), the set-point of the controller,
and the newest servo target with the time of its arrival."""


class TruthLog:
    """Appends a TRUTH_DTYPE record per tick to a file.

    A thread writes, because a busy disk can block for a second.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open('wb')
        self._record = np.zeros(1, TRUTH_DTYPE)
        self._waiting: deque[bytes] = deque()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name='truth', daemon=True)
        self._thread.start()

    def write(self, stamp_ns: int, controller: Controller, opening: float, rtde: RtdeServer) -> None:
        """Adds the record of one tick; `opening` is 0 closed to 1 open."""
        actual = controller.actual
        setpoint = controller.setpoint
        self._record[0] = (
            stamp_ns,
            actual.positions,
            actual.velocities,
            opening,
            setpoint.positions,
            setpoint.accelerations,
            rtde.servo_target,
            rtde.servo_arrival_ns,
        )
        self._waiting.append(self._record.tobytes())

    def close(self) -> None:
        """Writes the remaining records and closes the file."""
        self._closing.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._closing.wait(0.5):
            self._flush()
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        while self._waiting:
            self._file.write(self._waiting.popleft())


def read_truth(path: Path) -> np.ndarray:
    """Reads records (n,) of TRUTH_DTYPE. An incomplete last record is left out."""
    data = path.read_bytes()
    count = len(data) // TRUTH_DTYPE.itemsize
    return np.frombuffer(data, TRUTH_DTYPE, count)
