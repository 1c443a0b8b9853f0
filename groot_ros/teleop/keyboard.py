# SPDX-License-Identifier: Apache-2.0
"""The keyboard of a terminal as an input device: a terminal tells presses and repeats, but no releases."""

import contextlib
import os
import select
import sys
import termios
import threading
import time
import tty

from groot_ros.errors import GrootRosError
from groot_ros.teleop.mapping import DeviceState

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
    """A pressed key is an axis at 1 for 0.12 s, longer than the pause of the terminal's repeat, and a button for as long."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        if not os.isatty(self._descriptor):
            raise GrootRosError(
                'The keyboard needs a terminal of its own: ros2 run groot_ros teleop --ros-args -p source:=keyboard'
            )
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)
        self._pressed: dict[str, float] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name='keyboard', daemon=True)
        self._thread.start()

    def read(self) -> DeviceState:
        """The keys that count as pressed now."""
        now_s = time.monotonic()
        down = {key for key, at_s in list(self._pressed.items()) if now_s - at_s < HOLD_S}
        return DeviceState(now_s, dict.fromkeys(down, 1.0), frozenset(down))

    def close(self) -> None:
        """Gives the terminal back as it was."""
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
            for key in keys_of(text):
                self._pressed[key] = time.monotonic()


def keys_of(text: str) -> list[str]:
    """Names of the keys in what a terminal sent: letters are themselves, arrows and the like have names."""
    keys = []
    while text:
        length = 3 if text[:3] in _NAMES else 1
        keys.append(_NAMES.get(text[:length], text[:length]))
        text = text[length:]
    return keys
