# SPDX-License-Identifier: Apache-2.0
"""The scripted operator as a policy: the reference that other policies are compared with."""

import numpy as np

from groot_ros.control.min_jerk import MinJerkTrajectory
from groot_ros.embodiment import EEF_9D, Embodiment
from groot_ros.geometry import Array, pose_to_eef_9d
from groot_ros.policies.action_decoder import gripper_key
from groot_ros.policies.policy import Observation, Policy, PolicySpec
from groot_ros.sim.offline.cell import OfflineCell
from groot_ros.sim.scripted_operator import PEAK_ROTATION_SPEED_RAD_S, PEAK_SPEED_M_S, pick_and_place

_HORIZON = 16
_SEARCHED_STEPS = 40


class ExpertPolicy(Policy):
    """Knows where the cube is, plans once at the start of a run, and answers with the plan's next steps."""

    def __init__(self, cell: OfflineCell, embodiment: Embodiment) -> None:
        self.spec = PolicySpec('expert', _HORIZON)
        self._cell = cell
        self._gripper = gripper_key(embodiment)
        self._period_s = self.period_s(embodiment)
        self._poses = np.zeros((0, 7))
        self._openings = np.zeros(0)
        self._pose_part = embodiment.pose_part
        self._start_ns = 0
        self._answers = 0

    def reset(self) -> None:
        """Forgets the plan: the next observation is the first of a run."""
        self._poses = np.zeros((0, 7))
        self._answers = 0

    def infer(self, observation: Observation) -> dict[str, Array]:
        """The poses of the plan after an observation; after its end the last one."""
        if self._answers == 0:
            self._plan()
            self._start_ns = observation.tick_ns
        elif self._answers == 1:
            self._start_ns = self._begin_of_motion(observation)
        self._answers += 1
        passed = round((observation.tick_ns - self._start_ns) / 1e9 / self._period_s)
        steps = np.minimum(np.arange(passed, passed + _HORIZON), len(self._poses) - 1)
        return {EEF_9D: pose_to_eef_9d(self._poses[steps]), self._gripper: self._openings[steps]}

    def _begin_of_motion(self, observation: Observation) -> int:
        """When the motion began, by where the arm is: an arm at rest waits for the first answer."""
        first = self._poses[:_SEARCHED_STEPS, :3]
        distances_m = np.linalg.norm(first - observation.state[self._pose_part][:3], axis=1)
        steps = int(distances_m.argmin()) + 1
        return observation.tick_ns - round(steps * self._period_s * 1e9)

    def _plan(self) -> None:
        cell = self._cell
        trajectory = MinJerkTrajectory(
            cell.gate.target, self._period_s, PEAK_SPEED_M_S, PEAK_ROTATION_SPEED_RAD_S
        )
        trajectory.follow(pick_and_place(cell.physics.cube_pose, cell.gate.target, cell.opening))
        poses = []
        openings = []
        while not trajectory.done:
            trajectory.step()
            poses.append(trajectory.pose)
            openings.append(trajectory.opening)
        self._poses = np.array(poses)
        self._openings = np.array(openings)
