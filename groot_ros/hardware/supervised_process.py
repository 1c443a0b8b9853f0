# SPDX-License-Identifier: Apache-2.0
"""A process of our own around a library that may crash or hang: started, watched, killed and started again with back-off."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

_FIRST_BACKOFF_S, _MAX_BACKOFF_S = 0.5, 8.0
_START_S = 10.0
_LONG_RUN_S = 30.0
_RECORD, _BUSY, _ANSWER = b'R', b'B', b'A'


class SupervisedProcess:
    """Runs `python -m MODULE FD SETTINGS_JSON`; the child answers through a WorkerConnection.

    `on_record` gets each record as bytes, `on_loss` a sentence when the child died, fell silent for `patience_s`, or did not
    return from a call within the deadline that it had announced. Both are called from this object's thread.
    """

    def __init__(
        self,
        module: str,
        settings: dict[str, Any],
        on_record: Callable[[bytes], None],
        on_loss: Callable[[str], None],
        patience_s: float,
    ) -> None:
        self._module, self._settings, self._patience_s = module, json.dumps(settings), patience_s
        self._on_record, self._on_loss = on_record, on_loss
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._pipe: Connection | None = None
        self._answers: dict[int, str] = {}
        self._answered = threading.Condition()
        self._lives = 0
        self._thread = threading.Thread(target=self._supervise, name=module.rsplit('.', 1)[-1], daemon=True)
        self._thread.start()

    def send(self, record: bytes) -> None:
        """Sends a record; it is lost where no child runs."""
        with self._lock:
            if self._pipe is not None:
                try:
                    self._pipe.send_bytes(record)
                except OSError:
                    self._pipe = None

    def ask(self, record: bytes, number: int, timeout_s: float) -> str:
        """Sends a record that carries a number and waits for its answer: '' for success, else what is wrong."""
        with self._answered:
            life = self._lives
            self.send(record)
            done = self._answered.wait_for(
                lambda: number in self._answers or self._lives != life or self._pipe is None, timeout_s
            )
            if number in self._answers:
                return self._answers.pop(number)
        return 'the connection to the robot is lost' if done else f'no answer within {timeout_s:.0f} s'

    def close(self) -> None:
        """Hangs up, which ends the child in order, and kills one that does not end."""
        self._closing.set()
        with self._lock:
            if self._pipe is not None:
                with contextlib.suppress(OSError):
                    self._pipe.send_bytes(b'')
        self._thread.join(8.0)

    def _supervise(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while not self._closing.is_set():
            began_s = time.monotonic()
            reason = self._run_child()
            with self._answered:
                self._lives += 1
                self._answered.notify_all()
            if self._closing.is_set():
                return
            self._on_loss(reason)
            lasted = time.monotonic() - began_s > _LONG_RUN_S
            self._closing.wait(backoff_s)
            backoff_s = _FIRST_BACKOFF_S if lasted else min(backoff_s * 2, _MAX_BACKOFF_S)

    def _run_child(self) -> str:
        """Runs one child to its end and says why it ended."""
        ours, theirs = socket.socketpair()
        process = subprocess.Popen(
            [sys.executable, '-m', self._module, str(theirs.fileno()), self._settings],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.DEVNULL,  # the library chats there
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        pipe = Connection(ours.detach())
        with self._lock:
            self._pipe = pipe
        reason = self._read(pipe)
        with self._lock:
            self._pipe = None
            pipe.close()
        if reason:
            process.kill()
        ended = _ended(process)
        return reason or ended

    def _read(self, pipe: Connection) -> str:
        """Hands on what the child says until the pipe closes, which returns '', or a deadline passes."""
        call, deadline_s = 'its start', _START_S
        try:
            while pipe.poll(deadline_s):
                message = pipe.recv_bytes()
                call, deadline_s = '', self._patience_s
                if message[:1] == _RECORD:
                    self._on_record(message[1:])
                elif message[:1] == _BUSY:
                    call, deadline_s = json.loads(message[1:])
                else:
                    self._take_answer(json.loads(message[1:]))
        except (EOFError, OSError):
            return ''
        return (
            f'{call} did not end within {deadline_s:g} s'
            if call
            else f'nothing was heard for {deadline_s:g} s'
        )

    def _take_answer(self, answer: tuple[int, str]) -> None:
        with self._answered:
            self._answers[answer[0]] = answer[1]
            self._answered.notify_all()


class WorkerConnection:
    """The child's side: records out, orders in, and the announcement of calls that may hang."""

    def __init__(self) -> None:
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # Ctrl-C reaches the parent, which then ends this process in order
        self._pipe = Connection(int(sys.argv[1]))
        self.settings: dict[str, Any] = json.loads(sys.argv[2])

    def send(self, record: bytes) -> None:
        """Sends a record."""
        self._pipe.send_bytes(_RECORD + record)

    def answer(self, number: int, problem: str) -> None:
        """Answers an order: '' for success."""
        self._pipe.send_bytes(_ANSWER + json.dumps([number, problem]).encode())

    @contextlib.contextmanager
    def deadline(self, call: str, seconds: float) -> Iterator[None]:
        """Around a call that may hang: where it lasts longer, the parent kills this process and says which call it was."""
        with contextlib.suppress(
            OSError
        ):  # without a parent there is nobody to tell, and the call is as needed
            self._pipe.send_bytes(_BUSY + json.dumps([call, seconds]).encode())
        yield

    def orders(self) -> Iterator[bytes]:
        """The orders that wait now; raises EOFError when the parent hung up."""
        while self._pipe.poll():
            if not (record := self._pipe.recv_bytes()):
                raise EOFError
            yield record


def run_child(work: Callable[[WorkerConnection], None]) -> None:
    """The main of a child: works until the parent hangs up; a fault becomes one line on stderr and exit code 1."""
    try:
        work(WorkerConnection())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)  # destructors of a broken ur_rtde connection hang
    except (
        Exception
    ) as error:  # the one place where a library's many exceptions become one line for the driver
        print(
            f'{error}'.strip().splitlines()[0] if str(error).strip() else type(error).__name__,
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)


def _ended(process: subprocess.Popen) -> str:
    try:
        _, text = process.communicate(timeout=6.0)
    except subprocess.TimeoutExpired:
        process.kill()
        _, text = process.communicate()
    if process.returncode < 0:
        return f'ur_rtde ended with {signal.Signals(-process.returncode).name}'
    lines = text.strip().splitlines()
    return lines[-1] if lines else 'the connection to the robot ended'
