# SPDX-License-Identifier: Apache-2.0
"""The motion commands of the control script of ur_rtde, by their command numbers."""

import re
from collections.abc import Callable

import numpy as np
from scipy.spatial.transform import Rotation

from groot_ros.geometry import Array, pose_from_rotvec, rotvec_from_pose
from groot_ros.sim.controller import Controller
from groot_ros.sim.rtde_script.registers import ScriptRegisters
from groot_ros.sim.trajectories import CompliantMotion, JointPath, Motion, PosePath, SpeedMotion, StopMotion
from groot_ros.ur5e_kinematics import forward

IsFinished = Callable[[], bool] | None
"""What a command returns: a function that is True when the motion has ended, or None without a wait."""
_TOOL_FRAME = 1
_CUSTOM_FRAME = 2
_SPEED_ACCELERATION_RAD_S2 = 40.0
_MOVE = re.compile(r'^\s*(move[jlpc])\((.*)\)\s*$')
_LIST = re.compile(r'(p?)\[([^\]]*)\]')
_OPTION = re.compile(r'\b([av])=([-+0-9.eE]+)')


class ScriptMoves:
    """The table `commands`, and the table `streamed` of commands that are repeated on every tick."""

    def __init__(self, controller: Controller, registers: ScriptRegisters, path_text: str) -> None:
        self._controller = controller
        self._registers = registers
        self._path_text = path_text
        self._servo_pose6 = np.full(6, np.nan)
        self._servo_joints = np.zeros(6)
        self._asynchronous: Motion | None = None
        self.streamed: dict[int, Callable[[], None]] = {
            11: self._servo_j,
            24: self._servo_l,
            9: self._speed_j,
            10: self._speed_l,
            6: self._force_mode,
        }
        self.commands: dict[int, Callable[[], IsFinished]] = {
            1: self._move_j,
            2: self._move_j_ik,
            3: self._move_l,
            4: self._move_l_fk,
            45: self._move_path,
            12: self._servo_c,
            15: self._stop,
            16: self._stop,
            33: self._stop_now,
            34: self._stop_now,
            41: self._jog,
            42: self._stop_jog,
            18: self._freedrive,
            52: self._freedrive,
            7: self._hold_still,
            19: self._hold_still,
            53: self._hold_still,
            51: self._move_until_contact,
            31: self._protective_stop,
        }

    def reset_servo(self) -> None:
        """Called when no command is set: the inverse kinematics of the next servoL are computed again."""
        self._servo_pose6 = np.full(6, np.nan)

    def report_end_of_asynchronous(self) -> None:
        """Reports the end of an asynchronous motion, or that another motion replaced it."""
        motion = self._asynchronous
        if motion is not None and (motion.done or self._controller.motion is not motion):
            self._asynchronous = None
            self._registers.report_progress(-1)

    def _servo_j(self) -> None:
        self._servo(self._registers.doubles(0))

    def _servo_l(self) -> None:
        pose6 = self._registers.doubles(0)
        if not np.array_equal(pose6, self._servo_pose6):
            self._servo_pose6 = pose6
            self._servo_joints = self._controller.solve_inverse(pose6)
        self._servo(self._servo_joints)

    def _servo(self, joints: Array) -> None:
        lookahead_s = self._registers.double(9)
        gain = self._registers.double(10)
        self._controller.servo(joints, lookahead_s, gain)

    def _speed_j(self) -> None:
        self._controller.motion = SpeedMotion(self._registers.doubles(0), self._registers.double(6))

    def _speed_l(self) -> None:
        velocity = self._registers.doubles(0)
        self._controller.motion = SpeedMotion(
            velocity, _SPEED_ACCELERATION_RAD_S2, self._controller.tcp_offset
        )

    def _force_mode(self) -> None:
        if not isinstance(self._controller.motion, CompliantMotion):
            self._controller.motion = CompliantMotion(self._controller.tcp_offset)

    def _start(self, motion: Motion) -> IsFinished:
        self._controller.motion = motion
        if not self._registers.integer(1):
            return lambda: motion.done
        self._asynchronous = motion
        self._registers.report_progress(0)
        return None

    def _move_j(self) -> IsFinished:
        return self._start(self._joint_path(self._registers.doubles(0)))

    def _move_j_ik(self) -> IsFinished:
        joints = self._controller.solve_inverse(self._registers.doubles(0))
        return self._start(self._joint_path(joints))

    def _move_l(self) -> IsFinished:
        return self._start(self._pose_path(pose_from_rotvec(self._registers.doubles(0))))

    def _move_l_fk(self) -> IsFinished:
        pose = forward(self._registers.doubles(0), self._controller.tcp_offset)
        return self._start(self._pose_path(pose))

    def _servo_c(self) -> IsFinished:
        self._controller.motion = self._pose_path(pose_from_rotvec(self._registers.doubles(0)))
        return None

    def _joint_path(self, end: Array) -> JointPath:
        speed, acceleration = self._registers.doubles(6, 2)
        return JointPath(self._controller.setpoint.positions, end, speed, acceleration)

    def _pose_path(self, end: Array) -> PosePath:
        self._controller.solve_inverse(rotvec_from_pose(end))  # raises UnreachableError
        speed, acceleration = self._registers.doubles(6, 2)
        start = self._controller.target_pose()
        return PosePath(start, end, self._controller.tcp_offset, speed, acceleration)

    def _move_path(self) -> IsFinished:
        """Runs the moves that ur_rtde wrote into the script in turn, with a stop instead of a blend."""
        matches = [_MOVE.match(line) for line in self._path_text.splitlines()]
        moves = [match.groups() for match in matches if match]
        follower = PathFollower(self._controller, moves, self._registers.report_progress)
        if not self._registers.integer(1):
            return follower
        self._registers.report_progress(0)
        self._controller.run_in_parallel(follower)
        return None

    def _stop(self) -> IsFinished:
        motion = StopMotion(self._registers.double(0))
        self._controller.motion = motion
        return lambda: motion.done

    def _stop_now(self) -> IsFinished:
        is_finished = self._stop()
        return None if self._registers.integer(1) else is_finished

    def _jog(self) -> IsFinished:
        velocity = self._registers.doubles(0)
        rotation = self._jog_rotation()
        velocity = np.concatenate([rotation.apply(velocity[:3]), rotation.apply(velocity[3:])])
        acceleration = self._registers.double(7)
        self._controller.motion = SpeedMotion(velocity, acceleration, self._controller.tcp_offset)
        return None

    def _jog_rotation(self) -> Rotation:
        frame = int(self._registers.double(6))
        if frame == _TOOL_FRAME:
            return Rotation.from_rotvec(rotvec_from_pose(self._controller.target_pose())[3:])
        if frame == _CUSTOM_FRAME:
            return Rotation.from_rotvec(self._registers.doubles(8)[3:])
        return Rotation.identity()

    def _stop_jog(self) -> IsFinished:
        self._controller.motion = StopMotion(2.0)
        return None

    def _freedrive(self) -> IsFinished:
        self._controller.motion = CompliantMotion(self._controller.tcp_offset)
        return None

    def _hold_still(self) -> IsFinished:
        self._controller.motion = StopMotion(5.0)
        return None

    def _move_until_contact(self) -> IsFinished:
        """Moves until the TCP touches the table at z = 0, the only contact that this arm can make."""
        self._speed_l()

        def has_contact() -> bool:
            if self._controller.target_pose()[2] > 0.0:
                return False
            self._controller.motion = StopMotion(10.0)
            self._registers.answer_integer(1)
            return True

        return has_contact

    def _protective_stop(self) -> IsFinished:
        self._controller.protective_stop()
        return None


class PathFollower:
    """Runs the moves of a path in turn. Called on each tick, it returns True when all have ended."""

    def __init__(
        self, controller: Controller, moves: list[tuple[str, str]], report: Callable[[int], None]
    ) -> None:
        self._controller = controller
        self._moves = moves
        self._report = report
        self._current: Motion | None = None
        self._count = 0

    def __call__(self) -> bool:
        """Starts the next move when the present one has ended; True after the last one."""
        if self._current is not None and not self._current.done:
            return False
        if self._count == len(self._moves):
            self._report(-1)
            return True
        function, arguments = self._moves[self._count]
        self._current = self._parse_motion(function, arguments)
        self._controller.motion = self._current
        self._count += 1
        return False

    def _parse_motion(self, function: str, arguments: str) -> Motion:
        prefix, numbers = _LIST.findall(arguments)[-1]  # movec has two poses: the last one is its end
        values = np.array([float(word) for word in numbers.split(',')])
        options = {name: float(value) for name, value in _OPTION.findall(arguments)}
        speed = options.get('v', 0.25)
        acceleration = options.get('a', 1.2)
        controller = self._controller
        if function == 'movej':
            end = controller.solve_inverse(values) if prefix else values
            return JointPath(controller.setpoint.positions, end, speed, acceleration)
        pose = pose_from_rotvec(values) if prefix else forward(values, controller.tcp_offset)
        return PosePath(controller.target_pose(), pose, controller.tcp_offset, speed, acceleration)
