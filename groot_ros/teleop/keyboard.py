# SPDX-License-Identifier: Apache-2.0
"""The keyboard of a terminal as a device; key_timing.py says which keys count as held."""

import contextlib
import os
import select
import shutil
import sys
import termios
import threading
import time
import tty

from groot_ros.errors import GrootRosError
from groot_ros.teleop.device import DeviceState
from groot_ros.teleop.key_timing import KeyTiming
from groot_ros.teleop.mapping import TeleopMap
from groot_ros.teleop.operator import OperatorContext
from groot_ros.teleop.status_line import CellState, key_table, status_line

_NAMES = {
    ' ': 'space',
    '\r': 'enter',
    '\n': 'enter',
    '\x7f': 'backspace',
    '\x1b[A': 'up',
    '\x1b[B': 'down',
    '\x1b[C': 'right',
    '\x1b[D': 'left',
}


class Keyboard:
    """A held key is a button, and one that moves the arm is an axis too. `?` shows the keys."""

    @classmethod
    def open(cls, context: OperatorContext) -> 'Keyboard':
        """Reads the terminal that the node runs in."""
        return cls(context.map)

    def __init__(self, chosen: TeleopMap, descriptor: int | None = None) -> None:
        self._map = chosen
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        if not os.isatty(self._descriptor):
            raise GrootRosError(
                'The keyboard needs a terminal of its own: run '
                '`ros2 run groot_ros teleop --ros-args -p source:=keyboard` in one.'
            )
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)
        directions = {term.axis: name for name, terms in chosen.axes.items() for term in terms}
        self._timing = KeyTiming(directions)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name='keyboard', daemon=True)
        self._thread.start()

    def read(self) -> DeviceState:
        """The keys that count as pressed at this moment."""
        now_s = time.monotonic()
        with self._lock:
            return DeviceState(now_s, self._timing.axes(now_s), self._timing.down(now_s))

    def show(self, state: CellState) -> None:
        """Writes the line of the state over the line before; nothing if the output is no terminal."""
        if sys.stderr.isatty():
            columns = shutil.get_terminal_size().columns
            print(f'\r\x1b[K{status_line(state, columns - 1)}', end='\r', file=sys.stderr, flush=True)

    def close(self) -> None:
        """Restores the settings of the terminal."""
        self._closing.set()
        self._thread.join(1.0)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def _work(self) -> None:
        while not self._closing.is_set():
            if not select.select([self._descriptor], [], [], 0.1)[0]:
                continue
            try:
                text = os.read(self._descriptor, 32).decode('utf-8', 'replace')
            except OSError:
                return
            for key in split_keys(text):
                self._press(key)

    def _press(self, key: str) -> None:
        if key == '?':
            print('\n'.join(['', *key_table(self._map)]), file=sys.stderr, flush=True)
        with self._lock:
            self._timing.press(key, time.monotonic())


def split_keys(text: str) -> list[str]:
    """The names of the keys in a text from a terminal; keys without a letter, such as arrows, have words."""
    keys = []
    while text:
        length = 3 if text[:3] in _NAMES else 1
        keys.append(_NAMES.get(text[:length], text[:length]))
        text = text[length:]
    return keys
