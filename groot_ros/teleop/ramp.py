# SPDX-License-Identifier: Apache-2.0
"""Ramps of a velocity, for devices that know pressed and not pressed only."""

import numpy as np

from groot_ros.geometry import Array


def ramp(before: Array, wanted: Array, max_change: float) -> Array:
    """The velocity (3,) after one period: `wanted`, or as near to it as `max_change` allows, in its unit."""
    change = wanted - before
    length = float(np.linalg.norm(change))
    if length <= max_change:
        return wanted.copy()
    return before + change * (max_change / length)


class VelocityRamp:
    """Limits the acceleration of a TCP velocity (6,) in m/s and rad/s: rest to full speed takes `ramp_s`.

    With `ramp_s` 0 the velocity is left as it is.
    """

    def __init__(self, linear_m_s: float, angular_rad_s: float, ramp_s: float, period_s: float) -> None:
        share = period_s / ramp_s if ramp_s else np.inf
        self._max_linear = linear_m_s * share
        self._max_angular = angular_rad_s * share
        self.velocity = np.zeros(6)

    def step(self, wanted: Array) -> Array:
        """The velocity of the next period."""
        linear = ramp(self.velocity[:3], wanted[:3], self._max_linear)
        angular = ramp(self.velocity[3:], wanted[3:], self._max_angular)
        self.velocity = np.concatenate([linear, angular])
        return self.velocity

    def reset(self) -> None:
        """Begins from rest again, as after a stop."""
        self.velocity = np.zeros(6)
