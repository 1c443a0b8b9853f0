# SPDX-License-Identifier: Apache-2.0
"""The scripted operator of the node teleop: records demonstrations in sim_cell by itself."""

import time
from enum import Enum, auto

import numpy as np
from rclpy.task import Future

from groot_ros.control.min_jerk import MinJerkMove, MinJerkTrajectory
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.ros.service_clients import ServiceClients
from groot_ros.sim.scripted_operator import TASK, cube_in_bin, pick_and_place, random_cube, random_start
from groot_ros.sim.test_interface import CellHooks
from groot_ros.teleop.operator import OperatorStep

_READY_HOLD_S = 0.6
_PATIENCE_S = 15.0


class Phase(Enum):
    """What the scripted operator is doing."""

    WAITING = auto()
    APPROACHING = auto()
    STARTING = auto()
    SHOWING = auto()
    SAVING = auto()
    RESTING = auto()


class ScriptedOperator:
    """Steps all the time while the arm is enabled; zero steps hold the arm. A refusal of the recorder raises GrootRosError."""

    def __init__(
        self,
        services: ServiceClients,
        host: str,
        episodes: int,
        seed: int,
        operator_name: str,
        period_s: float,
    ) -> None:
        self._client, self._operator_name, self._period_s = services, operator_name, period_s
        self._cell = CellHooks(host, _PATIENCE_S)
        self._rng = np.random.default_rng(seed)
        self._episodes, self._recorded = episodes, 0
        self._answer: Future | None = None
        self._asked_s = self._ask_again_s = 0.0
        self.reset()

    def reset(self) -> None:
        """Begins again, as when the arm was disabled."""
        self._follower: MinJerkTrajectory | None = None
        self._phase = Phase.WAITING

    def step(self, target: Array) -> OperatorStep:
        """The step of the next period; the first one begins at the robot's target pose (7,)."""
        if self._follower is None:
            self._follower = MinJerkTrajectory(target, self._period_s)
        self._decide(self._follower)
        return OperatorStep(self._follower.step(), self._follower.opening, held=True)

    def close(self) -> None:
        """Hangs up on the cell."""
        self._cell.close()

    def _decide(self, follower: MinJerkTrajectory) -> None:
        """Moves on to the next phase where the present one has ended."""
        if self._phase is Phase.WAITING and self._recorded < self._episodes:
            self._cell.place_cube(*random_cube(self._rng))
            follower.follow([MinJerkMove(random_start(self._rng), 1.0, hold_s=_READY_HOLD_S)])
            self._phase = Phase.APPROACHING
        elif self._phase is Phase.APPROACHING and follower.done:
            self._asked_s, self._phase = time.monotonic(), Phase.STARTING
        elif self._phase is Phase.STARTING and self._started():
            follower.follow(
                [
                    MinJerkMove(follower.pose, 1.0, hold_s=0.3),
                    *pick_and_place(self._cell.cube_pose(), self._rng),
                ]
            )
            self._phase = Phase.SHOWING
        elif self._phase is Phase.SHOWING and follower.done:
            self._answer, self._phase = self._client.stop(cube_in_bin(self._cell.cube_pose())), Phase.SAVING
        elif self._phase is Phase.SAVING and self._saved():
            self._recorded += 1
            self._phase = Phase.WAITING if self._recorded < self._episodes else Phase.RESTING

    def _started(self) -> bool:
        """Asks the recorder to start, again each second until its streams flow; whether it records now."""
        now_s = time.monotonic()
        if self._answer is None and now_s >= self._ask_again_s:
            self._answer, self._ask_again_s = self._client.start(TASK, self._operator_name), now_s + 1.0
        if self._answer is None or not self._answer.done():
            return False
        answer, self._answer = self._answer.result(), None
        if not answer.success and now_s - self._asked_s > _PATIENCE_S:
            raise GrootRosError(f'The recorder did not start the episode: {answer.message}')
        return answer.success

    def _saved(self) -> bool:
        """Whether the recorder has saved the episode."""
        if self._answer is None or not self._answer.done():
            return False
        answer, self._answer = self._answer.result(), None
        if not answer.success:
            raise GrootRosError(f'The recorder did not save the episode: {answer.message}')
        return True
