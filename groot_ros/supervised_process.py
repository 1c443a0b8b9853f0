# SPDX-License-Identifier: Apache-2.0
"""What the supervisors of processes share: restarts with back-off, a certain end, the text of an exit code.

Used by hardware/worker_process.py, inference/model_process.py and bringup/supervisor.py.
Imports the standard library only.
"""

import ctypes
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def restart_with_backoff(
    run: Callable[[], bool],
    closing: threading.Event,
    first_delay_s: float,
    max_delay_s: float,
    long_run_s: float,
) -> None:
    """Calls `run` again and again until it returns False or `closing` is set.

    `run` starts one process, returns when it has ended, and says whether to start another. The delay before
    the next start doubles from `first_delay_s` to `max_delay_s`; a run longer than `long_run_s` sets it back.
    """
    delay_s = first_delay_s
    while not closing.is_set():
        began_s = time.monotonic()
        if not run() or closing.is_set():
            return
        if time.monotonic() - began_s > long_run_s:
            delay_s = first_delay_s
        closing.wait(delay_s)
        delay_s = min(2 * delay_s, max_delay_s)


def wait_or_kill(process: subprocess.Popen, grace_s: float) -> None:
    """Waits until a process that was asked to end has ended, and kills it after `grace_s`."""
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def describe_exit(returncode: int) -> str:
    """How a process ended, as a verb phrase: 'was killed by SIGSEGV' or 'ended with exit code 1'."""
    if returncode < 0:
        return f'was killed by {signal.Signals(-returncode).name}'
    return f'ended with exit code {returncode}'


def die_with_parent() -> None:
    """Asks the kernel for SIGTERM when the parent dies: for `preexec_fn`, so that no child outlives it.

    The kernel watches the thread that starts the process, so that thread must live as long as the parent.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def find_program(program: str) -> str | None:
    """The path of a program that is given by its path or name; None if this user cannot run it."""
    path = str(Path(program).expanduser()) if program.startswith('~') else program
    return shutil.which(path)
