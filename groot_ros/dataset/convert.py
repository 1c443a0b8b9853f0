# SPDX-License-Identifier: Apache-2.0
"""Recordings to a GR00T dataset: each item on its own, by as many workers as wanted, then numbered in their order."""

import hashlib
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from groot_ros.dataset.convert_source import (
    ConversionJob,
    ConversionResult,
    ConversionSettings,
    fingerprint,
    read_episodes,
    verdict_failures,
)
from groot_ros.dataset.executors import ConversionInterrupted, converted
from groot_ros.dataset.modality_config import GR00T_VERSIONS
from groot_ros.dataset.sources.discover import Recording, fetched, find_recordings
from groot_ros.dataset.sources.time_ranges import RangeEntry
from groot_ros.dataset.writers.dataset_writer import DatasetWriter, OutputMode
from groot_ros.dataset.writers.lerobot_v2 import LeRobotV2Writer
from groot_ros.dataset.writers.lerobot_v3 import LeRobotV3Writer
from groot_ros.embodiment import Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.video.mp4 import CODECS

HORIZON = 16
FORMATS = {'v2.1': LeRobotV2Writer, 'v3.0': LeRobotV3Writer}
_ASPECT_TOLERANCE = 0.01
_UNSAFE = re.compile(r'[^A-Za-z0-9._-]+')


@dataclass
class ConversionOptions:
    """What to take, and how.

    `horizon` is the shortest episode worth keeping, in rows; `skip_bad` leaves unfit items out, `keep_failed` takes bags whose
    verdict is fail; `task` is for items that do not say theirs; `idle_s` is what is left of idle beginnings and ends, None for
    all; `release` is the GR00T release whose extra statistics are wanted. The dataset does not depend on `workers`.
    """

    horizon: int = HORIZON
    skip_bad: bool = False
    keep_failed: bool = False
    task: str = ''
    workers: int = 1
    executor: str = 'processes'
    format: str = 'v2.1'
    codec: str = 'h264'
    idle_s: float | None = None
    gr00t_version: str = ''
    existing: OutputMode = OutputMode.REFUSE
    ranges: tuple[RangeEntry, ...] = ()


@dataclass
class ConversionReport:
    """What came of a conversion; times in s.

    `skipped` maps items to why they could not be converted, `failed` to their verdicts' reasons, `trimmed` to rows left out as
    idle; `known` are those that the dataset had already.
    """

    output: Path
    episodes: int = 0
    rows: int = 0
    elapsed_s: float = 0.0
    rows_s: float = 0.0
    video_s: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    trimmed: dict[str, int] = field(default_factory=dict)
    known: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What a person wants to know of it."""
        rate = self.rows / max(self.elapsed_s, 1e-9)
        return [
            f'{self.episodes} episodes, {self.rows} rows, {rate:.0f} rows/s -> {self.output}',
            *([f'{len(self.known)} are in the dataset already'] if self.known else []),
            *(f'left out, its verdict is fail: {item}: {reason}' for item, reason in self.failed.items()),
            *(f'left out: {reason}' for reason in self.skipped.values()),
            *(
                [f'{sum(self.trimmed.values())} idle rows left out of {len(self.trimmed)} episodes']
                if self.trimmed
                else []
            ),
        ]


def convert(
    sources: list[Path] | list[str],
    output: Path,
    embodiment: Embodiment,
    options: ConversionOptions | None = None,
    progress: Callable[[Iterable[ConversionResult], int], Iterable[ConversionResult]] = lambda parts, count: (
        parts
    ),
) -> ConversionReport:
    """Converts everything below `sources` to a dataset at `output`.

    Bags of our recorder are copied, everything else is sampled and encoded. Raises GrootRosError, and leaves nothing behind, where
    an item is unfit, unless such items are to be left out. Interrupted, it keeps what is done in a hidden folder beside `output`,
    and goes on from there when it is called again. `progress` may wrap the parts as they come.
    """
    options, started_s = options or ConversionOptions(), time.perf_counter()
    check_options(embodiment, options)
    items = find_recordings([str(source) for source in sources])
    writer = make_writer(output, embodiment, options)
    report = ConversionReport(output)
    try:
        jobs = _jobs(items, writer, embodiment, options, report)
        with converted(jobs, options.workers, options.executor) as parts:
            for job, part in zip(jobs, progress(parts, len(jobs)), strict=True):
                _take(job, part, writer, report)
        _check_result(writer, report, options.skip_bad)
        writer.finish()
    except ConversionInterrupted:
        raise
    except Exception:
        writer.abandon()
        raise
    report.elapsed_s = time.perf_counter() - started_s
    return report


def check_options(embodiment: Embodiment, options: ConversionOptions) -> None:
    """Raises GrootRosError for a format or codec that does not exist, and for cameras that GR00T cannot stack."""
    for what, value, known in (('format', options.format, FORMATS), ('codec', options.codec, CODECS)):
        if value not in known:
            raise GrootRosError(f'There is no {what} {value!r} here: choose one of {", ".join(known)}.')
    if options.gr00t_version and options.gr00t_version not in GR00T_VERSIONS:
        raise GrootRosError(
            f'There is no GR00T {options.gr00t_version!r} here: choose one of {", ".join(GR00T_VERSIONS)}.'
        )
    ratios = {camera.name: camera.width / camera.height for camera in embodiment.cameras}
    if max(ratios.values()) / min(ratios.values()) > 1 + _ASPECT_TOLERANCE:
        sizes = ', '.join(f'{camera.name} {camera.width}x{camera.height}' for camera in embodiment.cameras)
        raise GrootRosError(
            f'The cameras of the embodiment {embodiment.name} differ in aspect ratio ({sizes}), and GR00T cannot stack such pictures: '
            'give them one width and height, what does not fit gets black bars.'
        )


def make_writer(output: Path, embodiment: Embodiment, options: ConversionOptions) -> DatasetWriter:
    """The writer of the chosen format."""
    return FORMATS[options.format](
        output, embodiment, options.codec, options.existing, options.gr00t_version, options.horizon
    )


def recipe_of(embodiment: Embodiment, options: ConversionOptions) -> ConversionSettings:
    """What of the options matters to a single item."""
    return ConversionSettings(
        embodiment.text(), options.horizon, options.task, options.codec, options.idle_s, options.ranges
    )


def _jobs(
    items: list[Recording],
    writer: DatasetWriter,
    embodiment: Embodiment,
    options: ConversionOptions,
    report: ConversionReport,
) -> list[ConversionJob]:
    recipe = recipe_of(embodiment, options)
    jobs = []
    for item in items:
        if reasons := [] if options.keep_failed else verdict_failures(item):
            report.failed[str(item)] = '; '.join(reasons)
        elif writer.known and _fingerprint(item, embodiment) in writer.known:
            report.known.append(str(item))
        else:
            digest = hashlib.sha256(str(item).encode()).hexdigest()[:8]
            jobs.append(
                ConversionJob(item, writer.parts / f'{_UNSAFE.sub("_", item.name)[:60]}_{digest}', recipe)
            )
    return jobs


def _fingerprint(item: Recording, embodiment: Embodiment) -> str:
    """Of an item that may be unfit, which its job will tell."""
    try:
        with fetched(item) as path:
            return fingerprint(item, path, embodiment)
    except GrootRosError:
        return ''


def _take(
    job: ConversionJob, part: ConversionResult, writer: DatasetWriter, report: ConversionReport
) -> None:
    if part.problem:
        report.skipped[str(job.item)] = part.problem
        return
    for episode in read_episodes(part, writer.embodiment):
        writer.add_episode(episode)
    if part.trimmed:
        report.trimmed[str(job.item)] = part.trimmed
    report.episodes += part.episodes
    report.rows += part.rows
    report.rows_s += part.rows_s
    report.video_s += part.video_s


def _check_result(writer: DatasetWriter, report: ConversionReport, skip_bad: bool) -> None:
    if report.skipped and not (skip_bad and writer.episodes):
        raise GrootRosError(_refusal(report.skipped, skip_bad))
    if report.failed and not writer.episodes:
        reason = next(iter(report.failed.values()))
        raise GrootRosError(
            f'The verdict of every episode is fail ({reason}): --keep-failed takes them nevertheless.'
        )


def _refusal(skipped: dict[str, str], skip_bad: bool) -> str:
    reasons = '\n  '.join(skipped.values())
    if len(skipped) == 1:
        return reasons
    hint = 'nothing is fit' if skip_bad else 'nothing was written; --skip-bad converts the others'
    return f'{len(skipped)} items cannot be converted ({hint}):\n  {reasons}'
