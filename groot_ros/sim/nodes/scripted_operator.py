# SPDX-License-Identifier: Apache-2.0
"""The scripted operator of the teleop node: it records demonstrations in sim_cell without a person."""

import time
from enum import Enum, auto

import numpy as np
from rclpy.task import Future

from groot_ros.control.min_jerk import MinJerkMove, MinJerkTrajectory
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.ros.service_clients import ServiceClients
from groot_ros.sim.scripted_operator import (
    PEAK_ROTATION_SPEED_RAD_S,
    PEAK_SPEED_M_S,
    TASK,
    cube_in_bin,
    pick_and_place,
    random_cube,
    random_start,
)
from groot_ros.sim.test_interface import CellHooks
from groot_ros.teleop.operator import Operator, OperatorContext, OperatorStep

_READY_HOLD_S = 0.6
_TIMEOUT_S = 15.0


class Phase(Enum):
    """What the scripted operator is doing."""

    WAITING = auto()
    APPROACHING = auto()
    STARTING = auto()
    DEMONSTRATING = auto()
    DISCARDING = auto()
    SAVING = auto()
    FINISHED = auto()


class ScriptedOperator(Operator):
    """Gives a step in every period while the arm is enabled; a zero step holds the arm.

    Raises GrootRosError when the recorder refuses to start or to save an episode.
    """

    def __init__(
        self,
        services: ServiceClients,
        host: str,
        episodes: int,
        seed: int,
        operator_name: str,
        period_s: float,
    ) -> None:
        self._client = services
        self._operator_name = operator_name
        self._period_s = period_s
        self._cell = CellHooks(host, _TIMEOUT_S)
        self._rng = np.random.default_rng(seed)
        self._episodes = episodes
        self._recorded = 0
        self._answer: Future | None = None
        self._asked_s = 0.0
        self._ask_again_s = 0.0
        self._trajectory: MinJerkTrajectory | None = None
        self._phase = Phase.WAITING

    def reset(self) -> None:
        """Begins the demonstration again after the arm was stopped; what was recorded of it is discarded."""
        self._trajectory = None
        if self._phase is Phase.APPROACHING:
            self._phase = Phase.WAITING
        elif self._phase is Phase.DEMONSTRATING:
            self._phase = Phase.DISCARDING

    @classmethod
    def open(cls, context: OperatorContext) -> 'ScriptedOperator':
        """Connects to the simulated cell at the parameter `sim_host`."""
        parameters = context.parameters
        return cls(
            context.services,
            parameters['sim_host'],
            parameters['episodes'],
            parameters['seed'],
            parameters['operator_name'] or 'scripted',
            context.period_s,
        )

    @property
    def needs_target(self) -> bool:
        """Only for the first step: the further ones start where the last one ended."""
        return self._trajectory is None

    def step(self, target: Array | None, now_s: float, guided: bool = False) -> OperatorStep:
        """The next step. The first starts at the target pose; without a target all begins again."""
        if target is None:
            self.reset()
            return OperatorStep(np.zeros(6), float('nan'), held=False)
        if self._trajectory is None:
            self._trajectory = MinJerkTrajectory(
                target, self._period_s, PEAK_SPEED_M_S, PEAK_ROTATION_SPEED_RAD_S
            )
        self._decide(self._trajectory)
        return OperatorStep(self._trajectory.step(), self._trajectory.opening, held=True)

    def close(self) -> None:
        """Closes the connection to the cell."""
        self._cell.close()

    def _decide(self, trajectory: MinJerkTrajectory) -> None:
        """Starts the next phase when the present one has ended."""
        if self._phase is Phase.DISCARDING and self._discarded():
            self._phase = Phase.WAITING
        elif self._phase is Phase.WAITING and self._recorded < self._episodes:
            self._cell.place_cube(*random_cube(self._rng))
            trajectory.follow([MinJerkMove(random_start(self._rng), 1.0, hold_s=_READY_HOLD_S)])
            self._phase = Phase.APPROACHING
        elif self._phase is Phase.APPROACHING and trajectory.done:
            self._asked_s = time.monotonic()
            self._phase = Phase.STARTING
        elif self._phase is Phase.STARTING and self._started():
            start = MinJerkMove(trajectory.pose, 1.0, hold_s=0.3)
            trajectory.follow([start, *pick_and_place(self._cell.cube_pose(), trajectory.pose)])
            self._phase = Phase.DEMONSTRATING
        elif self._phase is Phase.DEMONSTRATING and trajectory.done:
            self._answer = self._client.stop(cube_in_bin(self._cell.cube_pose()))
            self._phase = Phase.SAVING
        elif self._phase is Phase.SAVING and self._saved():
            self._recorded += 1
            self._phase = Phase.WAITING if self._recorded < self._episodes else Phase.FINISHED

    def _started(self) -> bool:
        """Asks the recorder to start, once a second until all its topics arrive. True when it records."""
        now_s = time.monotonic()
        if self._answer is None and now_s >= self._ask_again_s:
            self._answer = self._client.start(TASK, self._operator_name)
            self._ask_again_s = now_s + 1.0
        if self._answer is None or not self._answer.done():
            return False
        answer = self._answer.result()
        self._answer = None
        if not answer.success and now_s - self._asked_s > _TIMEOUT_S:
            raise GrootRosError(f'The recorder did not start the episode: {answer.message}')
        return answer.success

    def _discarded(self) -> bool:
        """Asks the recorder to discard the episode. A refusal says that nothing is recorded any more."""
        if self._answer is None:
            self._answer = self._client.discard()
        if not self._answer.done():
            return False
        self._answer = None
        return True

    def _saved(self) -> bool:
        """Whether the recorder has saved the episode."""
        if self._answer is None or not self._answer.done():
            return False
        answer = self._answer.result()
        self._answer = None
        if not answer.success:
            raise GrootRosError(f'The recorder did not save the episode: {answer.message}')
        return True
