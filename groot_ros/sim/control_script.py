"""Behaviour of the control script that ur_rtde uploads, told by its registers (facts: rtde_control.script of ur_rtde 1.6)."""

import time
from collections.abc import Callable

import numpy as np

from groot_ros.geometry import Array, pose_from_rotvec, rotvec_from_pose
from groot_ros.kinematics import forward
from groot_ros.sim.controller import Controller, Program
from groot_ros.sim.motions import JointPath, PosePath, Speed, Stop, UnreachableError

READY, DONE = 1, 2
_STOP_SCRIPT, _NO_COMMAND = 255, 0


class ControlScript(Program):
    """Reads a command number from input_int_register_0 and answers through output_int_register_0, as the script does."""

    name = 'rtde_control'

    def __init__(self, controller: Controller, offset: int) -> None:
        self.controller, self.offset = controller, offset
        self._finished: Callable[[], bool] | None = None
        self._answered = False
        self._watchdog_s = 0.0
        self._servo_pose6, self._servo_joints = np.full(6, np.nan), np.zeros(6)
        self.last_input_s = time.monotonic()
        self._set(READY)
        self._streamed = {11: self._servo_j, 24: self._servo_l, 9: self._speed_j, 10: self._speed_l}
        self._commands: dict[int, Callable[[], Callable[[], bool] | None]] = {
            1: self._move_j, 2: self._move_j_ik, 3: self._move_l, 4: self._move_l_fk, 15: self._stop, 16: self._stop, 33: self._stop_now,
            34: self._stop_now, 17: self._set_payload, 29: self._set_tcp, 30: self._inverse_near, 46: self._inverse, 60: self._has_inverse,
            61: self._has_inverse, 36: self._is_pose_safe, 37: self._are_joints_safe, 43: self._forward, 44: self._forward_of,
            40: self._tcp_offset, 47: self._is_steady, 28: self._target_waypoint, 31: self._protective_stop, 35: self._set_watchdog,
        }  # fmt: skip

    def step(self) -> bool:
        """One sync() of the script's main loop."""
        command = int(self._input('int', 0))
        if command == _STOP_SCRIPT or self._starved():
            return False
        if command in self._streamed:
            self._streamed[command]()
            self._set(READY)
        elif command == _NO_COMMAND:
            self._answered, self._finished = False, None
            self._servo_pose6 = np.full(6, np.nan)
            self._set(READY)
        elif self._finished is not None:
            self._finish_when_still()
        elif not self._answered:
            self._finished = self._commands.get(command, lambda: None)()
            self._finish_when_still()
        return True

    def _finish_when_still(self) -> None:
        if self._finished is None or self._finished():
            self._finished, self._answered = None, True
            self._set(DONE)

    def _starved(self) -> bool:
        return bool(self._watchdog_s) and time.monotonic() - self.last_input_s > self._watchdog_s

    def _set(self, state: int) -> None:
        self.controller.output_ints[self.offset] = state

    def _input(self, kind: str, index: int) -> float:
        return self.controller.inputs.get(f'input_{kind}_register_{index + self.offset}', 0)  # type: ignore[return-value]

    def _doubles(self, first: int, count: int) -> Array:
        return np.array([self._input('double', first + i) for i in range(count)], float)

    def _answer(self, values: Array) -> None:
        self.controller.output_doubles[self.offset : self.offset + len(values)] = [float(v) for v in values]

    def _answer_bool(self, value: bool) -> None:
        self.controller.output_ints[self.offset + 1] = int(value)

    def _pose6(self) -> Array:
        return self._doubles(0, 6)

    # Streamed commands, run on every tick while they stand.
    def _servo_j(self) -> None:
        self.controller.servo(self._doubles(0, 6), self._input('double', 9), self._input('double', 10))

    def _servo_l(self) -> None:
        pose6 = self._pose6()
        if not np.array_equal(pose6, self._servo_pose6):
            self._servo_pose6, self._servo_joints = pose6, self.controller.solve(pose6)
        self.controller.servo(self._servo_joints, self._input('double', 9), self._input('double', 10))

    def _speed_j(self) -> None:
        self.controller.motion = Speed(self._doubles(0, 6), self._input('double', 6))

    def _speed_l(self) -> None:
        self.controller.motion = Speed(self._doubles(0, 6), 40.0, self.controller.tcp_offset)

    # Commands that run once; each returns what says when it has ended, or None when it has at once.
    def _start(self, motion: JointPath | PosePath) -> Callable[[], bool] | None:
        self.controller.motion = motion
        asynchronous = bool(self._input('int', 1))
        return None if asynchronous else lambda: motion.done

    def _move_j(self) -> Callable[[], bool] | None:
        return self._joint_path(self._doubles(0, 6))

    def _move_j_ik(self) -> Callable[[], bool] | None:
        return self._joint_path(self.controller.solve(self._pose6()))

    def _move_l(self) -> Callable[[], bool] | None:
        return self._pose_path(pose_from_rotvec(self._pose6()))

    def _move_l_fk(self) -> Callable[[], bool] | None:
        return self._pose_path(forward(self._doubles(0, 6), self.controller.tcp_offset))

    def _joint_path(self, end: Array) -> Callable[[], bool] | None:
        speed, acceleration = self._doubles(6, 2)
        return self._start(JointPath(self.controller.setpoint.positions, end, speed, acceleration))

    def _pose_path(self, end: Array) -> Callable[[], bool] | None:
        speed, acceleration = self._doubles(6, 2)
        self.controller.solve(rotvec_from_pose(end))
        return self._start(PosePath(self.controller.target_pose(), end, self.controller.tcp_offset, speed, acceleration))

    def _stop(self) -> Callable[[], bool]:
        self.controller.motion = stop = Stop(self._input('double', 0))
        return lambda: stop.done

    def _stop_now(self) -> Callable[[], bool] | None:
        finished = self._stop()
        return None if self._input('int', 1) else finished

    def _set_payload(self) -> None:
        self.controller.payload_kg = self._input('double', 0)
        self.controller.payload_centre_m = self._doubles(1, 3)

    def _set_tcp(self) -> None:
        self.controller.set_tcp(self._doubles(0, 6))

    def _inverse(self) -> None:
        self._answer(self.controller.solve(self._pose6()))

    def _inverse_near(self) -> None:
        self._answer(self.controller.solve(self._pose6(), self._doubles(6, 6)))

    def _has_inverse(self) -> None:
        try:
            self.controller.solve(self._pose6())
        except UnreachableError:
            return self._answer_bool(False)
        return self._answer_bool(True)

    def _is_pose_safe(self) -> None:
        self._has_inverse()

    def _are_joints_safe(self) -> None:
        self._answer_bool(bool(np.all(np.abs(self._doubles(0, 6)) <= 2 * np.pi)))

    def _forward(self) -> None:
        self._answer(rotvec_from_pose(self.controller.actual_pose()))

    def _forward_of(self) -> None:
        self._answer(rotvec_from_pose(forward(self._doubles(0, 6), self._doubles(6, 6))))

    def _tcp_offset(self) -> None:
        self._answer(self.controller.tcp_offset)

    def _target_waypoint(self) -> None:
        self._answer(rotvec_from_pose(self.controller.target_pose()))

    def _is_steady(self) -> None:
        self._answer_bool(bool(np.abs(self.controller.actual.velocities).max() < 1e-3))

    def _protective_stop(self) -> None:
        self.controller.protective_stop()

    def _set_watchdog(self) -> None:
        frequency = self._input('double', 0)
        self._watchdog_s = 1.0 / frequency if frequency > 0 else 0.0


class CustomScript(Program):
    """A program that the cell does not interpret: it says that it began and ended, and moves nothing."""

    def __init__(self, controller: Controller, name: str) -> None:
        self.controller, self.name, self._ticks_left = controller, name, 25
        controller.output_ints[0] = READY

    def step(self) -> bool:
        """Runs for 50 ms."""
        self._ticks_left -= 1
        if self._ticks_left == 1:
            self.controller.output_ints[0] = DONE
        return self._ticks_left > 0


def program_of(text: str, controller: Controller) -> Program:
    """The program that a script text stands for; ur_rtde's control script is known by its name."""
    name = text.split('(', 1)[0].removeprefix('def ').strip()
    if name != ControlScript.name:
        return CustomScript(controller, name)
    return ControlScript(controller, _register_offset(text))


def _register_offset(text: str) -> int:
    """24 where ur_rtde injected it below the line '# int register offset', else 0."""
    lines = text.partition('# int register offset')[2].splitlines()
    return 24 if len(lines) > 1 and '24' in lines[1] else 0
