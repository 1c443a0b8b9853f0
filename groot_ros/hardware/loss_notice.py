# SPDX-License-Identifier: Apache-2.0
"""When the loss of a device is told: once, however often it comes and goes."""

import math
from dataclasses import dataclass


@dataclass
class LossNotice:
    """A loss is told again only after the device has worked for `quiet_s` without another one."""

    quiet_s: float = 10.0
    _works_since_s: float = -math.inf

    def works(self, now_s: float) -> None:
        """The device has given a reading or a frame."""
        if math.isnan(self._works_since_s):
            self._works_since_s = now_s

    def lost(self, now_s: float) -> bool:
        """Whether this loss is told."""
        told = now_s - self._works_since_s >= self.quiet_s
        self._works_since_s = math.nan
        return told
