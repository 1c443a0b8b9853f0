# SPDX-License-Identifier: Apache-2.0
"""The process that commands the robot through ur_rtde: interpolates waypoints at 500 Hz into servoL.

Started by hardware/ur5e/arm.py. ur_rtde can crash or hang: a reconnect ends in SIGSEGV, a call can wait for
300 s. So it never runs in the node, this process ends before the library can reconnect, and every call that
may wait is announced with a deadline.
"""

import time
from collections.abc import Callable

import numpy as np
from rtde_control import RTDEControlInterface

from groot_ros.control.setpoints import SetpointGenerator
from groot_ros.geometry import rotvec_from_pose
from groot_ros.hardware.realtime import SERVO_PRIORITY, set_realtime_priority
from groot_ros.hardware.ur5e.connection_monitor import ConnectionMonitor
from groot_ros.hardware.ur5e.dashboard import check_ready, recover
from groot_ros.hardware.ur5e.ipc import (
    BEAT,
    BRAKE,
    END_FREEDRIVE,
    FREEDRIVE,
    ORDER,
    RECOVER,
    START_SERVO,
    TAKE_CONTROL,
    WAYPOINT,
)
from groot_ros.hardware.worker_process import WorkerConnection, run_worker

_RTDE_PORT = 30004
_CONNECT_S = 8.0
_CALL_S = 2.0
_RECOVER_S = 20.0
_WATCHDOG_HZ = 4.0
_KICK_HZ = 20.0
_BEAT_HZ = 25.0
_STOP_DECELERATION = 5.0
_SETTLE_TIMES = 5.0
_HOLDING = np.array([0, 0, 0, 0, 0, 0, 1.0])


class ConnectionLostError(Exception):
    """The robot closed a connection of ur_rtde; it ends this process."""


class Arm:
    """What runs on the robot: nothing, the idle control script, servoing, or freedrive."""

    def __init__(self, end: WorkerConnection) -> None:
        self._end = end
        self._settings = end.settings
        self._period_s = 1.0 / self._settings['servo_rate_hz']
        self._control: RTDEControlInterface | None = None
        self._watch = ConnectionMonitor(_RTDE_PORT)
        self._setpoints: SetpointGenerator | None = None
        self._braking = False
        self._resting_s = 0.0
        self.setpoint = _HOLDING
        self.freedriving = False
        self._handlers: dict[int, Callable[[np.void], None]] = {
            TAKE_CONTROL: self._take_control,
            START_SERVO: self._start_servo,
            WAYPOINT: self._add_waypoint,
            BRAKE: self._brake,
            FREEDRIVE: self._freedrive,
            END_FREEDRIVE: self._end_freedrive,
            RECOVER: self._recover,
        }

    @property
    def servoing(self) -> bool:
        """Whether set-points flow and waypoints are followed."""
        return self._setpoints is not None and not self._braking

    def obey(self) -> None:
        """Carries out the orders that wait; those with a number are answered."""
        for record in self._end.orders():
            order = np.frombuffer(record, ORDER)[0]
            problem = ''
            try:
                self._handlers[int(order['kind'])](order)
            except (RuntimeError, ValueError) as error:
                problem = str(error).splitlines()[0]
            self.check_connection()
            if order['number']:
                self._end.answer(int(order['number']), problem)

    def check_connection(self) -> None:
        """Raises ConnectionLostError if the robot hung up: from then on the library may not be called."""
        if self._watch.lost():
            raise ConnectionLostError('the robot closed the connection')

    def servo(self, now_s: float) -> None:
        """Sends the set-point of this instant. Stops servoing if the program on the robot has stopped."""
        if self._setpoints is None or self._control is None:
            return
        self.setpoint = self._setpoints.advance(now_s)
        pose = rotvec_from_pose(self.setpoint).tolist()
        lookahead_s = self._settings['lookahead_s']
        obeyed = self._control.servoL(pose, 0.0, 0.0, self._period_s, lookahead_s, self._settings['gain'])
        if not obeyed:
            self._setpoints = None
        elif self._braking:
            self._end_braking()

    def keep_alive(self) -> None:
        """Feeds the watchdog while no set-points flow."""
        if self._setpoints is None and self._control is not None and self._control.isProgramRunning():
            self._control.kickWatchdog()

    def close(self) -> None:
        """Stops the arm and the script, which leaves the robot holding its position."""
        if self._control is None:
            return
        with self._end.deadline('stopping the control script', _CALL_S + 1.0):
            if self._control.isProgramRunning():
                if self.freedriving:
                    self._control.endFreedriveMode()
                if self._setpoints is not None:
                    self._control.servoStop(_STOP_DECELERATION)
                self._control.stopScript()

    def _take_control(self, order: np.void) -> None:
        """Uploads the control script if it does not run, and sets TCP offset, payload and watchdog."""
        settings = self._settings
        with self._end.deadline('asking the dashboard', _CALL_S + 3.0):
            check_ready(settings['robot_ip'], settings['servo_rate_hz'], ours_runs=self._control is not None)
        if self._control is None:
            with self._end.deadline('starting the control script', _CONNECT_S):
                self._control = RTDEControlInterface(settings['robot_ip'], settings['servo_rate_hz'])
            self._watch = ConnectionMonitor(_RTDE_PORT)
        elif not self._control.isProgramRunning():
            with self._end.deadline('uploading the control script again', _CONNECT_S):
                if not self._control.reuploadScript():
                    raise RuntimeError('the control script could not be uploaded again')
        with self._end.deadline('setTcp and setPayload', 3 * _CALL_S):
            self._control.setTcp(settings['tcp_offset'])
            self._control.setPayload(settings['payload_kg'], settings['payload_centre_m'])
            answered = self._control.getTCPOffset()
            self._control.setWatchdog(_WATCHDOG_HZ)  # last: the calls above may wait for longer than it does
        if not np.allclose(answered, settings['tcp_offset'], atol=1e-4):
            kept = np.round(answered, 4).tolist()
            raise RuntimeError(f'the robot kept the TCP offset {kept} instead of {settings["tcp_offset"]}')

    def _start_servo(self, order: np.void) -> None:
        """Starts to servo, at a pose that the robot itself has as its target."""
        if self._control is None:
            raise RuntimeError('the control script does not run')
        self._braking = False
        self.setpoint = np.array(order['pose'])
        self._setpoints = SetpointGenerator(
            time.monotonic(),
            order['pose'],
            self._settings['smoothing_s'],
            self._period_s,
            tuple(self._settings['max_speeds']),
        )

    def _add_waypoint(self, order: np.void) -> None:
        if self.servoing and self._setpoints is not None:
            self._setpoints.append(float(order['start_s']), float(order['end_s']), order['pose'])

    def _brake(self, order: np.void) -> None:
        """Slows down along the path; the script idles once the arm has come to rest."""
        if self._setpoints is not None:
            self._setpoints.brake()
            self._braking = True
            self._resting_s = 0.0

    def _end_braking(self) -> None:
        """Stops servoing 5 lookahead times after the set-points came to rest: the robot lags by one."""
        assert self._setpoints is not None and self._control is not None
        if self._setpoints.resting:
            self._resting_s += self._period_s
        else:
            self._resting_s = 0.0
        if self._resting_s > _SETTLE_TIMES * self._settings['lookahead_s']:
            self._setpoints = None
            self._braking = False
            with self._end.deadline('servoStop', _CALL_S):
                self._control.servoStop(_STOP_DECELERATION)

    def _freedrive(self, order: np.void) -> None:
        self._take_control(order)
        assert self._control is not None
        with self._end.deadline('freedriveMode', _CALL_S):
            if not self._control.freedriveMode():
                raise RuntimeError('the robot refused freedrive')
        self.freedriving = True

    def _end_freedrive(self, order: np.void) -> None:
        self.freedriving = False
        if self._control is not None and self._control.isProgramRunning():
            with self._end.deadline('endFreedriveMode', _CALL_S):
                self._control.endFreedriveMode()

    def _recover(self, order: np.void) -> None:
        """Runs UR's sequence. It stops the script, which the next TAKE_CONTROL uploads again."""
        self._setpoints = None
        self.freedriving = False
        with self._end.deadline('recovering', _RECOVER_S):
            recover(self._settings['robot_ip'])


class CycleTimes:
    """Cycle times of the servo loop during the last second."""

    def __init__(self, rate_hz: float) -> None:
        self._times_ms = np.zeros(round(rate_hz))
        self._last_s = time.monotonic()
        self.count = 0

    def add(self, now_s: float) -> None:
        """Adds the cycle that ends now."""
        self._times_ms[self.count % len(self._times_ms)] = (now_s - self._last_s) * 1e3
        self._last_s = now_s
        self.count += 1

    def summary(self) -> tuple[float, float]:
        """99th percentile and maximum in ms."""
        known = np.sort(self._times_ms[: max(min(self.count, len(self._times_ms)), 1)])
        return float(known[int(0.99 * (len(known) - 1))]), float(known[-1])


def work(end: WorkerConnection) -> None:
    """The servo loop. When the parent hangs up the arm is left holding; a lost connection ends it at once."""
    set_realtime_priority(SERVO_PRIORITY)
    arm = Arm(end)
    rate_hz = end.settings['servo_rate_hz']
    cycles = CycleTimes(rate_hz)
    due_s = time.monotonic()
    try:
        while True:
            arm.check_connection()
            arm.obey()
            arm.servo(time.monotonic())
            cycles.add(time.monotonic())
            if cycles.count % round(rate_hz / _BEAT_HZ) == 0:
                beat = (arm.servoing, arm.freedriving, arm.setpoint, cycles.count, *cycles.summary())
                end.send(np.array([beat], BEAT).tobytes())
            if cycles.count % round(rate_hz / _KICK_HZ) == 0:
                arm.keep_alive()
            due_s = max(due_s + 1.0 / rate_hz, time.monotonic() - 5.0 / rate_hz)
            time.sleep(max(due_s - time.monotonic(), 0.0))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        arm.close()


if __name__ == '__main__':
    run_worker(work)
