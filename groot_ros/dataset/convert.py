"""Bags to a GR00T dataset: each bag on its own, by as many workers as wanted, then numbered in the order of the bags."""

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from groot_ros.bags.reader import find_bags
from groot_ros.dataset.lerobot import DatasetWriter
from groot_ros.dataset.parts import Job, Part, convert_bag, episodes_of, failed_reasons
from groot_ros.embodiment import Embodiment
from groot_ros.errors import GrootRosError

HORIZON = 16


@dataclass
class ConversionOptions:
    """What to take, and how.

    `horizon` is the shortest episode worth keeping, in rows; `skip_bad` leaves unfit bags out, `keep_failed` takes those whose
    verdict is fail; `task` is for bags that do not say theirs. The dataset does not depend on `workers`.
    """

    horizon: int = HORIZON
    skip_bad: bool = False
    keep_failed: bool = False
    task: str = ''
    workers: int = 1


@dataclass
class ConversionReport:
    """What came of a conversion; times in s. `skipped` maps bags to why they could not be converted, `failed` to their verdicts' reasons."""

    output: Path
    episodes: int = 0
    rows: int = 0
    elapsed_s: float = 0.0
    rows_s: float = 0.0
    video_s: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def convert(
    sources: list[Path],
    output: Path,
    embodiment: Embodiment,
    options: ConversionOptions | None = None,
    progress: Callable[[Iterable[Part], int], Iterable[Part]] = lambda parts, count: parts,
) -> ConversionReport:
    """Converts every bag below `sources` to a dataset at `output`.

    Bags of our recorder are copied, others and those of another rate are sampled and encoded. Raises GrootRosError, and leaves
    nothing behind, where a bag is unfit, unless such bags are to be left out. Interrupted, it keeps what is done in a hidden
    folder beside `output`, and goes on from there when it is called again. `progress` may wrap the parts as they come.
    """
    options, started_s = options or ConversionOptions(), time.perf_counter()
    report, chosen = ConversionReport(output), []
    for bag in find_bags(sources):
        reasons = [] if options.keep_failed else failed_reasons(bag)
        if reasons:
            report.failed[str(bag)] = '; '.join(reasons)
        else:
            chosen.append(bag)
    writer = DatasetWriter(output, embodiment)
    jobs = [Job(bag, writer.parts / f'{index:06d}_{bag.name}', embodiment.text(), options.horizon, options.task) for index, bag in enumerate(chosen)]
    try:
        with _converted(jobs, options.workers) as parts:
            for job, part in zip(jobs, progress(parts, len(jobs)), strict=True):
                _take(job, part, writer, report)
        _check_result(writer, report, options.skip_bad)
        writer.finish()
    except Exception:
        writer.abandon()
        raise
    report.elapsed_s = time.perf_counter() - started_s
    return report


@contextlib.contextmanager
def _converted(jobs: list[Job], workers: int) -> Iterator[Iterator[Part]]:
    """The parts in the order of their jobs; leaving ends the workers at once."""
    if min(workers, len(jobs)) <= 1:
        yield map(convert_bag, jobs)
        return
    # Ctrl-C reaches all processes of a terminal: only the first one may answer it.
    with multiprocessing.get_context('spawn').Pool(min(workers, len(jobs)), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield pool.imap(convert_bag, jobs)


def _take(job: Job, part: Part, writer: DatasetWriter, report: ConversionReport) -> None:
    if part.problem:
        report.skipped[str(job.bag)] = part.problem
        return
    for episode in episodes_of(part, writer.embodiment):
        writer.add_episode(episode)
    report.episodes += part.episodes
    report.rows += part.rows
    report.rows_s += part.rows_s
    report.video_s += part.video_s


def _check_result(writer: DatasetWriter, report: ConversionReport, skip_bad: bool) -> None:
    if report.skipped and not (skip_bad and writer.episodes):
        raise GrootRosError(_refusal(report.skipped, skip_bad))
    if report.failed and not writer.episodes:
        reason = next(iter(report.failed.values()))
        raise GrootRosError(f'The verdict of every episode is fail ({reason}): --keep-failed takes them nevertheless.')


def _refusal(skipped: dict[str, str], skip_bad: bool) -> str:
    reasons = '\n  '.join(skipped.values())
    if len(skipped) == 1:
        return reasons
    hint = 'no bag is fit' if skip_bad else 'nothing was written; --skip-bad converts the others'
    return f'{len(skipped)} bags cannot be converted ({hint}):\n  {reasons}'
