# SPDX-License-Identifier: Apache-2.0
"""A dataset of scripted demonstrations: made in parallel, each from a seed of its own, by the converter."""

import contextlib
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groot_ros import __version__
from groot_ros.dataset.convert import ConversionReport, Progress, check_options, make_writer
from groot_ros.dataset.convert_recording import ConversionJob, ConversionResult, convert_as
from groot_ros.dataset.executors import ConversionInterrupted, run_jobs
from groot_ros.dataset.options import ConversionOptions
from groot_ros.dataset.output_lock import lock_output
from groot_ros.dataset.sources.recording import Recording, RecordingFormat
from groot_ros.dataset.writers.dataset_writer import DatasetWriter
from groot_ros.embodiment import Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.sim.offline.cell import OfflineCell
from groot_ros.sim.offline.demonstration import Demonstrator, draw_scenario
from groot_ros.sim.offline.recording import OfflineRecording, OfflineSegment
from groot_ros.sim.offline.topics import check_topics
from groot_ros.sim.rendering import SceneRenderer
from groot_ros.sim.scripted_operator import TASK

_ATTEMPTS = 8
# Keeps the random numbers of demonstrations apart from those of evaluations with the same seed.
_STREAM = 1


@dataclass(frozen=True)
class CollectSettings:
    """How many demonstrations to make, from which seed, and which share of them begins disturbed, 0 to 1."""

    episodes: int
    seed: int = 0
    disturbed_share: float = 0.5


def collect(
    settings: CollectSettings,
    output: Path,
    embodiment: Embodiment,
    options: ConversionOptions,
    progress: Progress | None = None,
) -> ConversionReport:
    """Writes a dataset of successful demonstrations. It does not depend on the number of workers.

    An interrupted collection keeps what is done; the same call continues there. Raises GrootRosError for an
    embodiment that the simulated cell cannot serve, and for an `output` that exists.
    """
    check_options(embodiment, options)
    check_topics(embodiment)
    report = ConversionReport(output)
    with lock_output(output):
        writer = make_writer(output, embodiment, options)
        try:
            jobs = _jobs(settings, writer, options)
            with run_jobs(make_demonstration, jobs, options.workers, options.executor) as results:
                for result in progress(results, len(jobs)) if progress else results:
                    _add_result(result, writer, report)
            writer.finish()
        except ConversionInterrupted:
            raise
        except Exception:
            writer.abandon()
            raise
    return report


def make_demonstration(job: ConversionJob) -> ConversionResult:
    """Makes the demonstration of a job, or finds that this is done already."""
    return convert_as(_DEMONSTRATIONS, job)


class _Demonstrations(RecordingFormat):
    """Demonstrations as a source of the converter; the entry of a recording has its settings."""

    name = 'simulated'

    def place_of(self, file: Path) -> Path | None:
        """None: no file is a demonstration."""
        return None

    def recordings(self, place: Path) -> list[Recording]:
        """Empty: they are made, and not found."""
        return []

    def fingerprint(self, recording: Recording, path: Path, embodiment: Embodiment) -> str:
        """Returns a hash of what a demonstration is made from."""
        text = f'{recording} {embodiment.text()} {__version__}'
        return hashlib.sha256(text.encode()).hexdigest()

    @contextlib.contextmanager
    def segments(
        self,
        recording: Recording,
        path: Path,
        embodiment: Embodiment,
        options: ConversionOptions,
        folder: Path,
    ) -> Iterator[list[OfflineSegment]]:
        """Makes the first attempt that succeeds."""
        seed, number, share = _parse_entry(recording.entry)
        for attempt in range(_ATTEMPTS):
            rng = np.random.default_rng([_STREAM, seed, number, attempt])
            segment = _attempt(rng, share, embodiment, options, folder / f'attempt_{attempt}')
            if segment is not None:
                segment.notes['attempts'] = attempt + 1
                yield [segment]
                return
        raise GrootRosError(
            f'Demonstration {number} of seed {seed} failed {_ATTEMPTS} times in a row: choose another --seed.'
        )


_DEMONSTRATIONS = _Demonstrations()


@functools.cache
def _cell() -> OfflineCell:
    """One cell for each process, since MuJoCo compiles its model when it is made."""
    return OfflineCell()


@functools.cache
def _renderer() -> SceneRenderer:
    return SceneRenderer()


def _attempt(
    rng: np.random.Generator, share: float, embodiment: Embodiment, options: ConversionOptions, folder: Path
) -> OfflineSegment | None:
    """One demonstration; None, and nothing in `folder`, if the cube is not in the bin at its end."""
    cell = _cell()
    demonstrator = Demonstrator(cell)
    scenario = draw_scenario(rng, share)
    demonstrator.prepare(scenario)
    recording = OfflineRecording(cell, embodiment, _renderer(), folder, options.codec)
    try:
        recording.step()
        succeeded = demonstrator.demonstrate(recording.step)
    except BaseException:
        recording.discard()
        raise
    if not succeeded or cell.refusals:
        recording.discard()
        return None
    return recording.finish(TASK, {'disturbed': scenario.disturbed_at is not None})


def _jobs(
    settings: CollectSettings, writer: DatasetWriter, options: ConversionOptions
) -> list[ConversionJob]:
    """The demonstrations that the dataset does not have yet."""
    jobs = []
    for number in range(settings.episodes):
        entry = f'seed {settings.seed} episode {number} disturbed {settings.disturbed_share:g}'
        recording = Recording(_DEMONSTRATIONS.name, 'demonstration', entry)
        if _DEMONSTRATIONS.fingerprint(recording, Path(), writer.embodiment) not in writer.known:
            folder = writer.parts / entry.replace(' ', '_')
            jobs.append(ConversionJob(recording, folder, writer.embodiment, options))
    return jobs


def _parse_entry(entry: str) -> tuple[int, int, float]:
    """Seed, number and disturbed share of a recording's entry."""
    words = entry.split()
    return int(words[1]), int(words[3]), float(words[5])


def _add_result(result: ConversionResult, writer: DatasetWriter, report: ConversionReport) -> None:
    if result.problem:
        raise GrootRosError(result.problem)
    for episode in result.episodes:
        writer.add_episode(episode)
    report.episodes += len(result.episodes)
    report.rows += result.rows
