# SPDX-License-Identifier: Apache-2.0
"""Judges the task of the simulated cell by the true pose of the cube."""

from groot_ros.geometry import Array
from groot_ros.sim.scene import CUBE_SIZE_M
from groot_ros.sim.scripted_operator import cube_in_bin

_LIFTED_M = 0.05
_OPEN = 0.7
_SETTLED_S = 0.25


class TaskJudge:
    """Watches a run. It succeeds once the cube has been in the bin, with open fingers, for 0.25 s.

    `lifted` says whether the cube was ever 5 cm above the table; `success_s` is when it came to be placed.
    """

    def __init__(self) -> None:
        self.lifted = False
        self.success_s: float | None = None
        self._placed_since_s: float | None = None

    def watch(self, now_s: float, cube: Array, opening: float) -> None:
        """Takes the cube's pose (7,) and the gripper's opening, 1 open to 0 closed, at a time in s."""
        self.lifted = self.lifted or bool(cube[2] > CUBE_SIZE_M / 2 + _LIFTED_M)
        if self.success_s is not None:
            return
        if not (cube_in_bin(cube) and opening > _OPEN):
            self._placed_since_s = None
        elif self._placed_since_s is None:
            self._placed_since_s = now_s
        elif now_s - self._placed_since_s >= _SETTLED_S:
            self.success_s = self._placed_since_s
