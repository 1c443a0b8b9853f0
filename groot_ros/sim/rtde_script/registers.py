# SPDX-License-Identifier: Apache-2.0
"""The registers through which ur_rtde and its control script talk: inputs d0.., i0.. and outputs, lower or upper range."""

import numpy as np

from groot_ros.geometry import Array
from groot_ros.sim.controller import Controller

_PROGRESS_REGISTER = 2
_RUNNING_BIT = 0x8000


class ScriptRegisters:
    """Reads commands and writes answers, `offset` registers up (24 with ur_rtde's FLAG_UPPER_RANGE_REGISTERS)."""

    def __init__(self, controller: Controller, offset: int) -> None:
        self._controller, self.offset = controller, offset
        self._writes = self._operations = 0

    def integer(self, index: int) -> int:
        """Input integer."""
        return int(self._controller.inputs.get(f'input_int_register_{index + self.offset}', 0))  # type: ignore[arg-type]

    def double(self, index: int) -> float:
        """Input double."""
        return self._controller.inputs.get(f'input_double_register_{index + self.offset}', 0.0)  # type: ignore[return-value]

    def doubles(self, first: int, count: int = 6) -> Array:
        """Consecutive input doubles; six of them are joints, or UR's x y z rx ry rz."""
        return np.array([self.double(first + i) for i in range(count)], float)

    def set_state(self, state: int) -> None:
        """Writes what the handshake of a command waits for."""
        self._controller.output_ints[self.offset] = state

    def answer(self, values: Array) -> None:
        """Output doubles from 0 up."""
        self._controller.output_doubles[self.offset : self.offset + len(values)] = [float(v) for v in values]

    def answer_integer(self, value: int) -> None:
        """Output integer 1."""
        self._controller.output_ints[self.offset + 1] = int(value)

    def report_progress(self, progress: int) -> None:
        """Progress of an asynchronous motion: 0 begins one, a negative number ends it."""
        self._writes = (self._writes + 1) % 128
        self._operations = (self._operations + (progress == 0)) % 128
        running = _RUNNING_BIT | progress if progress >= 0 else 0
        self._controller.output_ints[self.offset + _PROGRESS_REGISTER] = (
            self._operations << 24 | self._writes << 16 | running
        )
