# SPDX-License-Identifier: Apache-2.0
"""The cell in made-up time: the command gate, set-points and physics of the live cell, stepped by its caller.

It plays ur5e_driver, robotiq_driver and sim_cell in one object. Commands take the same path as on the robot:
limits of the gate, smoothed set-points, the lag of servoL, joint limits of the controller, MuJoCo.
"""

import numpy as np

from groot_ros.control.command_gate import CommandGate, DeltaCommand, GateState
from groot_ros.control.limits import Limits, RefusedError
from groot_ros.control.setpoints import SetpointGenerator
from groot_ros.geometry import Array, matrix_from_pose, pose_from_rotvec
from groot_ros.hardware.robotiq.gripper import GripperSettings
from groot_ros.hardware.ur5e.arm import Ur5eSettings
from groot_ros.sim.controller import Controller
from groot_ros.sim.gripper_server import Gripper
from groot_ros.sim.physics import Physics
from groot_ros.sim.scene import STEP_S, TCP_OFFSET
from groot_ros.ur5e_kinematics import forward, inverse, inverse_flange

STEP_NS = round(STEP_S * 1e9)
_START_NS = 1_000_000_000
_GRIPPER_STEPS = round(1 / (GripperSettings.rate_hz * STEP_S))


class OfflineCell:
    """Arm, gripper and cube. `reset` begins a run, `command` sends a delta, `advance` lets 2 ms pass.

    `opening` and `opening_target` are the gripper's last reading and its request, 1 open to 0 closed.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.physics = Physics()
        self._limits = limits or Limits()
        self._arm = Ur5eSettings()
        self._fingers = GripperSettings()
        self._flange_from_tcp = np.linalg.inv(matrix_from_pose(pose_from_rotvec(TCP_OFFSET)))

    def reset(self, start: Array, cube: tuple[float, float, float], near: Array) -> None:
        """Puts the arm at rest at a TCP pose (7,), and the cube flat at x, y in m and yaw in rad.

        The joint angles are those nearest to `near` (6,). Raises RefusedError for a pose that is out of
        reach or not allowed.
        """
        joints = inverse(start, near, TCP_OFFSET)
        if joints is None:
            raise RefusedError('the start is out of reach')
        self.physics.reset(joints)
        self.physics.place_cube(*cube)
        self.controller = Controller(joints)
        self.gripper = _ready_gripper(self._fingers)
        self.gate = CommandGate(self._limits, TCP_OFFSET)
        self.gate.enable(self.controller.target_pose(), joints)
        self._setpoints = SetpointGenerator(
            0.0,
            self.gate.target,
            self._limits.smoothing_s,
            STEP_S,
            self._limits.max_speeds,
        )
        self._setpoint = np.full(7, np.nan)
        self._servo_joints = joints
        self._wanted_opening = 1.0
        self.opening = 1.0
        self.opening_target = 1.0
        self.refusals: list[str] = []

    @property
    def steps(self) -> int:
        """Steps of 2 ms since `reset`."""
        return self.controller.ticks

    @property
    def now_ns(self) -> int:
        """The made-up time of stamps; it begins at 1 s."""
        return _START_NS + self.steps * STEP_NS

    @property
    def now_s(self) -> float:
        """The made-up time of the motion, s since `reset`."""
        return self.steps * STEP_S

    @property
    def measured(self) -> Array:
        """The measured pose (7,) of the TCP in `base`."""
        return forward(self.controller.actual.positions, TCP_OFFSET)

    def command(
        self, source: str, sequence: int, delta: Array, duration_s: float, opening: float
    ) -> Array | None:
        """Sends a delta (6,) through the gate, as a TcpDelta that begins now.

        Returns the gate's target (7,), or None for a command that it refuses; `refusals` has the reasons.
        """
        wanted = DeltaCommand(source, sequence, self.now_s, duration_s, delta, opening)
        try:
            waypoint = self.gate.submit(wanted, self.now_s)
        except RefusedError as error:
            self.refusals.append(str(error))
            return None
        self._setpoints.append(waypoint.start_s, waypoint.end_s, waypoint.pose)
        if np.isfinite(opening):
            self._wanted_opening = float(opening)
        return waypoint.pose

    def stop(self, reason: str) -> None:
        """Brakes along the path, as ur5e_driver does for a fault."""
        self.gate.stop(reason)
        self._setpoints.brake()

    def advance(self) -> None:
        """Lets 2 ms of made-up time pass: servo loop, controller, gripper and physics."""
        if self.gate.state is GateState.ENABLED and self.gate.check_timeout(self.now_s):
            self._setpoints.brake()
        self._servo()
        self.controller.tick()
        self.gripper.tick(self.physics.opening_m, self.physics.finger_speed_m_s)
        setpoint = self.controller.setpoint
        self.physics.step(setpoint, setpoint.accelerations, self.gripper.command_m, self.gripper.force_n)
        self.controller.actual = self.physics.joints
        if self.steps % _GRIPPER_STEPS == 0:
            self._serve_gripper()

    def _servo(self) -> None:
        pose = self._setpoints.advance(self.now_s)
        if not np.array_equal(pose, self._setpoint):
            self._setpoint = pose
            joints = inverse_flange(matrix_from_pose(pose) @ self._flange_from_tcp, self._servo_joints)
            if joints is None:
                raise RefusedError('a set-point is out of reach')
            self._servo_joints = joints
        self.controller.servo(self._servo_joints, self._arm.lookahead_s, self._arm.gain)

    def _serve_gripper(self) -> None:
        """What robotiq_driver does in a period: sends the wanted position, and reads the registers."""
        count = self._to_count(self._wanted_opening)
        self.gripper.set('POS', count)
        self.opening = self._to_opening(self.gripper.get('POS') or 0)
        self.opening_target = self._to_opening(count)

    def _to_count(self, opening: float) -> int:
        travel = self._fingers.open_count - self._fingers.closed_count
        return round(self._fingers.closed_count + travel * opening)

    def _to_opening(self, count: int) -> float:
        travel = self._fingers.open_count - self._fingers.closed_count
        return min(max((count - self._fingers.closed_count) / travel, 0.0), 1.0)


def _ready_gripper(settings: GripperSettings) -> Gripper:
    """An open gripper that has been activated."""
    gripper = Gripper()
    gripper.registers |= {
        'ACT': 1,
        'GTO': 1,
        'SPE': round(255 * settings.speed),
        'FOR': round(255 * settings.force),
        'POS': settings.open_count,
    }
    return gripper
