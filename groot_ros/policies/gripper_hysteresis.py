# SPDX-License-Identifier: Apache-2.0
"""Turns a policy's opening into open or closed, so that noise around one half does not move the gripper."""

import numpy as np


class GripperHysteresis:
    """Opens above one threshold and closes below the other; between the two the gripper stays as it is."""

    def __init__(self, open_above: float = 0.6, close_below: float = 0.4) -> None:
        self.open_above = open_above
        self.close_below = close_below
        self._opening = np.nan

    def decide(self, value: float) -> float:
        """The opening for a policy's value: 1 is open, 0 is closed, NaN before the first value beyond a threshold."""
        if value > self.open_above:
            self._opening = 1.0
        elif value < self.close_below:
            self._opening = 0.0
        return self._opening
