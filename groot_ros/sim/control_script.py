# SPDX-License-Identifier: Apache-2.0
"""The programs of the simulated controller, first of all the control script that ur_rtde 1.6 uploads."""

import time
from collections.abc import Callable

import numpy as np

from groot_ros.sim.controller import Controller, Program
from groot_ros.sim.rtde_script.moves import IsFinished, ScriptMoves
from groot_ros.sim.rtde_script.queries import ScriptQueries
from groot_ros.sim.rtde_script.registers import ScriptRegisters
from groot_ros.sim.trajectories import SpeedMotion

READY = 1
DONE = 2
# Queries that are answered on every tick while their number is in the register, and never get DONE.
_REPEATED_QUERIES = (25, 26, 27, 38, 58)
_NO_COMMAND = 0
_SET_WATCHDOG = 35
_STOP_SCRIPT = 255
_SERVO_COMMANDS = (11, 24)


class ControlScript(Program):
    """Reads a command number from input_int_register_0 and answers in output_int_register_0."""

    name = 'rtde_control'

    def __init__(self, controller: Controller, offset: int, path_text: str) -> None:
        self.offset = offset
        self._registers = ScriptRegisters(controller, offset)
        self._moves = ScriptMoves(controller, self._registers, path_text)
        self._commands: dict[int, Callable[[], IsFinished]] = {
            **self._moves.commands,
            **ScriptQueries(controller, self._registers).commands,
            _SET_WATCHDOG: self._set_watchdog,
        }
        self._is_finished: IsFinished = None
        self._answered = False
        self._watchdog_s = 0.0
        self.last_input_s = time.monotonic()
        self._registers.report_progress(-1)
        self._registers.set_state(READY)

    def step(self) -> bool:
        """Runs the main loop of the script once, up to its sync(). False ends the program."""
        command = self._registers.integer(0)
        if command == _STOP_SCRIPT or self._watchdog_expired():
            return False
        if command in self._moves.streamed:
            self._moves.streamed[command]()
            self._registers.set_state(READY)
        elif command in _REPEATED_QUERIES:
            self._commands[command]()
            self._registers.set_state(READY)
        elif command == _NO_COMMAND:
            self._answered = False
            self._is_finished = None
            self._moves.reset_servo()
            self._registers.set_state(READY)
        elif self._is_finished is not None:
            self._answer_when_finished()
        elif not self._answered:
            self._is_finished = self._commands.get(command, lambda: None)()
            self._answer_when_finished()
        self._moves.report_end_of_asynchronous()
        return True

    @property
    def servoing(self) -> bool:
        """Whether the command register asks for servoj or servol."""
        return self._registers.integer(0) in _SERVO_COMMANDS

    def _answer_when_finished(self) -> None:
        if self._is_finished is None or self._is_finished():
            self._is_finished = None
            self._answered = True
            self._registers.set_state(DONE)

    def _watchdog_expired(self) -> bool:
        return bool(self._watchdog_s) and time.monotonic() - self.last_input_s > self._watchdog_s

    def _set_watchdog(self) -> IsFinished:
        frequency = self._registers.double(0)
        self._watchdog_s = 1.0 / frequency if frequency > 0 else 0.0
        return None


class CustomScript(Program):
    """A program that the cell does not interpret: it reports its start and its end, and moves nothing."""

    def __init__(self, controller: Controller, name: str) -> None:
        self.controller = controller
        self.name = name
        self._ticks_left = 25
        controller.output_ints[0] = READY

    def step(self) -> bool:
        """Counts down 50 ms, then ends."""
        self._ticks_left -= 1
        if self._ticks_left == 1:
            self.controller.output_ints[0] = DONE
        return self._ticks_left > 0


class ForeignProgram(Program):
    """A program that is not ours and never ends: it turns the base at `speed_rad_s` and uses no register."""

    name = 'foreign.urp'

    def __init__(self, controller: Controller, speed_rad_s: float) -> None:
        self._controller = controller
        self._speed_rad_s = speed_rad_s

    def step(self) -> bool:
        """Commands the speed on every tick."""
        self._controller.motion = SpeedMotion(np.array([self._speed_rad_s, 0, 0, 0, 0, 0]), 1.0)
        return True


def parse_program(text: str, controller: Controller) -> Program:
    """Makes the program of a script text. The control script of ur_rtde is recognised by its name."""
    name = text.split('(', 1)[0].removeprefix('def ').strip()
    if name != ControlScript.name:
        return CustomScript(controller, name)
    return ControlScript(controller, _register_offset(text), _injected_path(text))


def _register_offset(text: str) -> int:
    """24 when ur_rtde wrote it below the line '# int register offset', else 0."""
    lines = text.partition('# int register offset')[2].splitlines()
    return 24 if len(lines) > 1 and '24' in lines[1] else 0


def _injected_path(text: str) -> str:
    """The moves that ur_rtde wrote below the line '# inject move path', to the end of their function."""
    return text.partition('# inject move path')[2].partition('end\n')[0]
