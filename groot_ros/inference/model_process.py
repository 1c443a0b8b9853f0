# SPDX-License-Identifier: Apache-2.0
"""A model in a process and a Python of its own, started, warmed up, watched, and started again when it dies."""

import contextlib
import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groot_ros.embodiment import EEF_9D, Embodiment
from groot_ros.errors import PolicyError
from groot_ros.policies.action_decoder import EEF_6D
from groot_ros.supervised_process import describe_exit, restart_with_backoff, wait_or_kill

SERVER_FILE = Path(__file__).parent.resolve() / 'backends' / 'model_server.py'
BACKENDS = ('gr00t', 'lerobot')
_FIRST_DELAY_S = 1.0
_MAX_DELAY_S = 30.0
_LONG_RUN_S = 60.0
_END_S = 5.0


@dataclass
class ModelSettings:
    """Which checkpoint, behind which backend, in which Python (empty: this one), and where it answers (port 0: any free one)."""

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
    """Runs one model. `on_line` gets what it says while loading, and what its libraries print."""

    def __init__(
        self, settings: ModelSettings, embodiment: Embodiment, on_line: Callable[[str], None]
    ) -> None:
        if settings.backend not in BACKENDS:
            raise PolicyError(
                f'There is no model backend {settings.backend!r}: choose one of {", ".join(BACKENDS)}.'
            )
        if not settings.checkpoint:
            raise PolicyError(f'The backend {settings.backend} needs a checkpoint: give its folder.')
        self.settings, self._rows, self._on_line = settings, rows_for_backends(embodiment), on_line
        self.name = settings.checkpoint
        self._state, self._unavailable_reason, self._port = (
            threading.Condition(),
            'it is loading',
            settings.port,
        )
        self._closing = threading.Event()
        self._failed = False
        self._was_ready = False
        self.was_killed = False
        self._process: subprocess.Popen | None = None
        self._thread = threading.Thread(target=self._supervise, name='model', daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it answers."""
        return self._port

    def unavailable_reason(self) -> str:
        """Why it does not answer now; empty where it does."""
        with self._state:
            return self._unavailable_reason

    def wait(self, timeout_s: float = 1800.0) -> None:
        """Until it answers. Raises PolicyError when its first start fails, or takes too long."""
        with self._state:
            there = self._state.wait_for(lambda: not self._unavailable_reason or self._failed, timeout_s)
            reason = self._unavailable_reason
        if not there or reason:
            self.close()
            raise PolicyError(
                f'The model could not be started: {reason if there else f"not ready after {timeout_s:.0f} s"}.'
            )

    def join(self) -> None:
        """Until it has ended for good."""
        while self._thread.is_alive():
            self._thread.join(0.5)

    def close(self) -> None:
        """Ends it in order, and kills it where it does not end."""
        self._closing.set()
        if (process := self._process) is not None:
            _end(process)
        self._thread.join(_END_S)

    def _supervise(self) -> None:
        restart_with_backoff(self._run_and_report, self._closing, _FIRST_DELAY_S, _MAX_DELAY_S, _LONG_RUN_S)

    def _run_and_report(self) -> bool:
        """Runs the model until it ends; whether to start it again."""
        ready, reason = self._run()
        self._was_ready |= ready
        if self._closing.is_set():
            return False
        self.was_killed = ready and not reason
        reason = reason or 'a client asked it to end'
        self._set_unavailable(reason, failed=not self._was_ready)
        self._on_line(f'The model ended: {reason}.')
        return self._was_ready and not self.was_killed

    def _run(self) -> tuple[bool, str]:
        """One life: whether it ever answered, and why it ended; nothing where it was told to."""
        settings = self.settings
        content = {
            **asdict(settings),
            'port': self._port,
            'rows': self._rows,
            'needs': _needs(settings.backend),
        }
        try:
            process = subprocess.Popen(
                [settings.python or sys.executable, str(SERVER_FILE), json.dumps(content)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors='replace',
            )  # fmt: skip
        except OSError as error:
            return False, f'{settings.python} cannot be run ({error.strerror})'
        self._process = process
        last: deque[str] = deque(maxlen=1)
        printed = threading.Thread(target=self._forward, args=(process, last), daemon=True)
        printed.start()
        ready, failed = self._listen(process)
        process.wait()
        printed.join(_END_S)
        _end(process)
        if ready and process.returncode == 0:
            return True, ''
        ended = ': '.join([f'it {describe_exit(process.returncode)}', *last])
        return ready, failed or ended

    def _listen(self, process: subprocess.Popen) -> tuple[bool, str]:
        ready, failed = False, ''
        assert process.stdout is not None
        for line in process.stdout:
            try:
                news = json.loads(line)
            except ValueError:
                continue
            if 'ready' in news:
                ready, self._port, self.name = True, news['ready'], news['name']
                self._on_line(
                    f'{news["name"]} answers at {self.settings.host}:{self._port}, within {news["answer_s"] * 1e3:.0f} ms.'
                )
                self._set_unavailable('')
            elif 'failed' in news:
                failed = news['failed'].rstrip('.')
            else:
                self._on_line(f'{news.get("doing", "")} ...')
                self._set_unavailable(f'the model is {news.get("doing", "loading")}')
        return ready, failed

    def _forward(self, process: subprocess.Popen, last: deque[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            if text := line.rstrip():
                last.append(text)
                self._on_line(text)

    def _set_unavailable(self, reason: str, failed: bool = False) -> None:
        with self._state:
            self._unavailable_reason, self._failed = reason, failed
            self._state.notify_all()


def rows_for_backends(embodiment: Embodiment) -> dict[str, Any]:
    """What a backend must know of an embodiment, as plain JSON, since the model's Python has no pydantic."""
    state = {name: [part.start, part.stop] for name, part in embodiment.state_slices.items()}
    sizes = {name: stop - start for name, (start, stop) in state.items()}
    return {
        'embodiment': embodiment.name,
        'cameras': {camera.name: camera.feature for camera in embodiment.cameras},
        'image_sizes': {camera.name: [camera.width, camera.height] for camera in embodiment.cameras},
        'state': state,
        'state_size': embodiment.state_size,
        'state_sizes': {**sizes, EEF_9D: 9, EEF_6D: 6},
        'action': {name: [part.start, part.stop] for name, part in embodiment.action_slices.items()},
        'action_size': embodiment.action_size,
        'language': embodiment.language,
    }


def _needs(backend: str) -> str:
    package = {'gr00t': "NVIDIA's Isaac-GR00T", 'lerobot': 'lerobot'}[backend]
    return f'name the Python that has {package} with --python (parameter python), and in it: pip install pyzmq msgpack numpy'


def _end(process: subprocess.Popen) -> None:
    """By hanging up, which it watches for."""
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    wait_or_kill(process, _END_S)
