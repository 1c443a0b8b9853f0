# SPDX-License-Identifier: Apache-2.0
"""Runs a model in a process with its own Python: waits until it is warm, and restarts it when it dies."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groot_ros.embodiment import EEF_6D, EEF_9D, Embodiment
from groot_ros.errors import PolicyError, choose
from groot_ros.inference.backends import BACKENDS
from groot_ros.inference.protocol import TOKEN_VARIABLE
from groot_ros.supervised_process import describe_exit, find_program, restart_with_backoff, wait_or_kill

SERVER_FILE = Path(__file__).parent.resolve() / 'backends' / 'model_server.py'
_FIRST_DELAY_S = 1.0
_MAX_DELAY_S = 30.0
_LONG_RUN_S = 60.0
_END_S = 5.0
# A position in m, a joint in rad or an opening that every robot may have.
_EXAMPLE_NUMBER = 0.1


@dataclass
class ModelSettings:
    """The backend and the checkpoint that it loads, and the address at which the model is served.

    An empty `python` is the interpreter of this process; `port` 0 is any free port.
    """

    backend: str
    checkpoint: str
    python: str = ''
    device: str = ''
    embodiment_tag: str = 'new_embodiment'
    data_config: str = ''
    host: str = '127.0.0.1'
    port: int = 0
    gr00t_version: str = 'n1.7'


class ModelProcess:
    """One model. `on_line` gets each line of its progress and of what its libraries print.

    Requests must carry `token`, which is that of GROOT_ROS_API_TOKEN if none is given.

    Raises GrootRosError if the backend is not known or no checkpoint is given.
    """

    def __init__(
        self,
        settings: ModelSettings,
        embodiment: Embodiment,
        on_line: Callable[[str], None],
        token: str = '',
    ) -> None:
        choose('model backend', settings.backend, BACKENDS)
        if not settings.checkpoint:
            raise PolicyError(f'The backend {settings.backend} needs a checkpoint: give its folder.')
        self.settings = settings
        self.name = settings.checkpoint
        self.token = token or os.environ.get(TOKEN_VARIABLE, '')
        self._rows = rows_for_backends(embodiment)
        self._on_line = on_line
        self._state = threading.Condition()
        self._unavailable_reason = 'it is loading'
        self._port = settings.port
        self._closing = threading.Event()
        self._failed = False
        self._was_ready = False
        self.was_killed = False
        self._process: subprocess.Popen | None = None
        self._thread = threading.Thread(target=self._supervise, name='model', daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port at which the model is served, 0 before it is ready."""
        return self._port

    def unavailable_reason(self) -> str:
        """Why the model cannot be used now; empty if it can."""
        with self._state:
            return self._unavailable_reason

    def wait(self, timeout_s: float = 1800.0) -> None:
        """Waits until the model is ready.

        Raises PolicyError if its first start fails or takes longer than `timeout_s`.
        """
        with self._state:
            finished = self._state.wait_for(lambda: not self._unavailable_reason or self._failed, timeout_s)
            reason = self._unavailable_reason if finished else f'it was not ready after {timeout_s:.0f} s'
        if reason:
            self.close()
            raise PolicyError(f'The model could not be started: {reason}.')

    def join(self) -> None:
        """Waits until the model has ended and will not be restarted."""
        while self._thread.is_alive():
            self._thread.join(0.5)

    def close(self) -> None:
        """Ends the process, and kills it if it does not end in time."""
        self._closing.set()
        if (process := self._process) is not None:
            _end(process)
        self._thread.join(_END_S)

    def _supervise(self) -> None:
        restart_with_backoff(self._run_and_report, self._closing, _FIRST_DELAY_S, _MAX_DELAY_S, _LONG_RUN_S)

    def _run_and_report(self) -> bool:
        """Runs the model until it ends, and returns whether it should be started again."""
        ready, reason = self._run_once()
        self._was_ready |= ready
        if self._closing.is_set():
            return False
        self.was_killed = ready and not reason
        reason = reason or 'a client asked it to end'
        self._set_unavailable(reason, failed=not self._was_ready)
        self._on_line(f'The model ended: {reason}.')
        return self._was_ready and not self.was_killed

    def _run_once(self) -> tuple[bool, str]:
        """Runs the process once.

        Returns whether it became ready, and why it ended (empty if a client ended it).
        """
        try:
            process = self._start()
        except OSError as error:
            return False, f'{self.settings.python} cannot be run ({error.strerror})'
        self._process = process
        last_line: deque[str] = deque(maxlen=1)
        forwarding = threading.Thread(target=self._forward_output, args=(process, last_line), daemon=True)
        forwarding.start()
        ready, error_text = self._read_progress(process)
        process.wait()
        forwarding.join(_END_S)
        _end(process)
        if ready and process.returncode == 0:
            return True, ''
        ended = ': '.join([f'it {describe_exit(process.returncode)}', *last_line])
        return ready, error_text or ended

    def _start(self) -> subprocess.Popen:
        settings = self.settings
        content = {
            **asdict(settings),
            'port': self._port,
            'rows': self._rows,
            'requirement': BACKENDS[settings.backend].requirement,
        }
        return subprocess.Popen(
            [_interpreter(settings.python), str(SERVER_FILE), json.dumps(content)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, TOKEN_VARIABLE: self.token},
            text=True,
            errors='replace',
        )

    def _read_progress(self, process: subprocess.Popen) -> tuple[bool, str]:
        """Reads the progress of `model_server.py` until it ends.

        Returns whether it became ready, and its error.
        """
        ready = False
        error_text = ''
        assert process.stdout is not None
        for line in process.stdout:
            try:
                progress = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if not isinstance(progress, dict):  # what a library prints may be JSON by accident
                continue
            if 'ready' in progress:
                ready = True
                self._set_ready(progress)
            elif 'failed' in progress:
                error_text = progress['failed'].rstrip('.')
            else:
                self._on_line(f'{progress.get("doing", "")} ...')
                self._set_unavailable(f'the model is {progress.get("doing", "loading")}')
        return ready, error_text

    def _set_ready(self, progress: dict[str, Any]) -> None:
        self._port = progress['ready']
        self.name = progress['name']
        address = f'{self.settings.host}:{self._port}'
        self._on_line(f'{self.name} answers at {address}, within {progress["answer_s"] * 1e3:.0f} ms.')
        self._set_unavailable('')

    def _forward_output(self, process: subprocess.Popen, last_line: deque[str]) -> None:
        """Passes standard error on to `on_line`; keeps the last line, which often explains a crash."""
        assert process.stderr is not None
        for line in process.stderr:
            if text := line.rstrip():
                last_line.append(text)
                self._on_line(text)

    def _set_unavailable(self, reason: str, failed: bool = False) -> None:
        with self._state:
            self._unavailable_reason = reason
            self._failed = failed
            self._state.notify_all()


def rows_for_backends(embodiment: Embodiment) -> dict[str, Any]:
    """What a backend needs of an embodiment as plain JSON, because the model's Python has no pydantic."""
    state = {name: [part.start, part.stop] for name, part in embodiment.state_slices.items()}
    sizes = {name: stop - start for name, (start, stop) in state.items()}
    return {
        'embodiment': embodiment.name,
        'cameras': {camera.name: camera.feature for camera in embodiment.cameras},
        'image_sizes': {camera.name: [camera.width, camera.height] for camera in embodiment.cameras},
        'state': state,
        'state_size': embodiment.state_size,
        'state_sizes': {**sizes, EEF_9D: 9, EEF_6D: 6},
        'example_state': _example_state(embodiment),
        'action': {name: [part.start, part.stop] for name, part in embodiment.action_slices.items()},
        'action_size': embodiment.action_size,
        'language': embodiment.language,
    }


def _example_state(embodiment: Embodiment) -> dict[str, list[float]]:
    """A possible state by key: a model refuses, or divides by zero at, numbers that are no rotation."""
    state = {}
    for field in embodiment.state:
        values = [_EXAMPLE_NUMBER] * field.size
        if field.quaternion is not None:
            values[field.quaternion] = [0.0, 0.0, 0.0, 1.0]
        state[field.name] = values
    position = [_EXAMPLE_NUMBER] * 3
    return {**state, EEF_9D: [*position, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0], EEF_6D: [*position, 0.0, 0.0, 0.0]}


def _end(process: subprocess.Popen) -> None:
    """Ends a model process by closing its standard input, which it watches."""
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    wait_or_kill(process, _END_S)


def _interpreter(python: str) -> str:
    """The interpreter of a model. One that is not found is named by the error of its start."""
    return (find_program(python) or python) if python else sys.executable
