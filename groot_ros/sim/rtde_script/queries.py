# SPDX-License-Identifier: Apache-2.0
"""The questions and settings of ur_rtde's control script, by their numbers: kinematics, limits, payload, TCP, contact."""

from collections.abc import Callable

import numpy as np

from groot_ros.geometry import matrix_from_pose, pose_from_matrix, pose_from_rotvec, rotvec_from_pose
from groot_ros.sim.controller import Controller
from groot_ros.sim.rtde_script.registers import ScriptRegisters
from groot_ros.sim.scene import STEP_S
from groot_ros.sim.trajectories import CompliantMotion, UnreachableError
from groot_ros.ur5e_kinematics import JOINT_LIMIT_RAD, forward

_STILL_RAD_S = 1e-3


class ScriptAnswers:
    """The table `commands`; each is done at once."""

    def __init__(self, controller: Controller, registers: ScriptRegisters) -> None:
        self._controller, self._registers = controller, registers
        answer, number = registers.answer, registers.answer_integer
        self.commands: dict[int, Callable[[], None]] = {
            17: self._set_payload, 65: self._set_payload, 29: self._set_tcp,
            30: self._inverse_near, 46: self._inverse, 60: self._has_inverse, 61: self._has_inverse,
            36: self._has_inverse, 37: self._are_joints_safe, 43: self._forward, 44: self._forward_of, 39: self._pose_trans,
            40: lambda: answer(controller.tcp_offset), 28: lambda: answer(rotvec_from_pose(controller.target_pose())),
            58: lambda: answer(rotvec_from_pose(forward(controller.actual.positions, np.zeros(6)))),
            26: lambda: answer(np.array([STEP_S])), 27: lambda: answer(controller.actual.positions), 38: lambda: answer(np.zeros(6)),
            47: lambda: number(np.abs(controller.actual.velocities).max() < _STILL_RAD_S),
            54: lambda: number(isinstance(controller.motion, CompliantMotion)), 25: lambda: number(0), 64: lambda: number(0),
        }  # fmt: skip

    def _set_payload(self) -> None:
        self._controller.payload_kg = self._registers.double(0)
        self._controller.payload_centre_m = self._registers.doubles(1, 3)

    def _set_tcp(self) -> None:
        self._controller.set_tcp(self._registers.doubles(0))

    def _inverse(self) -> None:
        self._registers.answer(self._controller.solve(self._registers.doubles(0)))

    def _inverse_near(self) -> None:
        self._registers.answer(self._controller.solve(self._registers.doubles(0), self._registers.doubles(6)))

    def _has_inverse(self) -> None:
        try:
            self._controller.solve(self._registers.doubles(0))
        except UnreachableError:
            return self._registers.answer_integer(0)
        return self._registers.answer_integer(1)

    def _are_joints_safe(self) -> None:
        self._registers.answer_integer(bool(np.all(np.abs(self._registers.doubles(0)) <= JOINT_LIMIT_RAD)))

    def _forward(self) -> None:
        self._registers.answer(rotvec_from_pose(self._controller.actual_pose()))

    def _forward_of(self) -> None:
        self._registers.answer(
            rotvec_from_pose(forward(self._registers.doubles(0), self._registers.doubles(6)))
        )

    def _pose_trans(self) -> None:
        first, second = (matrix_from_pose(pose_from_rotvec(self._registers.doubles(k))) for k in (0, 6))
        self._registers.answer(rotvec_from_pose(pose_from_matrix(first @ second)))
