"""The simulated UR controller: modes, safety, program state, registers and set-points. The servers read and command it."""

import time
from collections.abc import Callable

import numpy as np
from scipy.spatial.transform import Rotation

from groot_ros.geometry import Array, matrix_from_pose, pose_from_rotvec
from groot_ros.kinematics import forward, inverse_flange, jacobian
from groot_ros.sim.motions import Motion, Servo, Setpoint, Stop, UnreachableError, limited_step
from groot_ros.sim.physics import Joints
from groot_ros.sim.scene import STEP_S, TCP_OFFSET

ROBOT_MODES = {-1: 'NO_CONTROLLER', 0: 'DISCONNECTED', 1: 'CONFIRM_SAFETY', 2: 'BOOTING', 3: 'POWER_OFF', 4: 'POWER_ON',
               5: 'IDLE', 6: 'BACKDRIVE', 7: 'RUNNING'}  # fmt: skip
SAFETY_MODES = {1: 'NORMAL', 2: 'REDUCED', 3: 'PROTECTIVE_STOP', 5: 'SAFEGUARD_STOP', 6: 'SYSTEM_EMERGENCY_STOP',
                7: 'ROBOT_EMERGENCY_STOP', 9: 'FAULT'}  # fmt: skip
RUNNING, IDLE, POWER_OFF = 7, 5, 3
NORMAL, PROTECTIVE_STOP, EMERGENCY_STOP = 1, 3, 7
STOPPED, PLAYING, PAUSED = 1, 2, 4
UNLOCK_AFTER_S = 5.0


class Program:
    """Something that runs on the controller; `step` is called each tick and returns False when it has ended."""

    name = 'program'

    def step(self) -> bool:
        """One tick."""
        raise NotImplementedError


class Controller:
    """State of the arm and what runs on it. Time is robot time: `ticks` of 2 ms since the start."""

    def __init__(self, joints: Array, clock: Callable[[], float] = time.monotonic) -> None:
        self.ticks = 0
        self.setpoint = Setpoint(joints.copy())
        self.actual = Joints(joints.copy(), np.zeros(6))
        self.tcp_offset = TCP_OFFSET.copy()
        self.payload_kg, self.payload_centre_m = 0.94, np.zeros(3)
        self.robot_mode, self.safety_mode, self.runtime_state = RUNNING, NORMAL, STOPPED
        self.speed_slider = 1.0
        self.inputs: dict[str, float | int | bool | list[float]] = {}
        self.output_ints, self.output_doubles = [0] * 48, [0.0] * 48
        self.motion: Motion = Stop(10.0)
        self.program: Program | None = None
        self._clock = clock
        self._stopped_at_s = 0.0
        self._flange_from_tcp = np.eye(4)
        self.set_tcp(self.tcp_offset)

    @property
    def timestamp_s(self) -> float:
        """Robot time in s."""
        return self.ticks * STEP_S

    def set_tcp(self, offset: Array) -> None:
        """Sets the tool offset x y z rx ry rz (6,)."""
        self.tcp_offset = np.asarray(offset, float)
        self._flange_from_tcp = np.linalg.inv(matrix_from_pose(pose_from_rotvec(self.tcp_offset)))

    def actual_pose(self) -> Array:
        """Measured TCP pose (7,)."""
        return forward(self.actual.positions, self.tcp_offset)

    def target_pose(self) -> Array:
        """Commanded TCP pose (7,)."""
        return forward(self.setpoint.positions, self.tcp_offset)

    def tcp_speed(self, joints: Joints) -> Array:
        """TCP velocity (6,) in m/s and rad/s."""
        return jacobian(joints.positions, self.tcp_offset) @ joints.velocities

    def solve(self, pose6: Array, near: Array | None = None) -> Array:
        """Joint angles of a TCP pose x y z rx ry rz (6,), nearest to `near` or to the present target; raises UnreachableError."""
        transform = np.eye(4)
        transform[:3, :3], transform[:3, 3] = Rotation.from_rotvec(pose6[3:]).as_matrix(), pose6[:3]
        joints = inverse_flange(transform @ self._flange_from_tcp, self.setpoint.positions if near is None else near)
        if joints is None:
            raise UnreachableError
        return joints

    def servo(self, joints: Array, lookahead_s: float, gain: float) -> None:
        """Aims the servo motion at joint angles (6,), starting it where another motion ran."""
        if not isinstance(self.motion, Servo):
            self.motion = Servo()
        self.motion.aim(joints, lookahead_s, gain)

    def play(self, program: Program) -> None:
        """Starts a program in place of the one that runs."""
        if self.safety_mode != NORMAL or self.robot_mode != RUNNING:
            return
        self.program, self.runtime_state = program, PLAYING
        self.motion = Stop(10.0)

    def stop_program(self) -> None:
        """Ends the program and slows the arm down."""
        self.program, self.runtime_state = None, STOPPED
        self.motion = Stop(10.0)

    def protective_stop(self) -> None:
        """Stops the arm and only pauses the program, as the real controller does."""
        self.safety_mode, self._stopped_at_s = PROTECTIVE_STOP, self._clock()
        self.motion = Stop(30.0)
        if self.runtime_state == PLAYING:
            self.runtime_state = PAUSED

    def unlock_protective_stop(self) -> bool:
        """Releases a protective stop; False where 5 s have not passed since it happened."""
        if self.safety_mode == PROTECTIVE_STOP and self._clock() - self._stopped_at_s < UNLOCK_AFTER_S:
            return False
        if self.safety_mode == PROTECTIVE_STOP:
            self.safety_mode = NORMAL
        return True

    def emergency_stop(self) -> None:
        """Cuts the power, which ends the program."""
        self.safety_mode, self.robot_mode = EMERGENCY_STOP, POWER_OFF
        self.stop_program()
        self.setpoint = Setpoint(self.actual.positions.copy())

    def tick(self) -> None:
        """Runs the program and moves the set-point by 2 ms."""
        self.ticks += 1
        if self.program is not None and self.runtime_state == PLAYING:
            self._run_program()
        try:
            wanted = self.motion.advance(self.setpoint, STEP_S)
        except UnreachableError:
            self.stop_program()
            wanted = self.motion.advance(self.setpoint, STEP_S)
        self.setpoint = limited_step(self.setpoint, wanted, STEP_S)

    def _run_program(self) -> None:
        assert self.program is not None
        try:
            ended = not self.program.step()
        except UnreachableError:
            ended = True
        if ended:
            self.stop_program()
