# SPDX-License-Identifier: Apache-2.0
"""Notices that a library lost a connection and made a new one unasked. Used by the process that commands."""

import contextlib
import os
import select
import socket
import stat
from pathlib import Path


class ConnectionMonitor:
    """Knows this process's connections to `port` when it is made; `lost` says whether one was replaced.

    ur_rtde's control interface reconnects by itself after a drop, endlessly, until it crashes, and does not
    report it: a new socket in place of the old one is the only sign that does not depend on the library.
    """

    def __init__(self, port: int) -> None:
        self._inodes = {number: os.fstat(number).st_ino for number in _connections(port)}
        self._poll = select.poll()
        for number in self._inodes:
            self._poll.register(number, select.POLLRDHUP)

    def lost(self) -> bool:
        """Whether one of the connections was closed, by the other side or by this one."""
        for number, inode in self._inodes.items():
            try:
                if os.fstat(number).st_ino != inode:
                    return True
            except OSError:
                return True
        return bool(self._poll.poll(0))


def _connections(port: int) -> list[int]:
    found = []
    for entry in Path('/proc/self/fd').iterdir():
        number = int(entry.name)
        with contextlib.suppress(OSError):  # closed meanwhile, or not connected
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                with socket.socket(fileno=os.dup(number)) as copy:
                    if copy.family == socket.AF_INET and copy.getpeername()[1] == port:
                        found.append(number)
    return found
