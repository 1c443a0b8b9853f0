# SPDX-License-Identifier: Apache-2.0
"""`groot-ros up`, without ROS `launch`: starts, monitors and stops the processes of a profile."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

from groot_ros.bringup.enabling import Enabling, check_enable
from groot_ros.bringup.profiles import (
    Options,
    Process,
    accepts_connections,
    build_processes,
    discovery_environment,
    parameter_files,
)
from groot_ros.bringup.restarts import Restarts
from groot_ros.errors import GrootRosError
from groot_ros.supervised_process import describe_exit, die_with_parent

_GRACE_S = 8.0
_KILL_S = 3.0
_READY_S = 30.0


@dataclass
class _Entry:
    """A process, when it was started, and when it is to be started again if it has ended."""

    process: Process
    popen: subprocess.Popen
    started_s: float
    restarts: Restarts
    due_s: float | None = None
    given_up: bool = False


@dataclass
class ProcessGroup:
    """The running processes of a profile. A context manager: its end stops them, last started first.

    Cameras and gripper are started again when they end by themselves, see restarts.py. Meanwhile the arm's
    driver goes on: a policy stops by itself when a stream is missing, and the operator sees the arm.
    """

    profile: str
    options: Options
    quiet: bool = False
    environment: dict[str, str] = field(default_factory=dict)  # in addition to that of this process
    enabling: Enabling | None = None
    _running: list[_Entry] = field(default_factory=list)

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
        restarts = Restarts(has_worked=process.optional)
        self._running.append(_Entry(process, self._open(process), time.monotonic(), restarts))
        if process.ready_at is not None:
            self._wait_until_ready(process.ready_at)

    def _open(self, process: Process) -> subprocess.Popen:
        return subprocess.Popen(
            make_command(process, self.options),
            env=self._environment(),
            start_new_session=True,  # Ctrl-C must reach this process only: it stops the others in order
            preexec_fn=die_with_parent,  # an orphaned process could move the robot
        )

    def enable_arm(self) -> None:
        """Enables the arm as soon as its driver agrees, while `wait` supervises: of a simulated cell only."""
        check_enable(self.profile, self.options)
        self._say('the simulated arm is enabled as soon as it is ready')
        self.enabling = Enabling(self.options, self._environment())

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **discovery_environment(self.options), **self.environment}

    def _wait_until_ready(self, address: tuple[str, int]) -> None:
        """Waits until a port accepts connections. Raises GrootRosError if a process ends or after 30 s."""
        deadline_s = time.monotonic() + _READY_S
        while True:
            self.check()
            if accepts_connections(address):
                return
            if time.monotonic() > deadline_s:
                raise GrootRosError(
                    f'Nothing answers on {address[0]}:{address[1]} after {_READY_S:.0f} s: '
                    'see the messages above.'
                )
            time.sleep(0.1)

    def pid(self, executable: str) -> int:
        """The process id of the first running process of an executable. Raises KeyError if there is none."""
        for entry in self._running:
            if entry.process.executable == executable and entry.popen.poll() is None:
                return entry.popen.pid
        raise KeyError(executable)

    def stop_process(self, executable: str) -> None:
        """Stops the processes of one executable and leaves the others running."""
        for entry in [entry for entry in self._running if entry.process.executable == executable]:
            self._running.remove(entry)
            self._stop_one(entry)

    def check(self) -> None:
        """Starts cameras and gripper again. Raises GrootRosError, with its name, if another one has ended."""
        for entry in self._running:
            if entry.due_s is not None:
                self._restart_if_due(entry, entry.due_s)
            elif not entry.given_up and (code := entry.popen.poll()) is not None:
                self._handle_end(entry, describe_exit(code))

    def _handle_end(self, entry: _Entry, ended: str) -> None:
        """Plans the restart of a process that has ended. Raises GrootRosError if the cell cannot go on."""
        name = entry.process.node_name
        delay_s = None
        if entry.process.restarts:
            delay_s = entry.restarts.delay_after(time.monotonic() - entry.started_s)
        if delay_s is None and not entry.restarts.has_worked:
            raise GrootRosError(f'{name} {ended}: see its messages above; the other processes were stopped.')
        _kill_group(entry.popen)
        if delay_s is None:
            entry.given_up = True
            self._say(f'{name} {ended} too often and is not started again: the cell goes on without it')
            return
        entry.due_s = time.monotonic() + delay_s
        self._say(f'{name} {ended}: it is started again in {delay_s:.0f} s, the others go on')

    def _restart_if_due(self, entry: _Entry, due_s: float) -> None:
        if time.monotonic() < due_s:
            return
        self._say(f'starting {entry.process.node_name} again')
        entry.due_s = None
        entry.popen = self._open(entry.process)
        entry.started_s = time.monotonic()

    def wait(self) -> None:
        """Waits until a process that is not started again ends by itself, and then raises GrootRosError."""
        while True:
            self.check()
            if self.enabling is not None:
                self.enabling.poll()
            time.sleep(0.2)

    def stop(self) -> None:
        """Asks each process to end, last started first, and kills those that do not end in 8 s."""
        with _interrupts_ignored():
            if self.enabling is not None:
                self.enabling.close()
            while self._running:
                entry = self._running.pop()
                if entry.due_s is None and not entry.given_up:
                    self._stop_one(entry)

    def _stop_one(self, entry: _Entry) -> None:
        process = entry.process
        popen = entry.popen
        if popen.poll() is None:
            self._say(f'stopping {process.executable}')
            popen.send_signal(signal.SIGTERM)  # SIGINT would show a traceback in a process that still imports
        try:
            popen.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._say(f'{process.executable} did not stop in {_GRACE_S:.0f} s and is killed')
        _kill_group(popen)
        popen.wait(_KILL_S)

    def _say(self, text: str) -> None:
        if not self.quiet:
            print(f'[groot-ros] {text}', file=sys.stderr, flush=True)


def up(profile: str, options: Options, enable: bool = False) -> int:
    """Runs a profile until Ctrl-C and returns 0. Raises GrootRosError if a needed process ends.

    `enable` enables the arm of the simulated cell without a person.
    """
    if enable:
        check_enable(profile, options)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ProcessGroup(profile, options) as group:
            if enable:
                group.enable_arm()
            group.wait()
    except KeyboardInterrupt:
        pass
    return 0


def _kill_group(popen: subprocess.Popen) -> None:
    """Kills what is left of the children of a process."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(popen.pid, signal.SIGKILL)


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
    """A value as YAML, which reads the quotes and escapes of JSON."""
    return json.dumps(value, ensure_ascii=False)


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
