# SPDX-License-Identifier: Apache-2.0
"""One run of a trainer: checks, lock, process, progress, log and receipt."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from groot_ros.errors import GrootRosError
from groot_ros.supervised_process import describe_exit, die_with_parent, wait_or_kill
from groot_ros.training.dataset_checks import dataset_problems
from groot_ros.training.findings import TrainingProblem
from groot_ros.training.job import LOCK_FILE, LOG_FILE, FinetuneJob, TrainerCommand
from groot_ros.training.machine_checks import machine_problems
from groot_ros.training.output_checks import output_problems
from groot_ros.training.probe import Probe, probe
from groot_ros.training.progress import ProgressReader
from groot_ros.training.receipt import Receipt, begin_receipt
from groot_ros.training.trainers import load_trainer

_SHOWN_LINES = 15
# A checkpoint of several GB is written after an interrupt.
_SAVE_S = 300.0


def ask_python(python: str) -> Probe:
    """What a Python has. Raises GrootRosError if it cannot be run."""
    try:
        return probe(python)
    except (OSError, ValueError, IndexError, TypeError, subprocess.SubprocessError) as error:
        raise GrootRosError(
            f'{python} cannot be used as the Python of the trainer ({error}): give the path of an '
            'interpreter with --python.'
        ) from error


def find_problems(job: FinetuneJob, found: Probe) -> Iterator[TrainingProblem]:
    """All reasons not to start: of the output folder, the machine, and the dataset, in this order."""
    trainer = load_trainer(job.preset.trainer).TRAINER
    yield from output_problems(job)
    yield from machine_problems(job, trainer, found)
    yield from dataset_problems(job, trainer)


def make_command(job: FinetuneJob, found: Probe) -> TrainerCommand:
    """The command that `train` starts; --dry-run prints it."""
    return load_trainer(job.preset.trainer).command(job, found)


def train(job: FinetuneJob, found: Probe, say: Callable[[str], None]) -> Receipt:
    """Runs a trainer to its end, and returns the receipt, which is also in training.json.

    Ctrl-C lets the trainer save a checkpoint and end; a second one ends it at once. Raises GrootRosError if
    the trainer fails, or its loss is not a number; KeyboardInterrupt after Ctrl-C. In each case the receipt
    and the checkpoints are kept.
    """
    job.output.mkdir(parents=True, exist_ok=True)
    with _locked(job.output):
        command = make_command(job, found)
        for name, text in command.files.items():
            (job.output / name).write_text(text)
        receipt = begin_receipt(job, found, command.arguments)
        receipt.write(job.output)
        run = _Run(job, command, receipt)
        run.follow(say)
        return receipt


class _Run:
    """The trainer's process, from its start to its end."""

    def __init__(self, job: FinetuneJob, command: TrainerCommand, receipt: Receipt) -> None:
        self._job = job
        self._receipt = receipt
        self._reader = ProgressReader(job.preset.steps, job.preset.samples_per_update)
        self._last_lines: deque[str] = deque(maxlen=_SHOWN_LINES)
        self._began_s = time.time()
        # In a session of its own: Ctrl-C in the terminal must reach it once, through us.
        self._process = subprocess.Popen(
            command.arguments,
            env={**os.environ, **command.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    def follow(self, say: Callable[[str], None]) -> None:
        """Shows the progress until the process has ended, and writes the receipt."""
        interrupted = False
        try:
            self._show()
        except KeyboardInterrupt:
            interrupted = True
            say('Saving a checkpoint; Ctrl-C again ends the run without it.')
            self._end()
        finally:
            if self._process.poll() is None:
                self._kill()
            outcome = self._outcome(interrupted)
            self._receipt.add_session(self._began_s, self._reader.progress, outcome)
            self._receipt.write(self._job.output)
        if interrupted:
            raise KeyboardInterrupt
        if outcome != 'finished':
            raise GrootRosError(self._failure(outcome))

    def _show(self) -> None:
        assert self._process.stdout is not None
        progress = self._reader.progress
        with (
            (self._job.output / LOG_FILE).open('a') as log,
            tqdm(total=progress.steps, unit='step', file=sys.stderr, dynamic_ncols=True) as bar,
        ):
            for line in self._process.stdout:
                self._take(line, log)
                if progress.step > bar.n:
                    if bar.n == 0:
                        bar.initial = progress.step
                    bar.n = progress.step
                    bar.set_postfix_str(progress.summary())
        self._process.wait()

    def _take(self, line: str, log: IO[str]) -> None:
        log.write(line)
        log.flush()
        if not self._reader.read(line) and line.strip():
            self._last_lines.append(line.rstrip())

    def _end(self) -> None:
        """Asks the process to save and end; a second Ctrl-C kills it."""
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGINT)
        deadline_s = time.monotonic() + _SAVE_S
        try:
            with (self._job.output / LOG_FILE).open('a') as log:
                for line in self._process.stdout:
                    self._take(line, log)
                    if time.monotonic() > deadline_s:
                        break
            wait_or_kill(self._process, max(deadline_s - time.monotonic(), 0.0))
        except KeyboardInterrupt:
            self._kill()

    def _kill(self) -> None:
        """Ends the process with all that it has started, such as loaders of data."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _outcome(self, interrupted: bool) -> str:
        if self._reader.progress.problem:
            return self._reader.progress.problem
        if interrupted:
            return 'interrupted'
        if self._process.returncode != 0:
            return f'the trainer {describe_exit(self._process.returncode)}'
        return 'finished'

    def _failure(self, outcome: str) -> str:
        saved = self._reader.progress.saved_step
        kept = f' The checkpoint of step {saved} is kept.' if saved else ''
        last = '\n'.join(self._last_lines)
        return (
            f'Training ended at step {self._reader.progress.step}: {outcome}.{kept} '
            f'Its output is in {self._job.output / LOG_FILE}; the last lines:\n{last}'
        )


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    """Holds the lock of an output folder. Raises GrootRosError if another run has it."""
    with (output / LOCK_FILE).open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise GrootRosError(f'Another run writes into {output}: choose another --output.') from error
        yield


def describe(receipt: Receipt) -> dict[str, Any]:
    """The main figures of a run, for the terminal and --json."""
    last = receipt.sessions[-1]
    trained = sum(part['trained'] for part in receipt.parameters.values())
    return {**last, 'trained_parameters': trained, 'peak_memory_gb': receipt.peak_memory_gb}
