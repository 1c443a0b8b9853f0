# SPDX-License-Identifier: Apache-2.0
"""The UR controller: modes, safety, programs, registers and set-points.

The servers of the protocols read and command it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from groot_ros.geometry import Array, matrix_from_pose, pose_from_rotvec
from groot_ros.hardware.ur5e.modes import (
    EMERGENCY_STOP,
    NORMAL,
    PAUSED,
    PLAYING,
    POWER_OFF,
    PROTECTIVE_STOP,
    RUNNING,
    STOPPED,
)
from groot_ros.sim.physics import Joints
from groot_ros.sim.scene import STEP_S, TCP_OFFSET
from groot_ros.sim.trajectories import (
    LinearPath,
    Motion,
    ServoMotion,
    Setpoint,
    StopMotion,
    UnreachableError,
    limit_step,
)
from groot_ros.ur5e_kinematics import forward, inverse_flange, jacobian

UNLOCK_AFTER_S = 5.0
PROGRAM_START_S = 0.2  # a real controller takes 0.1 to 0.3 s to compile and start a program


@dataclass
class ControllerModel:
    """Robot model and software version that the controller reports; 3.x is a CB3, 5.x an e-Series."""

    robot: str = 'UR5'
    version: tuple[int, int, int] = (5, 13, 1)

    @property
    def rate_hz(self) -> float:
        """Rate of its control loop: 500 Hz, and 125 Hz for a CB3."""
        return 125.0 if self.version[0] < 4 else 500.0


class Program:
    """A program that runs on the controller."""

    name = 'program'

    def step(self) -> bool:
        """Runs one tick of 2 ms. Returns False when the program has ended."""
        raise NotImplementedError


class Controller:
    """State of the arm and what runs on it. Time is robot time: `ticks` of 2 ms since the start."""

    def __init__(
        self, joints: Array, model: ControllerModel | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.model = model or ControllerModel()
        self.ticks = 0
        self.setpoint = Setpoint(joints.copy())
        self.actual = Joints(joints.copy(), np.zeros(6))
        self.tcp_offset = TCP_OFFSET.copy()
        self.payload_kg = 0.94
        self.payload_centre_m = np.zeros(3)
        self.robot_mode = RUNNING
        self.safety_mode = NORMAL
        self.runtime_state = STOPPED
        self.speed_slider = 1.0
        self.inputs: dict[str, float | int | bool | list[float]] = {}
        self.digital_outputs = 0
        self.analog_outputs = [0.0, 0.0]
        self.output_ints = [0] * 48
        self.output_doubles = [0.0] * 48
        self.motion: Motion = StopMotion(10.0)
        self.program: Program | None = None
        self._next_program: Callable[[], Program] | None = None
        self._next_start_s = 0.0
        self._parallel_step: Callable[[], bool] | None = None
        self._clock = clock
        self._stopped_at_s = 0.0
        self._flange_from_tcp = np.eye(4)
        self.set_tcp(self.tcp_offset)

    @property
    def timestamp_s(self) -> float:
        """Robot time in s since the start."""
        return self.ticks * STEP_S

    def set_tcp(self, offset: Array) -> None:
        """Sets the tool offset x y z rx ry rz (6,)."""
        self.tcp_offset = np.asarray(offset, float)
        self._flange_from_tcp = np.linalg.inv(matrix_from_pose(pose_from_rotvec(self.tcp_offset)))

    def actual_pose(self) -> Array:
        """Measured pose (7,) of the TCP in `base`."""
        return forward(self.actual.positions, self.tcp_offset)

    def target_pose(self) -> Array:
        """Pose (7,) of the TCP in `base` at the set-point."""
        return forward(self.setpoint.positions, self.tcp_offset)

    def tcp_speed(self, joints: Joints) -> Array:
        """TCP velocity (6,) in m/s and rad/s."""
        return jacobian(joints.positions, self.tcp_offset) @ joints.velocities

    def solve_inverse(self, pose6: Array, near: Array | None = None) -> Array:
        """Joint angles of a TCP pose x y z rx ry rz (6,): the solution nearest to `near` or the set-point.

        Raises UnreachableError where there is none.
        """
        transform = np.eye(4)
        transform[:3, :3] = Rotation.from_rotvec(pose6[3:]).as_matrix()
        transform[:3, 3] = pose6[:3]
        if near is None:
            near = self.setpoint.positions
        joints = inverse_flange(transform @ self._flange_from_tcp, near)
        if joints is None:
            raise UnreachableError
        return joints

    def servo(self, joints: Array, lookahead_s: float, gain: float) -> None:
        """Sets the target (6,) of the servo motion, and starts that motion when another one runs."""
        if not isinstance(self.motion, ServoMotion):
            self.motion = ServoMotion()
        self.motion.aim(joints, lookahead_s, gain)

    def load(self, make_program: Callable[[], Program]) -> None:
        """Ends the program that runs and starts another one 0.2 s later, unless something stops the arm."""
        if self.safety_mode != NORMAL or self.robot_mode != RUNNING:
            return
        self.stop_program()
        self._next_program = make_program
        self._next_start_s = self.timestamp_s + PROGRAM_START_S

    def play(self, program: Program) -> None:
        """Starts a program instead of the one that runs. Does nothing while the arm is stopped or off."""
        if self.safety_mode != NORMAL or self.robot_mode != RUNNING:
            return
        self.program = program
        self.runtime_state = PLAYING
        self.motion = StopMotion(10.0)
        self._parallel_step = None

    def run_in_parallel(self, step: Callable[[], bool]) -> None:
        """Calls `step` on every tick in parallel to the program until it returns True."""
        self._parallel_step = step

    def stop_program(self) -> None:
        """Ends the program and slows the arm down."""
        self.program = None
        self._next_program = None
        self.runtime_state = STOPPED
        self.motion = StopMotion(10.0)
        self._parallel_step = None

    def protective_stop(self) -> None:
        """Stops the arm and pauses the program, as the real controller does."""
        self.safety_mode = PROTECTIVE_STOP
        self._stopped_at_s = self._clock()
        self.motion = StopMotion(30.0)
        if self.runtime_state == PLAYING:
            self.runtime_state = PAUSED

    def unlock_protective_stop(self) -> bool:
        """Releases a protective stop. Returns False when it happened less than 5 s ago."""
        if self.safety_mode == PROTECTIVE_STOP and self._clock() - self._stopped_at_s < UNLOCK_AFTER_S:
            return False
        if self.safety_mode == PROTECTIVE_STOP:
            self.safety_mode = NORMAL
        return True

    def emergency_stop(self) -> None:
        """Emergency stop: brakes and switches the power off, which ends the program."""
        self.safety_mode = EMERGENCY_STOP
        self.power_off()
        self.motion = StopMotion(30.0)

    def release_emergency_stop(self) -> None:
        """Releases the emergency-stop button: the safety mode is normal again, the power stays off."""
        if self.safety_mode == EMERGENCY_STOP:
            self.safety_mode = NORMAL

    def power_off(self) -> None:
        """Switches the arm off and ends the program."""
        self.robot_mode = POWER_OFF
        self.stop_program()

    def tick(self) -> None:
        """Runs one tick of the program and moves the set-point by 2 ms."""
        self.ticks += 1
        if self._next_program is not None and self.timestamp_s >= self._next_start_s:
            program = self._next_program()
            self._next_program = None
            self.play(program)
        if self.program is not None and self.runtime_state == PLAYING:
            self._run_program()
        if isinstance(self.motion, LinearPath):
            self.motion.speed_share = self.speed_slider
        try:
            wanted = self.motion.advance(self.setpoint, STEP_S)
        except UnreachableError:
            self.stop_program()
            wanted = self.motion.advance(self.setpoint, STEP_S)
        self.setpoint = limit_step(self.setpoint, wanted, STEP_S)

    def _run_program(self) -> None:
        assert self.program is not None
        try:
            ended = not self.program.step()
            if self._parallel_step is not None and self._parallel_step():
                self._parallel_step = None
        except UnreachableError:
            ended = True
        if ended:
            self.stop_program()
