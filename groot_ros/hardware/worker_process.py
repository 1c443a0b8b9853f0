# SPDX-License-Identifier: Apache-2.0
"""A process around a library that may crash or hang: started, watched, killed, restarted with back-off."""

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from groot_ros.supervised_process import describe_exit, restart_with_backoff

_FIRST_DELAY_S = 0.5
_MAX_DELAY_S = 8.0
_LONG_RUN_S = 30.0
_START_S = 10.0
_END_S = 6.0
_RECORD = b'R'
_BUSY = b'B'
_ANSWER = b'A'


def _ignore(call: str) -> None:
    pass


class WorkerProcess:
    """Runs `python -m MODULE FD SETTINGS_JSON`; the worker answers through a WorkerConnection.

    `on_record` gets each record as bytes. `on_loss` gets a sentence when the worker died, was silent for
    `timeout_s`, did not return from a call within the deadline that it had announced, or sent a record that
    `on_record` raised an exception for; the worker is started again after each of them. `on_call` gets the
    name of each announced call. All are called from this object's thread, which no exception of them ends.
    """

    def __init__(
        self,
        module: str,
        settings: dict[str, Any],
        on_record: Callable[[bytes], None],
        on_loss: Callable[[str], None],
        timeout_s: float,
        on_call: Callable[[str], None] = _ignore,
    ) -> None:
        self._module = module
        self._settings = json.dumps(settings)
        self._timeout_s = timeout_s
        self._on_record = on_record
        self._on_loss = on_loss
        self._on_call = on_call
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._pipe: Connection | None = None
        self._answers: dict[int, str] = {}
        self._answered = threading.Condition()
        self._runs = 0
        self._thread = threading.Thread(target=self._supervise, name=module.rsplit('.', 1)[-1], daemon=True)
        self._thread.start()

    def send(self, record: bytes) -> None:
        """Sends a record; it is lost while no worker runs."""
        with self._lock:
            if self._pipe is not None:
                try:
                    self._pipe.send_bytes(record)
                except OSError:
                    self._pipe = None

    def request(self, record: bytes, number: int, timeout_s: float) -> str:
        """Sends a numbered record and waits for its answer: '' for success, else what is wrong."""
        with self._answered:
            run = self._runs
            self.send(record)
            done = self._answered.wait_for(
                lambda: number in self._answers or self._runs != run or self._pipe is None, timeout_s
            )
            if number in self._answers:
                return self._answers.pop(number)
        return 'the connection to the robot is lost' if done else f'no answer within {timeout_s:.0f} s'

    def close(self) -> None:
        """Hangs up, which lets the worker end by itself; the worker is killed if it does not."""
        self._closing.set()
        with self._lock:
            if self._pipe is not None:
                with contextlib.suppress(OSError):
                    self._pipe.send_bytes(b'')
        self._thread.join(8.0)

    def _supervise(self) -> None:
        restart_with_backoff(self._run_and_report, self._closing, _FIRST_DELAY_S, _MAX_DELAY_S, _LONG_RUN_S)

    def _run_and_report(self) -> bool:
        try:
            reason = self._run_worker()
        except Exception as error:
            reason = f'the process could not be started or supervised: {_one_line(error)}'
        with self._answered:
            self._runs += 1
            self._answered.notify_all()
        if not self._closing.is_set():
            self._report_loss(reason)
        return True

    def _report_loss(self, reason: str) -> None:
        try:
            self._on_loss(reason)
        except Exception:  # the supervision of the next worker matters more
            logging.getLogger(__name__).exception('The loss of %s could not be reported.', self._module)

    def _run_worker(self) -> str:
        """Runs one worker to its end and says why it ended."""
        ours, theirs = socket.socketpair()
        process = subprocess.Popen(
            [sys.executable, '-m', self._module, str(theirs.fileno()), self._settings],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.DEVNULL,  # ur_rtde prints there
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        pipe = Connection(ours.detach())
        with self._lock:
            self._pipe = pipe
        reason = self._read_messages(pipe)
        with self._lock:
            self._pipe = None
            pipe.close()
        if reason:
            process.kill()
        ended = _wait_for_end(process)
        return reason or ended

    def _read_messages(self, pipe: Connection) -> str:
        """Reads until the worker hangs up, and returns ''; or why the worker must be killed."""
        call = 'its start'
        deadline_s = _START_S
        try:
            while pipe.poll(deadline_s):
                message = pipe.recv_bytes()
                call = ''
                deadline_s = self._timeout_s
                if message[:1] == _RECORD:
                    self._on_record(message[1:])
                elif message[:1] == _BUSY:
                    call, deadline_s = json.loads(message[1:])
                    self._on_call(call)
                else:
                    self._take_answer(json.loads(message[1:]))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return ''
        except Exception as error:
            return f'its data could not be used: {_one_line(error)}'
        if call:
            return f'{call} did not end within {deadline_s:g} s'
        return f'no data arrived for {deadline_s:g} s'

    def _take_answer(self, answer: tuple[int, str]) -> None:
        number, problem = answer
        with self._answered:
            self._answers[number] = problem
            self._answered.notify_all()


class WorkerConnection:
    """The worker's side: sends records, receives orders, and announces calls that may hang."""

    def __init__(self) -> None:
        # Ctrl-C reaches the parent too, which then ends this process in order.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._pipe = Connection(int(sys.argv[1]))
        self.settings: dict[str, Any] = json.loads(sys.argv[2])

    def send(self, record: bytes) -> None:
        """Sends a record to the parent, which passes it to `on_record`."""
        self._pipe.send_bytes(_RECORD + record)

    def answer(self, number: int, problem: str) -> None:
        """Answers the order with this number: '' for success, else what is wrong."""
        self._pipe.send_bytes(_ANSWER + json.dumps([number, problem]).encode())

    @contextlib.contextmanager
    def deadline(self, call: str, seconds: float) -> Iterator[None]:
        """Wraps a call that may hang: if it takes longer, the parent kills this process and names it."""
        self.announce(call, seconds)
        yield

    def announce(self, call: str, seconds: float) -> None:
        """Names what is done now, and the time within which this process will be heard again."""
        # Without a parent nobody can kill this process, but the call is needed all the same.
        with contextlib.suppress(OSError):
            self._pipe.send_bytes(_BUSY + json.dumps([call, seconds]).encode())

    def orders(self) -> Iterator[bytes]:
        """Yields the orders that have arrived; raises EOFError when the parent has hung up."""
        while self._pipe.poll():
            if not (record := self._pipe.recv_bytes()):
                raise EOFError
            yield record


def run_worker(work: Callable[[WorkerConnection], None]) -> None:
    """The main function of a worker: works until the parent hangs up.

    Any other exception becomes one line on stderr and exit code 1, since the driver reports that line.
    """
    try:
        work(WorkerConnection())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)  # destructors of a broken ur_rtde connection hang
    except Exception as error:
        print(_one_line(error), file=sys.stderr, flush=True)
        os._exit(1)


def _one_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _wait_for_end(process: subprocess.Popen) -> str:
    """Waits for the end of a worker, kills it if it takes too long, and says why it ended."""
    try:
        _, text = process.communicate(timeout=_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        _, text = process.communicate()
    if process.returncode < 0:
        return f'ur_rtde {describe_exit(process.returncode)}'
    lines = text.strip().splitlines()
    return lines[-1] if lines else 'the connection to the robot ended'
