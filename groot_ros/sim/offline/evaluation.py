# SPDX-License-Identifier: Apache-2.0
"""Trials of a policy in closed loop by one or more processes; every policy has the same starts."""

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace

from groot_ros.embodiment import Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.inference.backends import BACKENDS
from groot_ros.policies.factory import PolicyChoice, make_policy, start_model
from groot_ros.policies.policy import Policy
from groot_ros.policies.success import SuccessResult, TrialOutcome
from groot_ros.sim.offline.cell import OfflineCell
from groot_ros.sim.offline.closed_loop import TrialSettings, run_trial
from groot_ros.sim.offline.expert_policy import ExpertPolicy
from groot_ros.sim.offline.topics import check_topics
from groot_ros.sim.rendering import SceneRenderer

# Workers wait for each other at the model server, and the time of computing does not count in a trial.
_SHARED_TIMEOUT_S = 30.0

Progress = Callable[[Iterable[TrialOutcome], int], Iterable[TrialOutcome]]


@dataclass(frozen=True)
class Candidate:
    """A policy that is evaluated: its name for people, and how it is made; None for the scripted operator."""

    name: str
    choice: PolicyChoice | None


@dataclass(frozen=True)
class EvaluationJob:
    """Everything that a process needs to run trials of one policy. `token` is that of its model server."""

    candidate: Candidate
    embodiment: Embodiment
    settings: TrialSettings = field(default_factory=TrialSettings)
    token: str = ''


class Bench:
    """A cell with a policy. Raises GrootRosError if the policy cannot be made."""

    def __init__(self, job: EvaluationJob) -> None:
        self._job = job
        self._cell = OfflineCell()
        self._renderer = SceneRenderer()
        self._policy = self._make_policy()

    def trial(self, number: int) -> TrialOutcome:
        """Runs one trial; its number decides the start, so that all policies have the same."""
        job = self._job
        return run_trial(self._cell, self._policy, job.embodiment, self._renderer, job.settings, number)

    def close(self) -> None:
        """Ends the policy."""
        self._policy.close()

    def _make_policy(self) -> Policy:
        choice = self._job.candidate.choice
        if choice is None:
            return ExpertPolicy(self._cell, self._job.embodiment)
        job = self._job
        return make_policy(choice, job.embodiment, _tell, token_host=choice.host, token=job.token)


def evaluate_closed_loop(
    job: EvaluationJob, trials: int, workers: int = 1, progress: Progress | None = None
) -> SuccessResult:
    """Runs the trials 0 to `trials` - 1. The outcomes do not depend on the number of workers.

    Raises GrootRosError if the cell does not have what the embodiment needs, or the policy cannot be made.
    """
    check_topics(job.embodiment)
    run = _run_here if workers <= 1 else _run_in_processes
    with _served_once(job) as served, run(served, trials, workers) as outcomes:
        shown = progress(outcomes, trials) if progress else outcomes
        return SuccessResult(job.candidate.name, list(shown))


@contextlib.contextmanager
def _served_once(job: EvaluationJob) -> Iterator[EvaluationJob]:
    """The job with its checkpoint, if it has one, on a model server that all workers share."""
    choice = job.candidate.choice
    if choice is None or choice.backend not in BACKENDS:
        yield job
        return
    with contextlib.closing(start_model(choice, job.embodiment, _tell)) as process:
        process.wait()
        host = process.settings.host
        timeout_s = max(choice.timeout_s, _SHARED_TIMEOUT_S)
        remote = replace(choice, backend='remote', host=host, port=process.port, timeout_s=timeout_s)
        candidate = replace(job.candidate, choice=remote)
        yield replace(job, candidate=candidate, token=process.token)


@contextlib.contextmanager
def _run_here(job: EvaluationJob, trials: int, workers: int) -> Iterator[Iterator[TrialOutcome]]:
    with contextlib.closing(Bench(job)) as bench:
        yield map(bench.trial, range(trials))


@contextlib.contextmanager
def _run_in_processes(job: EvaluationJob, trials: int, workers: int) -> Iterator[Iterator[TrialOutcome]]:
    context = multiprocessing.get_context('spawn')
    pool = ProcessPoolExecutor(min(workers, trials), context, _start_worker, (job,))
    try:
        futures = [pool.submit(_trial_in_worker, number) for number in range(trials)]
        yield (future.result() for future in futures)
    except BrokenProcessPool as error:
        raise GrootRosError(
            'A process of the evaluation died, perhaps because memory ran out: give fewer --workers.'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


class _Worker:
    """What a worker process keeps between its trials. The first one makes the bench, to tell its errors."""

    job: EvaluationJob | None = None
    bench: Bench | None = None


def _start_worker(job: EvaluationJob) -> None:
    # Ctrl-C reaches all processes of a terminal: only the first one may answer it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Worker.job = job


def _trial_in_worker(number: int) -> TrialOutcome:
    if _Worker.bench is None:
        assert _Worker.job is not None
        _Worker.bench = Bench(_Worker.job)
    return _Worker.bench.trial(number)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
