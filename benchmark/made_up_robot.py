# SPDX-License-Identifier: Apache-2.0
"""A UR5e in made-up time, in place of ur_rtde's control interface. Used by benchmark/made_up_cell.py."""

from collections.abc import Callable

import numpy as np

from groot_ros.geometry import Array, pose_from_rotvec, rotvec_from_pose
from groot_ros.hardware.ur5e.ipc import STATE
from groot_ros.hardware.ur5e.modes import (
    EMERGENCY_STOP,
    NORMAL,
    PAUSED,
    PLAYING,
    PROTECTIVE_STOP,
    RUNNING,
    STOPPED,
)
from groot_ros.ur5e_kinematics import DEFAULT_TCP_OFFSET, forward, inverse

HOME = np.array([-1.5708, -1.5708, -1.5708, -1.5708, 1.5708, 0.0])
_PROGRAM_START_S = 0.2
_WATCHDOG_S = 0.25
# Of the TCP. A stop of the robot itself takes 30 ms at 0.25 m/s, as in the simulated cell.
_ROBOT_STOP_M_S2 = 8.0


class MadeUpRobot:
    """servoL is a first-order lag with the lookahead time as constant, as in the simulated cell.

    `heard` holds the set-points (7,), one list for each time that servoing began. `broken_rules` holds what a
    program must not do.
    A robot that is `deaf` takes set-points and stands still. `push_m_s` (3,) is a hand in freedrive.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.joints = HOME.copy()
        self.pose = forward(HOME, DEFAULT_TCP_OFFSET)
        self.velocity_m_s = np.zeros(3)
        self.running = False
        self.paused = False
        self.freedriving = False
        self.deaf = False
        self.dropped = False
        self.safety_mode = NORMAL
        self.speed_scaling = 1.0
        self.push_m_s = np.zeros(3)
        self.heard: list[list[Array]] = []
        self.broken_rules: list[str] = []
        self._goal: Array | None = None
        self._lookahead_s = 0.1
        self._deceleration_m_s2 = _ROBOT_STOP_M_S2
        self._starts_s = np.inf
        self._fed_s = 0.0
        self._reported_joints = self.joints
        self._reported_s = clock()

    # What servo_process calls, by the names of ur_rtde.

    def connect(self, *arguments: object) -> 'MadeUpRobot':
        """A new control interface uploads its script."""
        self.reuploadScript()
        return self

    def isProgramRunning(self) -> bool:
        return self.running and not self.paused

    def reuploadScript(self) -> bool:
        self._end_program()
        if self.safety_mode == NORMAL:
            self._starts_s = self._clock() + _PROGRAM_START_S
        return True

    def stopScript(self) -> None:
        self._end_program()

    def setTcp(self, offset: object) -> bool:
        return self._feed()

    def setPayload(self, mass_kg: float, centre_m: object) -> bool:
        return self._feed()

    def setWatchdog(self, rate_hz: float) -> bool:
        return self._feed()

    def kickWatchdog(self) -> bool:
        return self._feed()

    def getTCPOffset(self) -> list[float]:
        return DEFAULT_TCP_OFFSET.tolist()

    def servoL(
        self, pose6: list, v: float, a: float, period_s: float, lookahead_s: float, gain: float
    ) -> bool:
        if not self._feed():
            return False
        if self.freedriving:
            self.broken_rules.append('servoL in freedrive')
        if self._goal is None:
            self.heard.append([])
        self._goal = pose_from_rotvec(np.array(pose6))
        self._lookahead_s = lookahead_s
        self.heard[-1].append(self._goal)
        return True

    def servoStop(self, deceleration: float) -> bool:
        if self.isProgramRunning():
            self._slow_down(deceleration)
        return self.isProgramRunning()

    def freedriveMode(self) -> bool:
        if self._goal is not None:
            self.broken_rules.append('freedrive while servoing')
        self.freedriving = self.isProgramRunning()
        return self.freedriving

    def endFreedriveMode(self) -> bool:
        self.freedriving = False
        return self.isProgramRunning()

    # What happens to it.

    def stop(self, safety_mode: int) -> None:
        """A protective or emergency stop: the program is only paused, as on the real controller."""
        self.safety_mode = safety_mode
        self.pause()

    def pause(self) -> None:
        """A person pauses the program."""
        self.paused = self.running
        self.freedriving = False
        self._slow_down(_ROBOT_STOP_M_S2, keep_goal=True)

    def play(self) -> None:
        """A person continues the paused program, which still holds its last goal."""
        if self.paused and self.safety_mode == NORMAL:
            self.paused = False
            self._fed_s = self._clock()

    def stop_program(self, host: str = '') -> None:
        """The dashboard stops the program, also a paused one."""
        self._end_program()

    def check_ready(self, host: str, rate_hz: float, ours_runs: bool) -> None:
        """The dashboard's answer before control is taken."""
        if self.safety_mode != NORMAL:
            raise RuntimeError('the robot says "POWER_OFF"')

    def recover(self, host: str, show_step: object) -> None:
        """UR's sequence after a stop."""
        if self.safety_mode == EMERGENCY_STOP:
            raise RuntimeError('an emergency stop is pressed: release the button first')
        self.safety_mode = NORMAL
        self._end_program()

    def release_button(self) -> None:
        """A released emergency stop still needs a recovery."""
        if self.safety_mode == EMERGENCY_STOP:
            self.safety_mode = PROTECTIVE_STOP

    def step(self, dt_s: float) -> None:
        """Moves the arm by one tick."""
        now_s = self._clock()
        if now_s >= self._starts_s:
            self._starts_s = np.inf
            self.running = True
            self._fed_s = now_s
        if self.isProgramRunning() and now_s - self._fed_s > _WATCHDOG_S:
            self._end_program()
        if self.freedriving:
            self._move_to(self.pose[:3] + self.push_m_s * dt_s, dt_s)
        elif self._goal is not None and self.isProgramRunning():
            self._follow(self._goal, dt_s)
        elif self.velocity_m_s.any():
            self._coast(dt_s)

    def state(self) -> np.void:
        """A STATE record of this instant."""
        solution = inverse(self.pose, self.joints, DEFAULT_TCP_OFFSET)
        assert solution is not None
        self.joints = solution
        elapsed_s = max(self._clock() - self._reported_s, 1e-3)
        state = np.zeros(1, STATE)
        state['robot_time_s'] = self._clock()
        state['joint_positions'] = state['target_joints'] = self.joints
        state['joint_velocities'] = (self.joints - self._reported_joints) / elapsed_s
        state['tcp_pose'] = state['target_pose'] = rotvec_from_pose(self.pose)
        state['speed_scaling'] = self.speed_scaling
        state['robot_mode'], state['safety_mode'] = RUNNING, self.safety_mode
        state['runtime_state'] = PAUSED if self.paused else PLAYING if self.running else STOPPED
        self._reported_joints = self.joints
        self._reported_s = self._clock()
        return state[0]

    def _feed(self) -> bool:
        self._fed_s = self._clock()
        return self.isProgramRunning()

    def _end_program(self) -> None:
        self.running = self.paused = self.freedriving = False
        self._starts_s = np.inf
        self._slow_down(_ROBOT_STOP_M_S2)

    def _slow_down(self, deceleration_m_s2: float, keep_goal: bool = False) -> None:
        self._deceleration_m_s2 = deceleration_m_s2
        if not keep_goal:
            self._goal = None

    def _follow(self, goal: Array, dt_s: float) -> None:
        if self.deaf or np.array_equal(goal, self.pose):
            self.velocity_m_s = np.zeros(3)
            return
        share = 1.0 - np.exp(-dt_s / self._lookahead_s)
        # The normalised mean of close quaternions is near enough to the shorter arc.
        nearer = goal[3:] if goal[3:] @ self.pose[3:] >= 0 else -goal[3:]
        turned = self.pose[3:] + (nearer - self.pose[3:]) * share
        self.pose = np.concatenate([self.pose[:3], turned / np.linalg.norm(turned)])
        self._move_to(self.pose[:3] + (goal[:3] - self.pose[:3]) * share, dt_s)

    def _coast(self, dt_s: float) -> None:
        speed = float(np.linalg.norm(self.velocity_m_s))
        slower = max(speed - self._deceleration_m_s2 * dt_s, 0.0)
        self._move_to(self.pose[:3] + self.velocity_m_s * (slower / speed) * dt_s, dt_s)

    def _move_to(self, position_m: Array, dt_s: float) -> None:
        self.velocity_m_s = (position_m - self.pose[:3]) / dt_s
        self.pose = np.concatenate([position_m, self.pose[3:]])
