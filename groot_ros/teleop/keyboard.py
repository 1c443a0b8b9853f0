# SPDX-License-Identifier: Apache-2.0
"""The keyboard of a terminal as a device. A terminal reports presses and repeats, but no releases."""

import contextlib
import os
import select
import sys
import termios
import threading
import time
import tty

from groot_ros.errors import GrootRosError
from groot_ros.teleop.device import DeviceState
from groot_ros.teleop.operator import OperatorContext

HOLD_S = 0.12
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
    """A pressed key is an axis at 1 and a button for 0.12 s, longer than the repeat period of a terminal."""

    @classmethod
    def open(cls, context: OperatorContext) -> 'Keyboard':
        """Reads the terminal that the node runs in."""
        return cls()

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        if not os.isatty(self._descriptor):
            raise GrootRosError(
                'The keyboard needs a terminal of its own: run '
                '`ros2 run groot_ros teleop --ros-args -p source:=keyboard` in one.'
            )
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)
        self._pressed: dict[str, float] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name='keyboard', daemon=True)
        self._thread.start()

    def read(self) -> DeviceState:
        """The keys that count as pressed at this moment."""
        now_s = time.monotonic()
        down = {key for key, at_s in list(self._pressed.items()) if now_s - at_s < HOLD_S}
        return DeviceState(now_s, dict.fromkeys(down, 1.0), frozenset(down))

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
                self._pressed[key] = time.monotonic()


def split_keys(text: str) -> list[str]:
    """The names of the keys in a text from a terminal; keys without a letter, such as arrows, have words."""
    keys = []
    while text:
        length = 3 if text[:3] in _NAMES else 1
        keys.append(_NAMES.get(text[:length], text[:length]))
        text = text[length:]
    return keys
