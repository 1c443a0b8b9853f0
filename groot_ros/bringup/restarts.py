# SPDX-License-Identifier: Apache-2.0
"""When a process that ended by itself is started again, and when not."""

from dataclasses import dataclass

_FIRST_DELAY_S = 1.0
_MAX_DELAY_S = 16.0
_MAX_IN_A_ROW = 6
_LONG_RUN_S = 30.0
# A process that ends sooner after its first start has a wrong parameter, or a device that is not there.
_START_S = 10.0


@dataclass
class Restarts:
    """The ends of one process. The delay doubles from 1 s to 16 s; a run of 30 s sets it back to 1 s.

    For a process that the cell can do without, begin with `has_worked`: then its first end counts too.
    """

    ends_in_a_row: int = 0
    has_worked: bool = False

    def delay_after(self, ran_s: float) -> float | None:
        """The delay in s before the next start of a process that ran for `ran_s`; None for no start.

        A process that never ran for 10 s is not started again, nor one that ended 7 times in a row.
        """
        self.has_worked = self.has_worked or ran_s >= _START_S
        if not self.has_worked:
            return None
        if ran_s >= _LONG_RUN_S:
            self.ends_in_a_row = 0
        self.ends_in_a_row += 1
        if self.ends_in_a_row > _MAX_IN_A_ROW:
            return None
        return min(_FIRST_DELAY_S * 2 ** (self.ends_in_a_row - 1), _MAX_DELAY_S)
