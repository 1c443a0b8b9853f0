# SPDX-License-Identifier: Apache-2.0
"""One scripted demonstration in the offline cell, from a random start or from a disturbed state.

Recoveries teach a policy to come back to the task. What disturbs the arm is executed but not recorded: an
episode begins after it, so that every recorded action is one that leads to the goal.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from groot_ros.control.command_gate import TELEOP
from groot_ros.control.min_jerk import MinJerkMove, MinJerkTrajectory
from groot_ros.geometry import Array, apply_delta
from groot_ros.sim.offline.cell import OfflineCell
from groot_ros.sim.scene import HOME_JOINTS_RAD, STEP_S
from groot_ros.sim.scripted_operator import (
    PEAK_ROTATION_SPEED_RAD_S,
    PEAK_SPEED_M_S,
    cube_in_bin,
    is_held,
    pick_and_place,
    random_cube,
    random_start,
)

PERIOD_S = 0.02
_STEPS_A_PERIOD = round(PERIOD_S / STEP_S)
_DISTURBED_AT_MOST = 0.8
_PUSH_M = np.array([0.04, 0.04, 0.03])
_PUSH_RAD = np.array([0.08, 0.08, 0.3])
_LOWEST_M = 0.018
_MISSED_SHARE = 0.3
_MAX_S = 60.0

OnStep = Callable[[], None]


@dataclass(frozen=True)
class Scenario:
    """How a demonstration begins: the start pose (7,), the cube (x, y in m, yaw in rad), what disturbs it.

    `disturbed_at` is the share of the moves after which the arm is pushed by `push` (6,) in m and rad, None
    for no disturbance; `missed` also closes the gripper there, as after a grasp next to the cube.
    """

    start: Array
    cube: tuple[float, float, float]
    disturbed_at: float | None
    push: Array
    missed: bool


def draw_scenario(rng: np.random.Generator, disturbed_share: float) -> Scenario:
    """Draws a start and a cube, and with the given probability a disturbance."""
    is_disturbed = bool(rng.random() < disturbed_share)
    disturbed_at = float(rng.uniform(0.0, _DISTURBED_AT_MOST))
    push = rng.uniform(-1.0, 1.0, 6) * np.concatenate([_PUSH_M, _PUSH_RAD])
    missed = bool(rng.random() < _MISSED_SHARE)
    start = random_start(rng)
    cube = random_cube(rng)
    return Scenario(start, cube, disturbed_at if is_disturbed else None, push, missed)


class Demonstrator:
    """The scripted operator in the offline cell. `on_step` is called after every step of 2 ms."""

    def __init__(self, cell: OfflineCell) -> None:
        self._cell = cell
        self._sequence = 0
        self._trajectory = MinJerkTrajectory(np.array([0.0, 0, 0, 0, 0, 0, 1]), PERIOD_S)

    def prepare(self, scenario: Scenario) -> None:
        """Brings the cell to the state in which the demonstration begins."""
        self._cell.reset(scenario.start, scenario.cube, HOME_JOINTS_RAD)
        self._trajectory = MinJerkTrajectory(
            self._cell.gate.target, PERIOD_S, PEAK_SPEED_M_S, PEAK_ROTATION_SPEED_RAD_S
        )
        if scenario.disturbed_at is not None:
            self._disturb(scenario, scenario.disturbed_at)

    def demonstrate(self, on_step: OnStep) -> bool:
        """Carries the task out from the present state. Returns whether the cube is in the bin."""
        self._hold(self._trajectory.opening, 0.1, on_step)
        self._follow(self._plan(), on_step)
        return cube_in_bin(self._cell.physics.cube_pose)

    def _plan(self) -> list[MinJerkMove]:
        cell = self._cell
        return pick_and_place(cell.physics.cube_pose, self._trajectory.pose, cell.opening)

    def _disturb(self, scenario: Scenario, share: float) -> None:
        """Carries a share of the task out, and then pushes the arm somewhere else, all unrecorded."""
        self._follow(self._plan(), _nothing, share)
        pose = apply_delta(self._trajectory.pose, scenario.push)
        pose[2] = max(pose[2], _LOWEST_M)
        holds = is_held(self._cell.physics.cube_pose, self._cell.measured, self._cell.opening)
        opening = 0.0 if holds or scenario.missed else self._trajectory.opening
        self._trajectory.follow([MinJerkMove(pose, opening, hold_s=0.3)])
        self._run(_nothing, _MAX_S)

    def _follow(self, moves: list[MinJerkMove], on_step: OnStep, share: float = 1.0) -> None:
        """Follows a share of the time that moves take."""
        preview = MinJerkTrajectory(
            self._trajectory.pose, PERIOD_S, PEAK_SPEED_M_S, PEAK_ROTATION_SPEED_RAD_S
        )
        preview.follow(moves)
        periods = 0
        while not preview.done:
            preview.step()
            periods += 1
        self._trajectory.follow(moves)
        self._run(on_step, share * periods * PERIOD_S)

    def _hold(self, opening: float, hold_s: float, on_step: OnStep) -> None:
        self._trajectory.follow([MinJerkMove(self._trajectory.pose, opening, hold_s)])
        self._run(on_step, _MAX_S)

    def _run(self, on_step: OnStep, at_most_s: float) -> None:
        end_s = self._cell.now_s + at_most_s
        while not self._trajectory.done and self._cell.now_s < end_s:
            delta = self._trajectory.step()
            self._sequence += 1
            self._cell.command(TELEOP, self._sequence, delta, PERIOD_S, self._trajectory.opening)
            for _ in range(_STEPS_A_PERIOD):
                self._cell.advance()
                on_step()


def _nothing() -> None:
    """Stands for the recorder where a motion is not recorded."""
