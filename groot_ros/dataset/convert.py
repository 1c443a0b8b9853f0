# SPDX-License-Identifier: Apache-2.0
"""Recordings to a GR00T dataset: each recording on its own, by one or more workers, then numbered."""

import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from groot_ros.dataset.convert_recording import ConversionJob, ConversionResult, convert_recording
from groot_ros.dataset.executors import ConversionInterrupted, run_jobs
from groot_ros.dataset.modality_config import GR00T_VERSIONS
from groot_ros.dataset.options import ConversionOptions
from groot_ros.dataset.output_lock import lock_output
from groot_ros.dataset.selection import find_verdict
from groot_ros.dataset.sources.discover import FORMATS, find_recordings
from groot_ros.dataset.sources.recording import Recording
from groot_ros.dataset.sources.storage import local_copy
from groot_ros.dataset.writers import WRITERS
from groot_ros.dataset.writers.dataset_writer import DatasetWriter
from groot_ros.embodiment import Embodiment
from groot_ros.errors import GrootRosError, choose
from groot_ros.video.mp4 import CODECS

_ASPECT_TOLERANCE = 0.01
_UNSAFE = re.compile(r'[^A-Za-z0-9._-]+')

Progress = Callable[[Iterable[ConversionResult], int], Iterable[ConversionResult]]


@dataclass
class ConversionReport:
    """What a conversion has done; times in s.

    `skipped` maps recordings to why they cannot be converted, `failed` to the reasons of their verdicts,
    `trimmed` to the number of idle rows left out; `known` are those that the dataset had already. `left_out`
    counts recordings by an outcome that was not wanted; `judged_again` says whose verdict was unreadable.
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
    left_out: Counter[str] = field(default_factory=Counter)
    judged_again: list[str] = field(default_factory=list)

    def summary_lines(self) -> list[str]:
        """Returns the report as lines for people."""
        rate = self.rows / max(self.elapsed_s, 1e-9)
        lines = [f'{self.episodes} episodes, {self.rows} rows, {rate:.0f} rows/s -> {self.output}']
        if self.known:
            lines.append(f'{len(self.known)} are in the dataset already')
        lines += self.judged_again
        if self.left_out:
            lines.append(f'left out: {self.outcomes_left_out()}')
        for recording, reason in self.failed.items():
            lines.append(f'left out, its verdict is fail: {recording}: {reason}')
        lines += [f'left out: {reason}' for reason in self.skipped.values()]
        if self.trimmed:
            rows = sum(self.trimmed.values())
            lines.append(f'{rows} idle rows left out of {len(self.trimmed)} episodes')
        return lines

    def outcomes_left_out(self) -> str:
        """Returns how many recordings were left out by their outcome, such as "2 failure, 1 interrupted"."""
        return ', '.join(f'{count} {outcome}' for outcome, count in sorted(self.left_out.items()))


def convert(
    sources: list[Path] | list[str],
    output: Path,
    embodiment: Embodiment,
    options: ConversionOptions | None = None,
    progress: Progress | None = None,
) -> ConversionReport:
    """Converts everything below `sources` to a dataset at `output`.

    Video of our recorder is copied, everything else is sampled and encoded. Raises GrootRosError, and leaves
    nothing half-written, for a recording that cannot be converted, unless such recordings are to be left out.
    An interrupted conversion keeps what is done in a hidden folder next to `output`; the same call continues
    there. Another conversion to the same `output` is refused meanwhile. `progress` may wrap the results as
    they come.
    """
    options = options or ConversionOptions()
    started_s = time.perf_counter()
    check_options(embodiment, options)
    report = ConversionReport(output)
    unreadable = report.skipped if options.skip_bad else None
    recordings = find_recordings([str(source) for source in sources], unreadable)
    with lock_output(output):
        _convert_recordings(recordings, report, embodiment, options, progress)
    report.elapsed_s = time.perf_counter() - started_s
    return report


def _convert_recordings(
    recordings: list[Recording],
    report: ConversionReport,
    embodiment: Embodiment,
    options: ConversionOptions,
    progress: Progress | None,
) -> None:
    writer = make_writer(report.output, embodiment, options)
    try:
        jobs = _make_jobs(recordings, writer, options, report)
        with run_jobs(convert_recording, jobs, options.workers, options.executor) as results:
            shown = progress(results, len(jobs)) if progress else results
            for job, result in zip(jobs, shown, strict=True):
                _add_result(job, result, writer, report)
        _check_result(writer, report, options.skip_bad)
        writer.finish()
    except ConversionInterrupted:
        raise
    except Exception:
        writer.abandon()
        raise


def check_options(embodiment: Embodiment, options: ConversionOptions) -> None:
    """Raises GrootRosError for an unknown format, codec or GR00T version, and for unlike cameras."""
    choose('dataset format', options.format, WRITERS)
    choose('video codec', options.codec, CODECS)
    if options.gr00t_version:
        choose('GR00T version', options.gr00t_version, GR00T_VERSIONS)
    ratios = [camera.width / camera.height for camera in embodiment.cameras]
    if max(ratios) / min(ratios) > 1 + _ASPECT_TOLERANCE:
        sizes = ', '.join(f'{camera.name} {camera.width}x{camera.height}' for camera in embodiment.cameras)
        raise GrootRosError(
            f'The cameras of the embodiment {embodiment.name} differ in aspect ratio ({sizes}), and GR00T '
            'cannot stack such images: give them one width and height in the embodiment; images of another '
            'ratio get black bars.'
        )


def make_writer(output: Path, embodiment: Embodiment, options: ConversionOptions) -> DatasetWriter:
    """Makes the writer of the chosen format.

    Raises GrootRosError if `output` exists and is neither to be extended nor replaced.
    """
    return WRITERS[options.format](
        output, embodiment, options.codec, options.existing, options.gr00t_version, options.horizon
    )


def _make_jobs(
    recordings: list[Recording], writer: DatasetWriter, options: ConversionOptions, report: ConversionReport
) -> list[ConversionJob]:
    """The recordings to convert; those with a failed verdict and those in the dataset are only noted."""
    jobs = []
    for recording in recordings:
        verdict, judged_again = find_verdict(recording)
        if judged_again:
            report.judged_again.append(judged_again)
        if verdict is not None and verdict.failures and not options.keep_failed:
            report.failed[str(recording)] = '; '.join(verdict.failures)
        elif writer.known and _fingerprint(recording, writer.embodiment) in writer.known:
            report.known.append(str(recording))
        else:
            folder = writer.parts / _folder_name(recording)
            level = verdict.verdict if verdict is not None else ''
            jobs.append(ConversionJob(recording, folder, writer.embodiment, options, level))
    return jobs


def _folder_name(recording: Recording) -> str:
    digest = hashlib.sha256(str(recording).encode()).hexdigest()[:8]
    return f'{_UNSAFE.sub("_", recording.name)[:60]}_{digest}'


def _fingerprint(recording: Recording, embodiment: Embodiment) -> str:
    """The fingerprint, empty for an unreadable recording, which its job will report."""
    try:
        with local_copy(recording) as path:
            return FORMATS[recording.format].fingerprint(recording, path, embodiment)
    except Exception:  # each library has its own for a damaged file
        return ''


def _add_result(
    job: ConversionJob, result: ConversionResult, writer: DatasetWriter, report: ConversionReport
) -> None:
    if result.problem:
        report.skipped[str(job.recording)] = result.problem
        return
    if result.left_out:
        report.left_out[result.left_out] += 1
    for episode in result.episodes:
        writer.add_episode(episode)
    if result.trimmed:
        report.trimmed[str(job.recording)] = result.trimmed
    report.episodes += len(result.episodes)
    report.rows += result.rows
    report.rows_s += result.rows_s
    report.video_s += result.video_s


def _check_result(writer: DatasetWriter, report: ConversionReport, skip_bad: bool) -> None:
    if report.skipped and not (skip_bad and writer.episodes):
        raise GrootRosError(_refusal(report.skipped, skip_bad))
    if report.left_out and not writer.episodes:
        raise GrootRosError(
            f'No episode is left (left out by outcome: {report.outcomes_left_out()}): '
            f'--outcomes {",".join(["success", *sorted(report.left_out)])} takes them too.'
        )
    if report.failed and not writer.episodes:
        reason = next(iter(report.failed.values()))
        raise GrootRosError(
            f'The verdict of every episode is fail ({reason}): --keep-failed converts them nevertheless.'
        )


def _refusal(skipped: dict[str, str], skip_bad: bool) -> str:
    reasons = '\n  '.join(skipped.values())
    if len(skipped) == 1:
        return reasons
    hint = 'none can be' if skip_bad else 'nothing was written; --skip-bad converts the others'
    return f'{len(skipped)} recordings cannot be converted ({hint}):\n  {reasons}'
