# SPDX-License-Identifier: Apache-2.0
"""`groot-ros up`, without ROS `launch`: starts, monitors and stops the processes of a profile."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field

from groot_ros.bringup.profiles import (
    Options,
    Process,
    build_processes,
    discovery_environment,
    parameter_files,
)
from groot_ros.errors import GrootRosError
from groot_ros.supervised_process import describe_exit, die_with_parent

_GRACE_S = 8.0
_KILL_S = 3.0
_READY_S = 30.0


@dataclass
class ProcessGroup:
    """The running processes of a profile. A context manager: its end stops them, last started first."""

    profile: str
    options: Options
    quiet: bool = False
    environment: dict[str, str] = field(default_factory=dict)  # in addition to that of this process
    _running: list[tuple[Process, subprocess.Popen]] = field(default_factory=list)

    def __enter__(self) -> 'ProcessGroup':
        try:
            for process in build_processes(self.profile, self.options):
                self.start(process)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, process: Process) -> None:
        """Starts one more process, and waits until it accepts connections if it has a `ready_at`."""
        self._say(f'starting {process.executable}')
        popen = subprocess.Popen(
            make_command(process, self.options),
            env={**os.environ, **discovery_environment(self.options), **self.environment},
            start_new_session=True,  # Ctrl-C must reach this process only: it stops the others in order
            preexec_fn=die_with_parent,  # an orphaned process could move the robot
        )
        self._running.append((process, popen))
        if process.ready_at is not None:
            self._wait_until_ready(process.ready_at)

    def _wait_until_ready(self, address: tuple[str, int]) -> None:
        """Waits until a port accepts connections. Raises GrootRosError if a process ends or after 30 s."""
        deadline_s = time.monotonic() + _READY_S
        while True:
            self.check()
            with contextlib.suppress(OSError), socket.create_connection(address, timeout=1.0):
                return
            if time.monotonic() > deadline_s:
                raise GrootRosError(
                    f'Nothing answers on {address[0]}:{address[1]} after {_READY_S:.0f} s: '
                    'see the messages above.'
                )
            time.sleep(0.1)

    def stop_process(self, executable: str) -> None:
        """Stops the processes of one executable and leaves the others running."""
        for entry in [entry for entry in self._running if entry[0].executable == executable]:
            self._running.remove(entry)
            self._stop_one(*entry)

    def check(self) -> None:
        """Raises GrootRosError, which names the process, if one has ended by itself."""
        for process, popen in self._running:
            if (code := popen.poll()) is not None:
                raise GrootRosError(
                    f'{process.executable} {describe_exit(code)}: see its messages above; '
                    'the other processes were stopped.'
                )

    def wait(self) -> None:
        """Waits until a process ends by itself, and then raises GrootRosError."""
        while True:
            self.check()
            time.sleep(0.2)

    def stop(self) -> None:
        """Asks each process to end, last started first, and kills those that do not end in 8 s."""
        with _interrupts_ignored():
            while self._running:
                process, popen = self._running.pop()
                self._stop_one(process, popen)

    def _stop_one(self, process: Process, popen: subprocess.Popen) -> None:
        if popen.poll() is None:
            self._say(f'stopping {process.executable}')
            popen.send_signal(signal.SIGTERM)  # SIGINT would show a traceback in a process that still imports
        try:
            popen.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._say(f'{process.executable} did not stop in {_GRACE_S:.0f} s and is killed')
        with contextlib.suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)  # what is left of its children
        popen.wait(_KILL_S)

    def _say(self, text: str) -> None:
        if not self.quiet:
            print(f'[groot-ros] {text}', file=sys.stderr, flush=True)


def up(profile: str, options: Options) -> int:
    """Runs a profile until Ctrl-C and returns 0. Raises GrootRosError if a process ends by itself."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ProcessGroup(profile, options) as group:
            group.wait()
    except KeyboardInterrupt:
        pass
    return 0


def make_command(process: Process, options: Options) -> list[str]:
    """The command line that starts a process with this Python."""
    command = [sys.executable, '-m', f'groot_ros.nodes.{process.executable}', *process.arguments]
    command += ['--ros-args']
    for file in parameter_files(process, options):
        command += ['--params-file', file]
    for name, value in process.parameters.items():
        command += ['-p', f'{name}:={_yaml_text(value)}']
    command += ['-r', f'__node:={process.node_name}']
    if options.namespace:
        command += ['-r', f'__ns:=/{options.namespace.strip("/")}']
    return command


def _yaml_text(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


@contextlib.contextmanager
def _interrupts_ignored():
    """Keeps a second Ctrl-C from interrupting the orderly stop."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # signals only reach the main thread, and this is another one
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
