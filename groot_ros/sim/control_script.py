# SPDX-License-Identifier: Apache-2.0
"""Behaviour of the control script that ur_rtde uploads, told by its registers (facts: rtde_control.script of ur_rtde 1.6)."""

import time
from collections.abc import Callable

import numpy as np

from groot_ros.sim.controller import Controller, Program
from groot_ros.sim.rtde_script.moves import Finished, ScriptMotions
from groot_ros.sim.rtde_script.queries import ScriptAnswers
from groot_ros.sim.rtde_script.registers import ScriptRegisters
from groot_ros.sim.trajectories import SpeedMotion

READY, DONE = 1, 2
_AT_ONCE = (25, 26, 27, 38, 58)  # answered at every tick while they stand, and never DONE
_STOP_SCRIPT, _NO_COMMAND, _SET_WATCHDOG = 255, 0, 35


class ControlScript(Program):
    """Reads a command number from input_int_register_0 and answers through output_int_register_0, as the script does."""

    name = 'rtde_control'

    def __init__(self, controller: Controller, offset: int, path_text: str) -> None:
        self.offset = offset
        self._registers = ScriptRegisters(controller, offset)
        self._motions = ScriptMotions(controller, self._registers, path_text)
        self._commands: dict[int, Callable[[], Finished]] = {
            **self._motions.commands, **ScriptAnswers(controller, self._registers).commands, _SET_WATCHDOG: self._set_watchdog,
        }  # fmt: skip
        self._finished: Finished = None
        self._answered = False
        self._watchdog_s = 0.0
        self.last_input_s = time.monotonic()
        self._registers.report_progress(-1)
        self._registers.set_state(READY)

    def step(self) -> bool:
        """One sync() of the script's main loop."""
        command = self._registers.integer(0)
        if command == _STOP_SCRIPT or self._starved():
            return False
        if command in self._motions.streamed:
            self._motions.streamed[command]()
            self._registers.set_state(READY)
        elif command in _AT_ONCE:
            self._commands[command]()
            self._registers.set_state(READY)
        elif command == _NO_COMMAND:
            self._answered, self._finished = False, None
            self._motions.rest()
            self._registers.set_state(READY)
        elif self._finished is not None:
            self._finish_when_still()
        elif not self._answered:
            self._finished = self._commands.get(command, lambda: None)()
            self._finish_when_still()
        self._motions.watch_asynchronous()
        return True

    @property
    def servoing(self) -> bool:
        """Whether servoj or servol stands in the command register."""
        return self._registers.integer(0) in (11, 24)

    def _finish_when_still(self) -> None:
        if self._finished is None or self._finished():
            self._finished, self._answered = None, True
            self._registers.set_state(DONE)

    def _starved(self) -> bool:
        return bool(self._watchdog_s) and time.monotonic() - self.last_input_s > self._watchdog_s

    def _set_watchdog(self) -> Finished:
        frequency = self._registers.double(0)
        self._watchdog_s = 1.0 / frequency if frequency > 0 else 0.0
        return None


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


class ForeignProgram(Program):
    """A program of somebody else that never ends: it leaves the registers alone and turns the base at `speed_rad_s`."""

    name = 'foreign.urp'

    def __init__(self, controller: Controller, speed_rad_s: float) -> None:
        self._controller, self._speed_rad_s = controller, speed_rad_s

    def step(self) -> bool:
        """Keeps turning, or stands."""
        self._controller.motion = SpeedMotion(np.array([self._speed_rad_s, 0, 0, 0, 0, 0]), 1.0)
        return True


def program_of(text: str, controller: Controller) -> Program:
    """The program that a script text stands for; ur_rtde's control script is known by its name."""
    name = text.split('(', 1)[0].removeprefix('def ').strip()
    if name != ControlScript.name:
        return CustomScript(controller, name)
    return ControlScript(controller, _register_offset(text), _injected_path(text))


def _register_offset(text: str) -> int:
    """24 where ur_rtde injected it below the line '# int register offset', else 0."""
    lines = text.partition('# int register offset')[2].splitlines()
    return 24 if len(lines) > 1 and '24' in lines[1] else 0


def _injected_path(text: str) -> str:
    """The moves that ur_rtde wrote below the line '# inject move path', up to the end of their function."""
    return text.partition('# inject move path')[2].partition('end\n')[0]
