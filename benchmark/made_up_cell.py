# SPDX-License-Identifier: Apache-2.0
"""The arm of a cell in made-up time: the real session, command gate and servo loop, and a made-up robot.

It plays the part of ur5e_driver and its two processes, without ROS. Used by benchmark/safety.py and
test/test_arm_session_stateful.py.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmark.made_up_robot import MadeUpRobot
from groot_ros.control.command_gate import CommandGate, DeltaCommand, GateSettings, GateState, Waypoint
from groot_ros.control.limits import Limits, RefusedError
from groot_ros.control.tracking_monitor import TrackingMonitor
from groot_ros.geometry import Array
from groot_ros.hardware.ur5e import ipc, servo_process
from groot_ros.hardware.ur5e.arm import Ur5eSettings
from groot_ros.hardware.ur5e.record_check import read_beat, read_state
from groot_ros.hardware.ur5e.session import ArmSession, SessionSettings
from groot_ros.ur5e_kinematics import DEFAULT_TCP_OFFSET

TICK_S = 0.002
_TICKS_A_STATE = 4
_TICKS_A_BEAT = 20
_TICKS_A_KICK = 25
_TICKS_A_WATCH = 25
_SILENT_S = 0.6
_RESTART_S = 0.5


class _MadeUpCondition:
    """A condition of one thread: waiting lets the made-up time pass."""

    def __init__(self, tick: Callable[[], None], clock: Callable[[], float]) -> None:
        self._tick = tick
        self._clock = clock

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass

    def notify_all(self) -> None:
        pass

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        deadline_s = self._clock() + timeout_s
        while not condition() and self._clock() < deadline_s:
            self._tick()
        return condition()


class _MadeUpSession(ArmSession):
    def __init__(self, cell: 'MadeUpCell', *arguments: Any) -> None:
        super().__init__(*arguments)
        self._news = _MadeUpCondition(cell.tick, cell.clock)  # type: ignore[assignment]


class _Connection:
    """The servo process's end of its connection to the driver."""

    def __init__(self, settings: dict) -> None:
        self.settings = settings
        self.waiting: list[bytes] = []
        self.answers: dict[int, str] = {}

    @contextlib.contextmanager
    def deadline(self, call: str, seconds: float) -> Iterator[None]:
        yield

    def announce(self, call: str, seconds: float) -> None:
        pass

    def orders(self) -> Iterator[bytes]:
        while self.waiting:
            yield self.waiting.pop(0)

    def answer(self, number: int, problem: str) -> None:
        self.answers[number] = problem


class _MadeUpArm:
    """In place of Ur5e: sends orders to the servo process of the cell, and lets time pass for an answer."""

    def __init__(self, cell: 'MadeUpCell') -> None:
        self._cell = cell
        self._numbers = itertools.count(1)

    def move(self, waypoint: Waypoint) -> None:
        self._send(ipc.order(ipc.WAYPOINT, 0, waypoint.start_s, waypoint.end_s, waypoint.pose))

    def brake(self) -> None:
        self._send(ipc.order(ipc.BRAKE))

    def halt(self) -> None:
        self._send(ipc.order(ipc.HALT))

    def hold(self) -> None:
        self._send(ipc.order(ipc.HOLD))

    def request_end_of_freedrive(self) -> None:
        self._send(ipc.order(ipc.END_FREEDRIVE))

    def take_control(self) -> str:
        return self._ask(ipc.TAKE_CONTROL)

    def start_servo(self, pose: Array) -> str:
        return self._ask(ipc.START_SERVO, pose=pose)

    def enter_freedrive(self) -> str:
        return self._ask(ipc.FREEDRIVE)

    def end_freedrive(self) -> str:
        return self._ask(ipc.END_FREEDRIVE)

    def recover(self) -> str:
        return self._ask(ipc.RECOVER)

    def _send(self, order: bytes) -> None:
        if self._cell.servo is not None:
            self._cell.connection.waiting.append(order)

    def _ask(self, kind: int, **content: Array) -> str:
        number = next(self._numbers)
        connection = self._cell.connection
        self._send(ipc.order(kind, number, **content))
        while number not in connection.answers:
            if self._cell.servo is None or self._cell.connection is not connection:
                return 'the connection to the robot is lost'
            self._cell.tick()
        return connection.answers.pop(number)


class MadeUpCell:
    """Let it go on with `tick`; `after_tick` is called at the end of each. Times are of its own clock."""

    def __init__(
        self,
        limits: Limits | None = None,
        settings: GateSettings | None = None,
        lookahead_s: float = Ur5eSettings.lookahead_s,
    ) -> None:
        self._lookahead_s = lookahead_s
        self.now_s = 100.0
        self.warnings: list[str] = []
        self.after_tick: Callable[[], None] = lambda: None
        self.robot = MadeUpRobot(self.clock)
        self.limits = limits or Limits()
        self._speeds = (self.limits.max_linear_speed_m_s, self.limits.max_angular_speed_rad_s)
        gate = CommandGate(self.limits, DEFAULT_TCP_OFFSET, settings or GateSettings())
        session = SessionSettings()
        tracking = TrackingMonitor(lookahead_s)
        self.session = _MadeUpSession(self, gate, tracking, session, self.warnings.append, self.clock)
        self.session.arm = _MadeUpArm(self)  # type: ignore[assignment]
        self._patches = contextlib.ExitStack()
        self._replace_what_servo_process_uses()
        self.servo: servo_process.Arm | None = None
        self.connection = _Connection({})
        self._cycles = servo_process.CycleTimes(1.0 / TICK_S)
        self._ticks = 0
        self._in_servo = False
        self._servo_restarts_s = np.inf
        self._servo_stalls_until_s = 0.0
        self._servo_unheard_s = 0.0
        self._state_silent_until_s = 0.0
        self._state_unheard_s = 0.0
        self.spoil_state: dict[str, float] = {}
        self._start_servo_process()
        self.go_on(0.1)

    def close(self) -> None:
        """Gives the module servo_process its own clock and libraries back."""
        self._patches.close()

    def clock(self) -> float:
        """The made-up time, s."""
        return self.now_s

    @property
    def gate(self) -> CommandGate:
        return self.session.gate

    @property
    def servo_stalled(self) -> bool:
        """Whether the servo process gets no processor time now."""
        return self.now_s < self._servo_stalls_until_s

    def go_on(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Lets time pass."""
        for _ in range(round(seconds / TICK_S)):
            if until():
                return
            self.tick()

    def tick(self) -> None:
        """One cycle of the servo loop, and whatever else is due."""
        self.now_s += TICK_S
        self._ticks += 1
        if not self._in_servo:
            self._run_servo_process()
        self.robot.step(TICK_S)
        if self._ticks % _TICKS_A_STATE == 0:
            self._run_state_process()
        if self._ticks % _TICKS_A_WATCH == 0:
            self.session.check()
        self.after_tick()

    def send(self, command: DeltaCommand) -> Waypoint | None:
        """Gives a command to the session; None if it is refused."""
        try:
            return self.session.submit(command)
        except RefusedError:
            return None

    # Faults of the processes.

    def stall_servo(self, seconds: float) -> None:
        """The servo process gets no processor time; the driver kills it after 0.6 s."""
        self._servo_stalls_until_s = self.now_s + seconds

    def kill_servo(self, reason: str = 'it was killed') -> None:
        """The servo process is gone; the driver notices at once and starts another one."""
        self.servo = None
        self._servo_restarts_s = self.now_s + _RESTART_S
        self._servo_stalls_until_s = 0.0
        self.session.lose_control(reason)

    def end_driver(self) -> None:
        """The driver is killed: the servo process stops the script when its parent hangs up."""
        if self.servo is not None:
            self.servo.close()
        self.servo = None

    def silence_state(self, seconds: float) -> None:
        """No state of the robot arrives."""
        self._state_silent_until_s = self.now_s + seconds

    def _replace_what_servo_process_uses(self) -> None:
        made_up = SimpleNamespace(monotonic=self.clock, sleep=self._sleep)
        monitor = SimpleNamespace(lost=lambda: self.robot.dropped)
        replaced = {
            'time': made_up,
            'RTDEControlInterface': self.robot.connect,
            'ConnectionMonitor': lambda port: monitor,
            'check_ready': self.robot.check_ready,
            'stop_program': self.robot.stop_program,
            'recover': self.robot.recover,
        }
        self._patches.enter_context(patch.multiple(servo_process, **replaced))

    def _start_servo_process(self) -> None:
        times = {'smoothing_s': self.limits.smoothing_s, 'lookahead_s': self._lookahead_s}
        self.connection = _Connection(vars(Ur5eSettings(**times, max_speeds=self._speeds)))
        self.robot.dropped = False
        self.servo = servo_process.Arm(self.connection)  # type: ignore[arg-type]
        self._servo_restarts_s = np.inf
        self._servo_unheard_s = self.now_s

    def _sleep(self, seconds: float) -> None:
        """The servo process waits for the robot within an order."""
        for _ in range(max(round(seconds / TICK_S), 1)):
            self.tick()

    def _run_servo_process(self) -> None:
        """The body of the loop of servo_process.work."""
        if self.now_s >= self._servo_restarts_s:
            self._start_servo_process()
        if self.servo is None:
            return
        if self.now_s < self._servo_stalls_until_s:
            if self.now_s - self._servo_unheard_s > _SILENT_S:
                self.kill_servo('no data arrived for 0.6 s')
            return
        self._in_servo = True
        arm = self.servo
        try:
            arm.check_connection()
            arm.obey()
            arm.servo(self.now_s)
        except servo_process.ConnectionLostError as error:
            self.kill_servo(str(error))
            return
        finally:
            self._in_servo = False
        if self._ticks % _TICKS_A_KICK == 0:
            arm.keep_alive()
        if arm.beat_due() or self._ticks % _TICKS_A_BEAT == 0:
            self._servo_unheard_s = self.now_s
            self.session.take_beat(read_beat(arm.beat(self._cycles)))

    def _run_state_process(self) -> None:
        if self.now_s < self._state_silent_until_s:
            if self.now_s - self._state_unheard_s > _SILENT_S:
                self._lose_state('no data arrived for 0.6 s')
            return
        state = self.robot.state()
        for name, value in self.spoil_state.items():
            state[name] = value
        self.spoil_state.clear()
        try:
            record = read_state(state.tobytes())
        except ValueError as error:
            self._lose_state(str(error))
            return
        self._state_unheard_s = self.now_s
        self.session.take_state(record)

    def _lose_state(self, reason: str) -> None:
        self.silence_state(_RESTART_S)
        self._state_unheard_s = self.now_s
        self.session.lose_state(reason)


class Source:
    """A node that commands at a fixed rate: `name` is teleop or policy."""

    def __init__(self, cell: MadeUpCell, name: str, rate_hz: float) -> None:
        self._cell = cell
        self.name = name
        self.period_s = 1.0 / rate_hz
        self.sequence = 1000

    def command(self, delta: Array, age_s: float = 0.0) -> DeltaCommand:
        """The next command, whose motion began `age_s` ago."""
        self.sequence += 1
        start_s = self._cell.now_s - age_s
        return DeltaCommand(self.name, self.sequence, start_s, self.period_s, delta, float('nan'))

    def move(
        self, velocity: Array, seconds: float, until: Callable[[], bool] = lambda: False
    ) -> list[Waypoint]:
        """Commands a TCP velocity (6,) for a time; returns what was accepted."""
        accepted = []
        due_s = self._cell.now_s
        end_s = due_s + seconds
        while self._cell.now_s < end_s - 1e-9 and not until():
            if self._cell.now_s >= due_s - 1e-9:
                due_s += self.period_s
                waypoint = self._cell.send(self.command(np.asarray(velocity) * self.period_s))
                accepted += [waypoint] if waypoint is not None else []
            self._cell.tick()
        return accepted

    def release(self) -> bool:
        """Opens the deadman; False if the release is refused."""
        self.sequence += 1
        try:
            self._cell.session.release(self.name, self.sequence)
        except RefusedError:
            return False
        return True

    def restart(self) -> None:
        """The node is started again, and counts from another number."""
        self.sequence += 1_000_000


@contextlib.contextmanager
def made_up_cell(**options: Any) -> Iterator[MadeUpCell]:
    """A cell that is closed at the end."""
    cell = MadeUpCell(**options)
    try:
        yield cell
    finally:
        cell.close()


def enabled(cell: MadeUpCell) -> MadeUpCell:
    """The cell, with its arm enabled."""
    problem = cell.session.enable()
    if problem or cell.gate.state is not GateState.ENABLED:
        raise RuntimeError(problem)
    return cell
