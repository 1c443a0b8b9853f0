# SPDX-License-Identifier: Apache-2.0
"""Steps the MuJoCo scene: computed-torque tracking of the joints, fingers with a force limit, and a cube."""

from dataclasses import dataclass

import mujoco
import numpy as np

from groot_ros.geometry import Array
from groot_ros.sim.scene import CUBE_SIZE_M, HOME_JOINTS_RAD, STROKE_M, scene_xml
from groot_ros.ur5e_kinematics import JOINT_NAMES

_TRACKING_RAD_S = 120.0
_FINGER_STIFFNESS_N_M = 6000.0
_FINGER_DAMPING_N_S_M = 110.0


@dataclass
class Joints:
    """Joint angles in rad and velocities in rad/s, (6,) each."""

    positions: Array
    velocities: Array


class Physics:
    """The bodies of the cell. One call of `step` advances 2 ms."""

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_string(scene_xml())
        self.data = mujoco.MjData(self.model)
        self._fingers = [self.model.joint(f'finger_{side}').id for side in ('left', 'right')]
        self._finger_dofs = [int(self.model.jnt_dofadr[j]) for j in self._fingers]
        self._finger_qpos = [int(self.model.jnt_qposadr[j]) for j in self._fingers]
        self._cube_qpos = int(self.model.joint('cube').qposadr[0])
        self._cube_dof = int(self.model.joint('cube').dofadr[0])
        first = self.model.joint(JOINT_NAMES[0])
        self._arm_qpos = slice(int(first.qposadr[0]), int(first.qposadr[0]) + 6)
        self._arm_dofs = slice(int(first.dofadr[0]), int(first.dofadr[0]) + 6)
        self._acceleration = np.zeros(self.model.nv)
        self._torque = np.zeros(self.model.nv)
        self.reset(HOME_JOINTS_RAD)

    def reset(self, joints: Array) -> None:
        """Puts everything back to the start, at rest, with the arm at joint angles (6,) in rad."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self._arm_qpos] = joints
        mujoco.mj_forward(self.model, self.data)

    @property
    def joints(self) -> Joints:
        """Joint angles and velocities of the arm now."""
        return Joints(self.data.qpos[self._arm_qpos].copy(), self.data.qvel[self._arm_dofs].copy())

    @property
    def opening_m(self) -> float:
        """Distance between the finger pads in m."""
        return STROKE_M - sum(float(self.data.qpos[i]) for i in self._finger_qpos)

    @property
    def finger_speed_m_s(self) -> float:
        """Closing speed of both fingers together in m/s, negative while they open."""
        return sum(float(self.data.qvel[i]) for i in self._finger_dofs)

    @property
    def cube_pose(self) -> Array:
        """Pose (7,) of the cube's centre in `base`, quaternion x y z w."""
        pose = self.data.qpos[self._cube_qpos : self._cube_qpos + 7]
        return np.concatenate([pose[:3], pose[4:], pose[3:4]])

    def place_cube(self, x_m: float, y_m: float, yaw_rad: float) -> None:
        """Puts the cube flat on the table, at rest."""
        quaternion = [np.cos(yaw_rad / 2), 0.0, 0.0, np.sin(yaw_rad / 2)]
        self.data.qpos[self._cube_qpos : self._cube_qpos + 7] = [x_m, y_m, CUBE_SIZE_M / 2, *quaternion]
        self.data.qvel[self._cube_dof : self._cube_dof + 6] = 0.0

    def step(self, target: Joints, acceleration: Array, opening_m: float, force_n: float) -> None:
        """Advances 2 ms toward a joint set-point and a finger opening, with a finger force up to `force_n`.

        Computed torque M(q) (qdd + 2 w e' + w^2 e) + bias: Siciliano et al., Robotics (2009), section 8.5.2.
        """
        data = self.data
        w = _TRACKING_RAD_S
        error = target.positions - data.qpos[self._arm_qpos]
        error_rate = target.velocities - data.qvel[self._arm_dofs]
        self._acceleration[:] = 0.0
        self._acceleration[self._arm_dofs] = acceleration + 2 * w * error_rate + w * w * error
        mujoco.mj_mulM(self.model, data, self._torque, self._acceleration)
        arm = self._arm_dofs
        data.qfrc_applied[arm] = self._torque[arm] + data.qfrc_bias[arm] - data.qfrc_passive[arm]
        self._press_fingers(opening_m, force_n)
        mujoco.mj_step(self.model, data)

    def _press_fingers(self, opening_m: float, force_n: float) -> None:
        # Both fingers follow half the stroke with the same force limit; a coupling keeps them symmetric.
        target = (STROKE_M - opening_m) / 2
        middle = sum(float(self.data.qpos[i]) for i in self._finger_qpos) / 2
        for qpos, dof in zip(self._finger_qpos, self._finger_dofs, strict=True):
            press = _FINGER_STIFFNESS_N_M * (target - middle) - _FINGER_DAMPING_N_S_M * self.data.qvel[dof]
            couple = 4 * _FINGER_STIFFNESS_N_M * (middle - self.data.qpos[qpos])
            self.data.qfrc_applied[dof] = (
                np.clip(press, -force_n, force_n) + couple + self.data.qfrc_bias[dof]
            )
