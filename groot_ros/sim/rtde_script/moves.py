# SPDX-License-Identifier: Apache-2.0
"""The motion commands of ur_rtde's control script, by their numbers. Each returns what says when it has ended, or None when it has at once."""

import re
from collections.abc import Callable

import numpy as np
from scipy.spatial.transform import Rotation

from groot_ros.geometry import Array, pose_from_rotvec, rotvec_from_pose
from groot_ros.sim.controller import Controller
from groot_ros.sim.rtde_script.registers import ScriptRegisters
from groot_ros.sim.trajectories import CompliantMotion, JointPath, Motion, PosePath, SpeedMotion, StopMotion
from groot_ros.ur5e_kinematics import forward

Finished = Callable[[], bool] | None
_TOOL, _CUSTOM = 1, 2
_FASTEST_RAMP = 40.0
_MOVE = re.compile(r'^\s*(move[jlpc])\((.*)\)\s*$')
_LIST = re.compile(r'(p?)\[([^\]]*)\]')
_OPTION = re.compile(r'\b([av])=([-+0-9.eE]+)')


class ScriptMotions:
    """The table `commands`, and `streamed`: those that are run on every tick while they stand in the register."""

    def __init__(self, controller: Controller, registers: ScriptRegisters, path_text: str) -> None:
        self._controller, self._registers = controller, registers
        self._path_text = path_text
        self._servo_pose6, self._servo_joints = np.full(6, np.nan), np.zeros(6)
        self._asynchronous: Motion | None = None
        self.streamed: dict[int, Callable[[], None]] = {
            11: self._servo_j, 24: self._servo_l, 9: self._speed_j, 10: self._speed_l, 6: self._force_mode,
        }  # fmt: skip
        self.commands: dict[int, Callable[[], Finished]] = {
            1: self._move_j, 2: self._move_j_ik, 3: self._move_l, 4: self._move_l_fk, 45: self._move_path, 12: self._servo_c,
            15: self._stop, 16: self._stop, 33: self._stop_now, 34: self._stop_now, 41: self._jog, 42: self._stop_jog,
            52: self._freedrive, 53: self._hold, 18: self._freedrive, 19: self._hold, 7: self._hold, 51: self._move_until_contact,
            31: self._protective_stop,
        }  # fmt: skip

    def rest(self) -> None:
        """No command stands: the next servoL is solved anew."""
        self._servo_pose6 = np.full(6, np.nan)

    def watch_asynchronous(self) -> None:
        """Reports the end of an asynchronous motion."""
        if self._asynchronous is not None and (
            self._asynchronous.done or self._controller.motion is not self._asynchronous
        ):
            self._asynchronous = None
            self._registers.report_progress(-1)

    def _servo_j(self) -> None:
        self._controller.servo(
            self._registers.doubles(0), self._registers.double(9), self._registers.double(10)
        )

    def _servo_l(self) -> None:
        pose6 = self._registers.doubles(0)
        if not np.array_equal(pose6, self._servo_pose6):
            self._servo_pose6, self._servo_joints = pose6, self._controller.solve(pose6)
        self._controller.servo(self._servo_joints, self._registers.double(9), self._registers.double(10))

    def _speed_j(self) -> None:
        self._controller.motion = SpeedMotion(self._registers.doubles(0), self._registers.double(6))

    def _speed_l(self) -> None:
        self._controller.motion = SpeedMotion(
            self._registers.doubles(0), _FASTEST_RAMP, self._controller.tcp_offset
        )

    def _force_mode(self) -> None:
        if not isinstance(self._controller.motion, CompliantMotion):
            self._controller.motion = CompliantMotion(self._controller.tcp_offset)

    def _start(self, motion: Motion) -> Finished:
        self._controller.motion = motion
        if not self._registers.integer(1):
            return lambda: motion.done
        self._asynchronous = motion
        self._registers.report_progress(0)
        return None

    def _move_j(self) -> Finished:
        return self._start(self._joint_path(self._registers.doubles(0)))

    def _move_j_ik(self) -> Finished:
        return self._start(self._joint_path(self._controller.solve(self._registers.doubles(0))))

    def _move_l(self) -> Finished:
        return self._start(self._pose_path(pose_from_rotvec(self._registers.doubles(0))))

    def _move_l_fk(self) -> Finished:
        return self._start(self._pose_path(forward(self._registers.doubles(0), self._controller.tcp_offset)))

    def _servo_c(self) -> Finished:
        self._controller.motion = self._pose_path(pose_from_rotvec(self._registers.doubles(0)))
        return None

    def _joint_path(self, end: Array) -> JointPath:
        return JointPath(self._controller.setpoint.positions, end, *self._registers.doubles(6, 2))

    def _pose_path(self, end: Array) -> PosePath:
        self._controller.solve(rotvec_from_pose(end))
        return PosePath(
            self._controller.target_pose(), end, self._controller.tcp_offset, *self._registers.doubles(6, 2)
        )

    def _move_path(self) -> Finished:
        """The motions that ur_rtde wrote into the script, one after the other; blends are driven as stops."""
        waiting = [match.groups() for line in self._path_text.splitlines() if (match := _MOVE.match(line))]
        began = self._registers.integer(1)
        if began:
            self._registers.report_progress(0)
        step = PathFollower(self._controller, waiting, self._registers.report_progress)
        return None if began and self._controller.run_beside(step) else step

    def _stop(self) -> Finished:
        self._controller.motion = stop = StopMotion(self._registers.double(0))
        return lambda: stop.done

    def _stop_now(self) -> Finished:
        finished = self._stop()
        return None if self._registers.integer(1) else finished

    def _jog(self) -> Finished:
        speed, feature = self._registers.doubles(0), self._registers.double(6)
        frame = {
            _TOOL: rotvec_from_pose(self._controller.target_pose())[3:],
            _CUSTOM: self._registers.doubles(8)[3:],
        }.get(int(feature))
        if frame is not None:
            turn = Rotation.from_rotvec(frame)
            speed = np.concatenate([turn.apply(speed[:3]), turn.apply(speed[3:])])
        self._controller.motion = SpeedMotion(
            speed, max(self._registers.double(7), 0.1), self._controller.tcp_offset
        )
        return None

    def _stop_jog(self) -> Finished:
        self._controller.motion = StopMotion(2.0)
        return None

    def _freedrive(self) -> Finished:
        self._controller.motion = CompliantMotion(self._controller.tcp_offset)
        return None

    def _hold(self) -> Finished:
        self._controller.motion = StopMotion(5.0)
        return None

    def _move_until_contact(self) -> Finished:
        """Drives until the TCP stands on the table, z = 0: the one contact that the arm of this cell can make."""
        self._speed_l()

        def touched() -> bool:
            if self._controller.target_pose()[2] > 0.0:
                return False
            self._controller.motion = StopMotion(10.0)
            self._registers.answer_integer(1)
            return True

        return touched

    def _protective_stop(self) -> Finished:
        self._controller.protective_stop()
        return None


class PathFollower:
    """Drives the moves of a path in turn; called each tick, True when all are done."""

    def __init__(
        self, controller: Controller, moves: list[tuple[str, str]], report: Callable[[int], None]
    ) -> None:
        self._controller, self._moves, self._report = controller, moves, report
        self._current: Motion | None = None
        self._count = 0

    def __call__(self) -> bool:
        """One tick."""
        if self._current is not None and not self._current.done:
            return False
        if self._count == len(self._moves):
            self._report(-1)
            return True
        self._current = self._controller.motion = self._motion(*self._moves[self._count])
        self._count += 1
        return False

    def _motion(self, kind: str, text: str) -> Motion:
        prefix, numbers = _LIST.findall(text)[-1]  # of movec's two poses the end
        values = np.array([float(word) for word in numbers.split(',')])
        options = {name: float(value) for name, value in _OPTION.findall(text)}
        speed, acceleration = options.get('v', 0.25), options.get('a', 1.2)
        controller = self._controller
        if kind == 'movej':
            end = controller.solve(values) if prefix else values
            return JointPath(controller.setpoint.positions, end, speed, acceleration)
        pose = pose_from_rotvec(values) if prefix else forward(values, controller.tcp_offset)
        return PosePath(controller.target_pose(), pose, controller.tcp_offset, speed, acceleration)
