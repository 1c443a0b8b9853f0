# SPDX-License-Identifier: Apache-2.0
"""Turns the opening of a policy into open or closed, so that noise around 0.5 does not move the gripper."""

import numpy as np


class GripperHysteresis:
    """Opens above one threshold and closes below the other; between the two the gripper stays as it is."""

    def __init__(self, open_above: float = 0.6, close_below: float = 0.4) -> None:
        self.open_above = open_above
        self.close_below = close_below
        self._opening = np.nan

    def decide(self, value: float) -> float:
        """The opening for a value of the policy: 1 open, 0 closed, NaN before one is beyond a threshold."""
        if value > self.open_above:
            self._opening = 1.0
        elif value < self.close_below:
            self._opening = 0.0
        return self._opening
