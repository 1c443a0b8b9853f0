# SPDX-License-Identifier: Apache-2.0
"""The process that commands the robot through ur_rtde: interpolates waypoints at 500 Hz into servoL.

Started by hardware/ur5e/arm.py. ur_rtde can crash or hang: a reconnect ends in SIGSEGV, a call can wait for
300 s. So it never runs in the node, this process ends before the library can reconnect, and every call that
may wait is announced with a deadline.
"""

import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from rtde_control import RTDEControlInterface

from groot_ros.control.setpoints import SetpointGenerator
from groot_ros.geometry import rotvec_from_pose
from groot_ros.hardware.realtime import SERVO_PRIORITY, set_realtime_priority
from groot_ros.hardware.ur5e.connection_monitor import ConnectionMonitor
from groot_ros.hardware.ur5e.dashboard import check_ready, recover, stop_program
from groot_ros.hardware.ur5e.ipc import (
    BEAT,
    BRAKE,
    END_FREEDRIVE,
    FREEDRIVE,
    HALT,
    HOLD,
    LIMIT_SPEEDS,
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
_DASHBOARD_S = 5.0
_START_S = 3.0
# Longer than the deadlines of dashboard.recover together: 2 to connect, 8 to unlock, 30 for power and brakes.
_RECOVER_S = 45.0
_WATCHDOG_HZ = 4.0
_KICK_HZ = 20.0
_BEAT_HZ = 25.0
_STOP_DECELERATION = 10.0
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
        self._max_speeds = tuple(self._settings['max_speeds'])
        self._braking = False
        self._beat_due = False
        self.setpoint = _HOLDING
        self.rest = _HOLDING
        self.holds = 0
        self.freedriving = False
        self._handlers: dict[int, Callable[[np.void], None]] = {
            TAKE_CONTROL: self._take_control,
            START_SERVO: self._start_servo,
            WAYPOINT: self._add_waypoint,
            HOLD: self._hold,
            BRAKE: self._brake,
            HALT: self._halt,
            FREEDRIVE: self._freedrive,
            END_FREEDRIVE: self._end_freedrive,
            RECOVER: self._recover,
            LIMIT_SPEEDS: self._limit_speeds,
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

    def beat(self, cycles: 'CycleTimes') -> bytes:
        """The bytes of a BEAT record."""
        what = (self.servoing, self.freedriving, self.setpoint, self.holds, self.rest)
        return np.array([(*what, cycles.count, *cycles.summary())], BEAT).tobytes()

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
            self._end_program()
        elif self._braking and self._setpoints.resting:
            self._stop_servo()

    def beat_due(self) -> bool:
        """Whether the driver waits for a beat; True once after each HOLD."""
        due = self._beat_due
        self._beat_due = False
        return due

    def keep_alive(self) -> None:
        """Feeds the watchdog while no set-points flow. A program that was paused in freedrive is ended."""
        if self._setpoints is not None or self._control is None:
            return
        if self._control.isProgramRunning():
            self._control.kickWatchdog()
        elif self.freedriving:
            self._end_program()

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
        """Uploads the control script if it does not run, and sets TCP offset, payload and watchdog.

        First it ends whatever still moves or frees the arm.
        """
        settings = self._settings
        self._stop_servo()
        self._end_freedrive(order)
        with self._end.deadline('asking the dashboard', _DASHBOARD_S):
            check_ready(settings['robot_ip'], settings['servo_rate_hz'], ours_runs=self._control is not None)
        if self._control is None:
            with self._end.deadline('starting the control script', _CONNECT_S):
                self._control = RTDEControlInterface(settings['robot_ip'], settings['servo_rate_hz'])
            self._watch = ConnectionMonitor(_RTDE_PORT)
        elif not self._control.isProgramRunning():
            with self._end.deadline('uploading the control script again', _CONNECT_S):
                if not self._control.reuploadScript():
                    raise RuntimeError('the control script could not be uploaded again')
        self._wait_for_program()
        self._configure_robot()

    def _wait_for_program(self) -> None:
        """Waits until the uploaded script runs: a controller takes 0.1 to 0.3 s for that."""
        assert self._control is not None
        with self._end.deadline('waiting for the control script', _START_S + _CALL_S):
            deadline_s = time.monotonic() + _START_S
            while not self._control.isProgramRunning():
                self.check_connection()
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f'the control script did not start within {_START_S:g} s')
                time.sleep(0.01)

    def _configure_robot(self) -> None:
        """Sets TCP offset, payload and watchdog. Raises RuntimeError if the robot does not confirm one."""
        settings = self._settings
        assert self._control is not None
        with self._end.deadline('setting TCP offset, payload and watchdog', 3 * _CALL_S):
            _must(self._control.setTcp(settings['tcp_offset']), 'the TCP offset')
            _must(
                self._control.setPayload(settings['payload_kg'], settings['payload_centre_m']), 'the payload'
            )
            answered = self._control.getTCPOffset()
            # Last, since the calls above may wait for longer than it does.
            _must(self._control.setWatchdog(_WATCHDOG_HZ), 'its watchdog')
        if not np.allclose(answered, settings['tcp_offset'], atol=1e-4):
            kept = np.round(answered, 4).tolist()
            raise RuntimeError(f'the robot kept the TCP offset {kept} instead of {settings["tcp_offset"]}')

    def _start_servo(self, order: np.void) -> None:
        """Starts to servo, at a pose that the robot itself has as its target."""
        if self._control is None:
            raise RuntimeError('the control script does not run')
        self._braking = False
        self.holds = 0
        self.setpoint = np.array(order['pose'])
        self._setpoints = SetpointGenerator(
            time.monotonic(),
            order['pose'],
            self._settings['smoothing_s'],
            self._period_s,
            self._max_speeds,
        )

    def _add_waypoint(self, order: np.void) -> None:
        if self.servoing and self._setpoints is not None:
            self._setpoints.append(float(order['start_s']), float(order['end_s']), order['pose'])

    def _limit_speeds(self, order: np.void) -> None:
        """Bounds set-points that catch up; what was accepted keeps its speed."""
        self._max_speeds = (float(order['pose'][0]), float(order['pose'][1]))
        if self._setpoints is not None:
            self._setpoints.max_speeds = self._max_speeds

    def _hold(self, order: np.void) -> None:
        """Slows down along the path and goes on to servo where it ends. The next beat tells that pose."""
        if self.servoing and self._setpoints is not None:
            self.rest = self._setpoints.brake()
            self.holds += 1
            self._beat_due = True

    def _brake(self, order: np.void) -> None:
        """Slows down along the path. Ends freedrive.

        When the set-points rest, servoing ends: it would take half a second more until the arm, which lags
        behind them, has come to rest by itself.
        """
        self._end_freedrive(order)
        if self._setpoints is not None:
            self._setpoints.brake()
            self._braking = True

    def _halt(self, order: np.void) -> None:
        """Stops the arm where it is: the set-points are too far from it. Ends freedrive."""
        self._end_freedrive(order)
        self._stop_servo()

    def _stop_servo(self) -> None:
        """Drops the set-points and lets the robot slow down by itself."""
        if self._setpoints is None or self._control is None:
            return
        self._setpoints = None
        self._braking = False
        with self._end.deadline('servoStop', _CALL_S):
            stopped = self._control.servoStop(_STOP_DECELERATION)
        if not stopped:
            self._end_program()

    def _end_program(self) -> None:
        """Ends a program that was paused or stopped: played again, it would go on to an old target."""
        assert self._control is not None
        self._setpoints = None
        self._braking = False
        self.freedriving = False
        if not self._control.isProgramRunning():
            # In local control this fails, and the watchdog on the robot ends the program.
            with self._end.deadline('stopping the paused program', _DASHBOARD_S), suppress(RuntimeError):
                stop_program(self._settings['robot_ip'])
        self.check_connection()
        if self._control.isProgramRunning():
            with self._end.deadline('stopping the control script', _CALL_S + 1.0):
                self._control.stopScript()

    def _freedrive(self, order: np.void) -> None:
        self._take_control(order)
        assert self._control is not None
        self.freedriving = True
        with self._end.deadline('freedriveMode', _CALL_S):
            free = self._control.freedriveMode()
        if not free:
            self._end_freedrive(order)
            raise RuntimeError('the robot refused freedrive')

    def _end_freedrive(self, order: np.void) -> None:
        """The robot holds the arm again; if it does not confirm that, the program is ended, which does it."""
        if not self.freedriving or self._control is None:
            return
        with self._end.deadline('endFreedriveMode', _CALL_S):
            ended = self._control.isProgramRunning() and self._control.endFreedriveMode()
        if not ended:
            self._end_program()
        self.freedriving = False

    def _recover(self, order: np.void) -> None:
        """Runs UR's sequence. It stops the script, which the next TAKE_CONTROL uploads again."""
        self._end_freedrive(order)
        self._stop_servo()
        recover(self._settings['robot_ip'], lambda step: self._end.announce(step, _RECOVER_S))


def _must(confirmed: bool, what: str) -> None:
    if not confirmed:
        raise RuntimeError(f'the robot did not accept {what}: try again, or restart the controller')


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
            if arm.beat_due() or cycles.count % round(rate_hz / _BEAT_HZ) == 0:
                end.send(arm.beat(cycles))
            if cycles.count % round(rate_hz / _KICK_HZ) == 0:
                arm.keep_alive()
            due_s = max(due_s + 1.0 / rate_hz, time.monotonic() - 5.0 / rate_hz)
            time.sleep(max(due_s - time.monotonic(), 0.0))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        arm.close()


if __name__ == '__main__':
    run_worker(work)
