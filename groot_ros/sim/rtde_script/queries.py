# SPDX-License-Identifier: Apache-2.0
"""The queries and settings of the control script of ur_rtde, by their command numbers."""

from collections.abc import Callable

import numpy as np

from groot_ros.geometry import Array, matrix_from_pose, pose_from_matrix, pose_from_rotvec, rotvec_from_pose
from groot_ros.sim.controller import Controller
from groot_ros.sim.rtde_script.registers import ScriptRegisters
from groot_ros.sim.scene import STEP_S
from groot_ros.sim.trajectories import CompliantMotion, UnreachableError
from groot_ros.ur5e_kinematics import JOINT_LIMIT_RAD, forward

_STEADY_RAD_S = 1e-3


class ScriptQueries:
    """The table `commands` of queries and settings; each of them ends at once."""

    def __init__(self, controller: Controller, registers: ScriptRegisters) -> None:
        self._controller = controller
        self._registers = registers
        answer = registers.answer
        answer_integer = registers.answer_integer
        self.commands: dict[int, Callable[[], None]] = {
            17: self._set_payload,
            65: self._set_payload,
            29: self._set_tcp,
            30: self._inverse_near,
            46: self._inverse,
            36: self._has_inverse,
            60: self._has_inverse,
            61: self._has_inverse,
            37: self._are_joints_safe,
            43: self._actual_pose,
            44: self._forward,
            28: self._target_pose,
            58: self._flange_pose,
            39: self._multiply_poses,
            40: lambda: answer(controller.tcp_offset),
            26: lambda: answer(np.array([STEP_S])),
            27: lambda: answer(controller.actual.positions),
            38: lambda: answer(np.zeros(6)),
            47: self._is_steady,
            54: lambda: answer_integer(isinstance(controller.motion, CompliantMotion)),
            25: lambda: answer_integer(0),
            64: lambda: answer_integer(0),
        }

    def _set_payload(self) -> None:
        self._controller.payload_kg = self._registers.double(0)
        self._controller.payload_centre_m = self._registers.doubles(1, 3)

    def _set_tcp(self) -> None:
        self._controller.set_tcp(self._registers.doubles(0))

    def _inverse(self) -> None:
        self._registers.answer(self._controller.solve_inverse(self._registers.doubles(0)))

    def _inverse_near(self) -> None:
        pose6 = self._registers.doubles(0)
        near = self._registers.doubles(6)
        self._registers.answer(self._controller.solve_inverse(pose6, near))

    def _has_inverse(self) -> None:
        try:
            self._controller.solve_inverse(self._registers.doubles(0))
        except UnreachableError:
            return self._registers.answer_integer(0)
        return self._registers.answer_integer(1)

    def _are_joints_safe(self) -> None:
        joints = self._registers.doubles(0)
        self._registers.answer_integer(bool(np.all(np.abs(joints) <= JOINT_LIMIT_RAD)))

    def _is_steady(self) -> None:
        speed_rad_s = np.abs(self._controller.actual.velocities).max()
        self._registers.answer_integer(bool(speed_rad_s < _STEADY_RAD_S))

    def _actual_pose(self) -> None:
        self._answer_pose(self._controller.actual_pose())

    def _target_pose(self) -> None:
        self._answer_pose(self._controller.target_pose())

    def _flange_pose(self) -> None:
        self._answer_pose(forward(self._controller.actual.positions, np.zeros(6)))

    def _forward(self) -> None:
        joints = self._registers.doubles(0)
        tcp_offset = self._registers.doubles(6)
        self._answer_pose(forward(joints, tcp_offset))

    def _multiply_poses(self) -> None:
        first = matrix_from_pose(pose_from_rotvec(self._registers.doubles(0)))
        second = matrix_from_pose(pose_from_rotvec(self._registers.doubles(6)))
        self._answer_pose(pose_from_matrix(first @ second))

    def _answer_pose(self, pose: Array) -> None:
        self._registers.answer(rotvec_from_pose(pose))
