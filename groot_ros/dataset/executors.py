# SPDX-License-Identifier: Apache-2.0
"""Runs jobs in parallel: in this process, in others of this machine, or on a Ray cluster, in order."""

import contextlib
import importlib.util
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import cv2

from groot_ros.dataset.convert_recording import ConversionJob, ConversionResult
from groot_ros.errors import GrootRosError, choose

EXECUTORS = ('processes', 'ray')

Convert = Callable[[ConversionJob], ConversionResult]


class ConversionInterrupted(GrootRosError):
    """A conversion that was stopped, or lost a worker; what is done is kept."""


@contextlib.contextmanager
def run_jobs(
    convert: Convert, jobs: list[ConversionJob], workers: int, executor: str
) -> Iterator[Iterator[ConversionResult]]:
    """Gives the results in the order of the jobs, as they come; leaving the context ends what still runs.

    Raises GrootRosError for an unknown executor, and ConversionInterrupted if a worker is lost.
    """
    choose('executor', executor, EXECUTORS)
    workers = min(workers, len(jobs))
    if executor == 'ray':
        with _on_ray(convert, jobs, workers) as results:
            yield results
    elif workers <= 1:
        yield map(convert, jobs)
    else:
        with _in_processes(convert, jobs, workers) as results:
            yield results


@contextlib.contextmanager
def _in_processes(
    convert: Convert, jobs: list[ConversionJob], workers: int
) -> Iterator[Iterator[ConversionResult]]:
    others = set(multiprocessing.active_children())
    # Importing takes as long as converting some seconds of a recording: one server does it for all workers.
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['groot_ros.dataset.convert_recording'])
    threads = max((os.cpu_count() or 1) // workers, 1)
    pool = ProcessPoolExecutor(workers, context, _start_worker, (threads,))
    try:
        futures = [pool.submit(convert, job) for job in jobs]
        yield _in_order(
            convert, jobs, futures, lambda: ProcessPoolExecutor(1, context, _start_worker, (threads,))
        )
        pool.shutdown()
    except BrokenProcessPool as error:
        raise ConversionInterrupted(
            'A worker died, perhaps because memory ran out: give fewer --workers; the same command continues.'
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
            process.join()


def _in_order(
    convert: Convert,
    jobs: list[ConversionJob],
    futures: list[Future[ConversionResult]],
    make_pool: Callable[[], ProcessPoolExecutor],
) -> Iterator[ConversionResult]:
    """The results of all jobs in their order.

    After a worker has died the jobs that are left get a worker each, if recordings that cannot be converted
    are to be left out: one recording may crash a library, or need all memory.
    """
    for job, future in zip(jobs, futures, strict=True):
        try:
            yield future.result()
        except BrokenProcessPool:
            if not job.options.skip_bad:
                raise
            yield _alone(convert, job, make_pool)


def _alone(
    convert: Convert, job: ConversionJob, make_pool: Callable[[], ProcessPoolExecutor]
) -> ConversionResult:
    with make_pool() as pool:
        try:
            return pool.submit(convert, job).result()
        except BrokenProcessPool:
            reason = 'its worker died, perhaps because memory ran out'
            return ConversionResult(problem=f'{job.recording} cannot be converted: {reason}.')


def _start_worker(threads: int) -> None:
    """Prepares a worker, which shares the cores with the others, and ends with the first process."""
    threading.Thread(target=_end_with_first_process, daemon=True).start()
    # Ctrl-C reaches all processes of a terminal: only the first one may answer it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(threads)


def _end_with_first_process() -> None:
    """Ends this worker when the process that started the conversion ends, by whatever signal.

    Its parent is multiprocessing's server, which itself waits for the workers.
    """
    first = multiprocessing.parent_process()
    if first is not None:
        multiprocessing.connection.wait([first.sentinel])
        os._exit(1)


@contextlib.contextmanager
def _on_ray(
    convert: Convert, jobs: list[ConversionJob], workers: int
) -> Iterator[Iterator[ConversionResult]]:
    """One task a recording, at most `workers` at a time; all machines must share the dataset's folder."""
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
            **_local_cores(workers),
        )
    task = ray.remote(num_cpus=1, max_retries=2)(convert)
    running: list = []
    try:
        yield _results(ray, task, jobs, workers, running)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if started:
            ray.shutdown()


def _local_cores(workers: int) -> dict[str, int]:
    return {} if os.environ.get('RAY_ADDRESS') else {'num_cpus': workers}


def _results(ray, task, jobs: list[ConversionJob], workers: int, running: list) -> Iterator[ConversionResult]:
    """Starts a task whenever a result is taken, so that not all jobs wait in the cluster's memory at once."""
    waiting = iter(jobs)
    for _ in range(workers):
        running.append(task.remote(next(waiting)))
    while running:
        try:
            result = ray.get(running[0])
        except ray.exceptions.RayError as error:
            raise ConversionInterrupted(
                f'The Ray cluster lost a task ({str(error).splitlines()[0]}): the same command continues.'
            ) from error
        running.pop(0)
        if (job := next(waiting, None)) is not None:
            running.append(task.remote(job))
        missing = [episode.folder for episode in result.episodes if not episode.folder.is_dir()]
        if missing:
            raise GrootRosError(
                f'A Ray worker wrote to {missing[0]}, which is not on this machine: '
                '--output must be in a folder that all machines share.'
            )
        yield result
