# SPDX-License-Identifier: Apache-2.0
"""Enables the arm of the simulated cell without a person, for `groot-ros up collect --sim --enable`."""

import ipaddress
import subprocess
import sys
import time

from groot_ros.bringup.profiles import Options
from groot_ros.errors import GrootRosError

PROFILE = 'collect'
_TRY_S = 30.0
_GIVE_UP_S = 120.0
_PAUSE_S = 1.0


def check_enable(profile: str, options: Options) -> None:
    """Raises GrootRosError unless the cell is a simulated one on this machine: a real arm needs a person."""
    if profile == PROFILE and options.sim and (options.robot_ip == Options.robot_ip or _is_here(options)):
        return
    raise GrootRosError(
        f'The option enable is for `groot-ros up {PROFILE} --sim` on this machine only: '
        'on a real robot a person looks at the arm and enables it with `groot-ros call enable`.'
    )


def _is_here(options: Options) -> bool:
    try:
        return ipaddress.ip_address(options.robot_ip).is_loopback
    except ValueError:
        return options.robot_ip == 'localhost'


class Enabling:
    """Calls ur5e_driver/enable in a process of its own until the driver agrees. `poll` never waits."""

    def __init__(self, options: Options, environment: dict[str, str]) -> None:
        self.done = False
        self._command = [sys.executable, '-m', 'groot_ros.cli', 'call', 'enable', f'--timeout={_TRY_S:g}']
        if options.namespace:
            self._command.append(f'--namespace={options.namespace}')
        self._environment = environment
        self._began_s = time.monotonic()
        self._ended_s = -_PAUSE_S
        self._call: subprocess.Popen | None = None

    def poll(self) -> None:
        """Starts the next try when it is due. Raises GrootRosError, with the reason, after two minutes."""
        if self.done:
            return
        now_s = time.monotonic()
        if self._call is None:
            if now_s - self._ended_s >= _PAUSE_S:
                self._call = self._start()
        elif self._call.poll() is not None:
            self._take_end(self._call, now_s)

    def close(self) -> None:
        """Ends a call that still waits for the driver."""
        if self._call is not None:
            self._call.kill()
            self._call.communicate()
            self._call = None

    def _start(self) -> subprocess.Popen:
        return subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _take_end(self, call: subprocess.Popen, now_s: float) -> None:
        _, text = call.communicate()
        self._call = None
        self._ended_s = now_s
        self.done = call.returncode == 0
        if not self.done and now_s - self._began_s > _GIVE_UP_S:
            raise GrootRosError(f'The simulated arm could not be enabled: {text.strip()}')
