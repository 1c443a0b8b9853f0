# SPDX-License-Identifier: Apache-2.0
"""Runs jobs beside each other: in this process, in others of this machine, or on a Ray cluster. The order of the jobs is kept."""

import contextlib
import importlib.util
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from groot_ros.dataset.convert_source import ConversionJob, ConversionResult, convert_recording
from groot_ros.errors import GrootRosError

EXECUTORS = ('processes', 'ray')


class ConversionInterrupted(GrootRosError):
    """A conversion that was stopped, or lost a worker: what is done is kept."""


@contextlib.contextmanager
def converted(jobs: list[ConversionJob], workers: int, executor: str) -> Iterator[Iterator[ConversionResult]]:
    """The parts in the order of their jobs; leaving ends what still runs."""
    if executor not in EXECUTORS:
        raise GrootRosError(f'There is no executor {executor!r} here: choose one of {", ".join(EXECUTORS)}.')
    workers = min(workers, len(jobs))
    if executor == 'ray':
        with _on_ray(jobs, workers) as parts:
            yield parts
    elif workers <= 1:
        yield map(convert_recording, jobs)
    else:
        with _in_processes(jobs, workers) as parts:
            yield parts


@contextlib.contextmanager
def _in_processes(jobs: list[ConversionJob], workers: int) -> Iterator[Iterator[ConversionResult]]:
    others = set(multiprocessing.active_children())
    # Ctrl-C reaches all processes of a terminal: only the first one may answer it.
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context('spawn'), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    )
    try:
        yield pool.map(convert_recording, jobs)
        pool.shutdown()
    except BrokenProcessPool as error:
        raise ConversionInterrupted(
            'A worker died, perhaps for want of memory: give fewer --workers; the same command goes on from here.'
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
            process.join()


@contextlib.contextmanager
def _on_ray(jobs: list[ConversionJob], workers: int) -> Iterator[Iterator[ConversionResult]]:
    """One task an item, at most `workers` at a time; the folder of the dataset must be one that all machines of the cluster see."""
    if importlib.util.find_spec('ray') is None:
        raise GrootRosError('--executor ray needs Ray: pip install "groot_ros[ray]".')
    import ray

    started = not ray.is_initialized()
    if started:  # RAY_ADDRESS names a cluster; without it Ray runs on this machine only
        ray.init(
            log_to_driver=False,
            include_dashboard=False,
            logging_level='error',
            ignore_reinit_error=True,
            **_local(workers),
        )
    task = ray.remote(num_cpus=1, max_retries=2)(convert_recording)
    running: list = []
    try:
        yield _gathered(ray, task, jobs, workers, running)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if started:
            ray.shutdown()


def _local(workers: int) -> dict[str, int]:
    return {} if os.environ.get('RAY_ADDRESS') else {'num_cpus': workers}


def _gathered(
    ray, task, jobs: list[ConversionJob], workers: int, running: list
) -> Iterator[ConversionResult]:
    """Starts a task whenever one has been taken, so that a fleet's jobs do not all wait in the cluster's memory."""
    waiting = iter(jobs)
    for _ in range(workers):
        running.append(task.remote(next(waiting)))
    while running:
        try:
            part = ray.get(running[0])
        except ray.exceptions.RayError as error:
            raise ConversionInterrupted(
                f'The Ray cluster lost a task ({str(error).splitlines()[0]}): the same command goes on from there.'
            ) from error
        running.pop(0)
        if (job := next(waiting, None)) is not None:
            running.append(task.remote(job))
        if not part.problem and not part.folder.is_dir():
            raise GrootRosError(
                f'A Ray worker wrote to {part.folder}, which is not seen here: --output must lie in a folder that all machines share.'
            )
        yield part
