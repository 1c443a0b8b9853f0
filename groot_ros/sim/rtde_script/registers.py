# SPDX-License-Identifier: Apache-2.0
"""The registers through which ur_rtde and its control script exchange commands and results."""

import numpy as np

from groot_ros.geometry import Array
from groot_ros.sim.controller import Controller

_PROGRESS_REGISTER = 2
_RUNNING_BIT = 0x8000


class ScriptRegisters:
    """Reads inputs and writes outputs from register `offset` up.

    The offset is 24 with the flag FLAG_UPPER_RANGE_REGISTERS of ur_rtde, else 0.
    """

    def __init__(self, controller: Controller, offset: int) -> None:
        self._controller = controller
        self.offset = offset
        self._writes = 0
        self._operations = 0

    def integer(self, index: int) -> int:
        """Reads one input integer; 0 before it was written."""
        return int(self._controller.inputs.get(f'input_int_register_{index + self.offset}', 0))  # type: ignore[arg-type]

    def double(self, index: int) -> float:
        """Reads one input double; 0.0 before it was written."""
        return self._controller.inputs.get(f'input_double_register_{index + self.offset}', 0.0)  # type: ignore[return-value]

    def doubles(self, first: int, count: int = 6) -> Array:
        """Reads consecutive input doubles; six of them are joint angles or a pose x y z rx ry rz."""
        return np.array([self.double(first + i) for i in range(count)], float)

    def set_state(self, state: int) -> None:
        """Writes the state of the command handshake, READY or DONE."""
        self._controller.output_ints[self.offset] = state

    def answer(self, values: Array) -> None:
        """Writes output doubles from 0 up."""
        end = self.offset + len(values)
        self._controller.output_doubles[self.offset : end] = [float(value) for value in values]

    def answer_integer(self, value: int) -> None:
        """Writes output integer 1, the result of a query."""
        self._controller.output_ints[self.offset + 1] = int(value)

    def report_progress(self, progress: int) -> None:
        """Writes the progress of an asynchronous motion: 0 starts one, a negative number ends it."""
        self._writes = (self._writes + 1) % 128
        self._operations = (self._operations + (progress == 0)) % 128
        running = _RUNNING_BIT | progress if progress >= 0 else 0
        self._controller.output_ints[self.offset + _PROGRESS_REGISTER] = (
            self._operations << 24 | self._writes << 16 | running
        )
