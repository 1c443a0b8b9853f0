# SPDX-License-Identifier: Apache-2.0
"""Runs cases in child processes with limits of time and memory, and counts how they end."""

import importlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fuzz.target import Target, WrongAcceptError

OUTCOMES = ('accepted', 'refused', 'traceback', 'hang', 'memory', 'wrong accept')
FINDINGS = OUTCOMES[2:]
_MAX_RESIDENT_BYTES = 1 << 30
# More than may be resident, so that a case which needs too much is counted and not only stopped.
_MAX_ADDRESS_BYTES = 6 << 30
_TRACEBACK = 98
_WRONG_ACCEPT = 99
_REFUSALS = (1, 2)
_POLL_S = 0.002


@dataclass
class Finding:
    """A case that did not end well; `text` is what it printed."""

    target: str
    number: int
    outcome: str
    text: str


@dataclass
class Counts:
    """How the cases of one target ended; the largest time in s and resident memory in bytes."""

    target: str
    outcomes: Counter[str] = field(default_factory=Counter)
    max_s: float = 0.0
    max_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    def row(self) -> list[str]:
        """The row of the table."""
        numbers = [str(self.outcomes[outcome]) for outcome in OUTCOMES]
        total = str(sum(self.outcomes.values()))
        return [self.target, total, *numbers, f'{self.max_s:.1f}', f'{self.max_bytes / 2**20:.0f}']


@dataclass
class _Child:
    process: int
    number: int
    began_s: float
    folder: Path


def run_cases(target: Target, numbers: list[int], seed: int, jobs: int = 1) -> Counts:
    """Runs cases of a target, `jobs` at the same time. The outcome does not depend on `jobs`."""
    counts = Counts(target.name)
    for module in target.modules:  # once here, and not in every child
        importlib.import_module(module)
    with tempfile.TemporaryDirectory(prefix=f'fuzz_{target.name}_') as temporary:
        seeds = Path(temporary) / 'seeds'
        seeds.mkdir()
        _prepare(target, seeds)
        running: list[_Child] = []
        for number in numbers:
            running.append(_start(target, number, seed, seeds, Path(temporary)))
            running = _wait_for(running, jobs - 1, target, counts)
        _wait_for(running, 0, target, counts)
    counts.findings.sort(key=lambda finding: finding.number)
    return counts


def _wait_for(running: list[_Child], most: int, target: Target, counts: Counts) -> list[_Child]:
    """Waits until at most `most` children are left, which it returns."""
    while len(running) > most:
        running = [child for child in running if not _ended(child, target, counts)]
        time.sleep(_POLL_S)
    return running


def _prepare(target: Target, seeds: Path) -> None:
    """Makes the seeds in a child: their threads must not be in the process that forks the cases."""
    process = _fork(lambda: _prepared(target, seeds), seeds.parent / 'prepared')
    _, status = os.waitpid(process, 0)
    if status:
        raise RuntimeError(f'The seeds of {target.name} failed: {(seeds.parent / "prepared").read_text()}')


def _prepared(target: Target, seeds: Path) -> int:
    target.prepare(seeds)
    return 0


def _start(target: Target, number: int, seed: int, seeds: Path, temporary: Path) -> _Child:
    folder = temporary / f'case_{number}'
    folder.mkdir()
    random = np.random.default_rng([seed, zlib.crc32(target.name.encode()), number])

    def run() -> int:
        os.environ['GROOT_ROS_DEBUG'] = '1'  # an error that the command line does not foresee is a finding
        resource.setrlimit(resource.RLIMIT_AS, (_MAX_ADDRESS_BYTES, _MAX_ADDRESS_BYTES))
        return target.run_case(random, seeds, folder)

    process = _fork(run, temporary / f'case_{number}.txt')
    return _Child(process, number, time.monotonic(), folder)


def _fork(run: Callable[[], int], output: Path) -> int:
    """Runs a function in a child that prints into a file; its result is the exit code."""
    process = os.fork()
    if process:
        return process
    code = _TRACEBACK
    try:
        # A group of its own, so that its workers end with it.
        os.setpgid(0, 0)
        printed = output.open('w')
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        # Not the ones that a test runner has put here.
        sys.stdout = printed
        sys.stderr = printed
        code = run()
    except WrongAcceptError as error:
        print(f'wrong accept: {error}', file=sys.stderr)
        code = _WRONG_ACCEPT
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _ended(child: _Child, target: Target, counts: Counts) -> bool:
    """Whether a child has ended, which is then counted. One that takes too long is ended here."""
    process, status, usage = os.wait4(child.process, os.WNOHANG)
    elapsed_s = time.monotonic() - child.began_s
    hangs = not process and elapsed_s > target.time_limit_s
    if not process and not hangs:
        return False
    if hangs:
        os.killpg(child.process, signal.SIGKILL)
        _, status, usage = os.wait4(child.process, 0)
    resident = usage.ru_maxrss * 1024
    output = child.folder.with_name(f'{child.folder.name}.txt')
    text = output.read_text(errors='replace') if output.exists() else ''
    outcome = 'hang' if hangs else _outcome(status, resident, text)
    counts.outcomes[outcome] += 1
    counts.max_s = max(counts.max_s, elapsed_s)
    counts.max_bytes = max(counts.max_bytes, resident)
    if outcome in FINDINGS:
        counts.findings.append(Finding(target.name, child.number, outcome, text))
    output.unlink(missing_ok=True)
    shutil.rmtree(child.folder, ignore_errors=True)
    return True


def _outcome(status: int, resident: int, text: str) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code == _WRONG_ACCEPT:
        return 'wrong accept'
    if resident > _MAX_RESIDENT_BYTES:
        return 'memory'
    if code not in (0, *_REFUSALS) or 'Traceback' in text:
        return 'traceback'
    return 'refused' if code else 'accepted'


def table_lines(all_counts: list[Counts]) -> Iterator[str]:
    """The counts as a Markdown table."""
    yield '| target | cases | ' + ' | '.join(OUTCOMES) + ' | longest s | most MiB |'
    yield '|---' * (len(OUTCOMES) + 4) + '|'
    for counts in all_counts:
        yield '| ' + ' | '.join(counts.row()) + ' |'
