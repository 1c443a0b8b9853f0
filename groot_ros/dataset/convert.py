"""Bags to a GR00T dataset: rows sampled at the recorder's ticks, video packets copied without decoding."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from groot_ros.bags.reader import EpisodeBag, find_bags
from groot_ros.bags.video import write_mp4
from groot_ros.dataset.lerobot import DatasetWriter, Provenance
from groot_ros.dataset.stretches import Stretch, stretches_of
from groot_ros.embodiment import Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.resources import VERDICT_FILE
from groot_ros.rows import TickSample, rows_of

HORIZON = 16
_RATE_TOLERANCE = 0.02


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


@dataclass
class ConversionOptions:
    """What to take.

    `horizon` is the shortest episode worth keeping, in rows; `skip_bad` leaves unfit bags out, `keep_failed` takes those whose
    verdict is fail; `task` is for bags that do not say theirs.
    """

    horizon: int = HORIZON
    skip_bad: bool = False
    keep_failed: bool = False
    task: str = ''


def convert(
    sources: list[Path],
    output: Path,
    embodiment: Embodiment,
    options: ConversionOptions | None = None,
    progress: Callable[[list[Path]], Iterator[Path]] = iter,
) -> ConversionReport:
    """Converts every bag below `sources` to a dataset at `output`.

    Bags of our recorder are copied, others and those of another rate are sampled and encoded. Raises GrootRosError, and leaves
    nothing behind, where a bag is unfit, unless such bags are to be left out. `progress` may wrap the list of bags, as tqdm does.
    """
    options = options or ConversionOptions()
    started_s = time.perf_counter()
    bags = find_bags(sources)
    writer = DatasetWriter(output, embodiment)
    report = ConversionReport(output)
    try:
        for bag in progress(bags):
            reasons = [] if options.keep_failed else failed_reasons(bag)
            if reasons:
                report.failed[str(bag)] = '; '.join(reasons)
                continue
            try:
                _convert_bag(bag, writer, options, report)
            except GrootRosError as error:
                report.skipped[str(bag)] = str(error)
        if report.skipped and not (options.skip_bad and writer.episodes):
            raise GrootRosError(_refusal(report.skipped, options.skip_bad))
        if report.failed and not writer.episodes:
            raise GrootRosError(
                f'The verdict of every episode is fail ({next(iter(report.failed.values()))}): --keep-failed takes them nevertheless.'
            )
        writer.finish()
    except BaseException:
        writer.abandon()
        raise
    report.elapsed_s = time.perf_counter() - started_s
    return report


def _convert_bag(path: Path, writer: DatasetWriter, options: ConversionOptions, report: ConversionReport) -> None:
    with EpisodeBag(path) as bag, TemporaryDirectory(dir=writer.folder) as folder:
        started_s = time.perf_counter()
        stretches = stretches_of(bag, writer.embodiment, Path(folder))
        longest = max(len(stretch.samples) for stretch in stretches)
        if longest <= options.horizon:
            raise GrootRosError(
                f'The episode {path} has {max(longest - 1, 0)} rows, fewer than the horizon of {options.horizon}, '
                'so GR00T would take no sample from it: record it longer, or leave it out with --skip-bad.'
            )
        report.rows_s += time.perf_counter() - started_s
        for number, stretch in enumerate(stretches):
            if len(stretch.samples) > options.horizon:
                name = path.name if len(stretches) == 1 else f'{path.name} segment {number}'
                _convert_stretch(bag, stretch, name, writer, options, report)


def _convert_stretch(
    bag: EpisodeBag, stretch: Stretch, name: str, writer: DatasetWriter, options: ConversionOptions, report: ConversionReport
) -> None:
    embodiment, started_s = writer.embodiment, time.perf_counter()
    _check_rate(bag.path, stretch.samples, embodiment)
    rows = rows_of(embodiment, stretch.samples)
    read_s = time.perf_counter()
    for camera in embodiment.cameras:
        units = islice(stretch.access_units(camera), len(rows.states))
        frames = write_mp4(units, writer.video_path(camera.feature), embodiment.fps)
        if frames != len(rows.states):
            raise GrootRosError(f'The bag {bag.path} has {frames} frames of {camera.name} for {len(rows.states)} rows: its recording is damaged.')
    notes = {'filled': bag.info.get('counts', {}).get('filled'), 'operator': bag.info.get('operator', ''), 'verdict': verdict_of(bag.path)}
    provenance = Provenance(name, _sha256(bag.path), _outcome(bag), notes)
    writer.add_episode(rows, str(bag.info.get('task', '') or options.task), provenance)
    report.rows_s += read_s - started_s
    report.video_s += time.perf_counter() - read_s
    report.rows += len(rows.states)
    report.episodes += 1


def verdict_of(bag: Path) -> str:
    """pass, warn or fail as verdict.json beside the bag says, '' where there is none."""
    return str(_verdict(bag).get('verdict', ''))


def failed_reasons(bag: Path) -> list[str]:
    """Why the verdict of a bag is fail; empty where it is not."""
    verdict = _verdict(bag)
    failed = [finding['text'] for finding in verdict.get('findings', []) if finding['level'] == 'fail']
    reasons = [*filter(None, [verdict.get('failure', '')]), *failed]
    return (reasons or ['its verdict is fail']) if verdict.get('verdict') == 'fail' else []


def _verdict(bag: Path) -> dict[str, Any]:
    try:
        return json.loads((bag / VERDICT_FILE).read_text())
    except (OSError, ValueError):
        return {}


def _outcome(bag: EpisodeBag) -> str:
    """What the recorder noted; a bag of another recorder was chosen by somebody who knows it."""
    return str(bag.info.get('outcome', 'unknown')) if bag.info else 'success'


def _check_rate(path: Path, samples: list[TickSample], embodiment: Embodiment) -> None:
    """By the ticks themselves, so that a recovered bag is checked too."""
    measured = (len(samples) - 1) * 1e9 / (samples[-1].tick_ns - samples[0].tick_ns)
    if abs(measured / embodiment.fps - 1) > _RATE_TOLERANCE:
        raise GrootRosError(
            f'The bag {path} was recorded at {measured:.2f} frames/s but the embodiment {embodiment.name} says {embodiment.fps:g}: '
            'set fps in the embodiment, or the camera, to the same rate.'
        )


def _refusal(skipped: dict[str, str], skip_bad: bool) -> str:
    reasons = '\n  '.join(skipped.values())
    if len(skipped) == 1:
        return reasons
    hint = 'no bag is fit' if skip_bad else 'nothing was written; --skip-bad converts the others'
    return f'{len(skipped)} bags cannot be converted ({hint}):\n  {reasons}'


def _sha256(bag: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(bag.glob('*.mcap')):
        with file.open('rb') as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
