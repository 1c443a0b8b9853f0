"""The simulator's own record of every tick, for judging what the drivers and the recorder made of it."""

from pathlib import Path

import numpy as np

from groot_ros.sim.controller import Controller

TRUTH_DTYPE = np.dtype([('stamp_ns', 'i8'), ('joint_positions', 'f8', 6), ('joint_velocities', 'f8', 6), ('opening', 'f8')])


class TruthLog:
    """Appends one record a tick to a file of TRUTH_DTYPE records."""

    def __init__(self, path: Path) -> None:
        self._file = path.open('wb', buffering=1 << 16)
        self._record = np.zeros(1, TRUTH_DTYPE)

    def write(self, stamp_ns: int, controller: Controller, opening: float) -> None:
        """Records the measured state of the arm at a tick."""
        self._record[0] = (stamp_ns, controller.actual.positions, controller.actual.velocities, opening)
        self._file.write(self._record.tobytes())

    def close(self) -> None:
        """Writes what still waits."""
        self._file.close()


def read_truth(path: Path) -> np.ndarray:
    """Records (n,) of TRUTH_DTYPE; a torn last record is left out."""
    data = path.read_bytes()
    return np.frombuffer(data[: len(data) // TRUTH_DTYPE.itemsize * TRUTH_DTYPE.itemsize], TRUTH_DTYPE)
