# SPDX-License-Identifier: Apache-2.0
"""One item converted on its own: its episodes wait in a folder for their numbers, so that workers need not know of each other.

A part that is done says so in its last file, and is taken as it is when an interrupted conversion runs again.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from groot_ros import __version__
from groot_ros.bags.reader import EpisodeBag
from groot_ros.dataset.sources.bag import bag_stretches
from groot_ros.dataset.sources.discover import Recording, fetched, read_sidecar
from groot_ros.dataset.sources.segment import Segment
from groot_ros.dataset.sources.table import open_table, table_stretch
from groot_ros.dataset.sources.time_ranges import RangeEntry
from groot_ros.dataset.trimming import non_idle_range
from groot_ros.dataset.writers.statistics import image_stats
from groot_ros.embodiment import OUTCOME, REWARD, Embodiment, parse_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.resources import VERDICT_FILE
from groot_ros.sampling.rows import RowTable

_DONE = 'part.json'
_ARRAYS = ('ticks_ns', 'states', 'actions', 'ages_s')


@dataclass
class Provenance:
    """Where an episode came from; kept in meta/conversion.json."""

    source: str
    sha256: str
    outcome: str
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ConversionSettings:
    """How every item of a conversion is converted; the embodiment as text, since it crosses to other processes.

    `horizon` is the shortest episode worth keeping, in rows; `idle_s` what is left of idle beginnings and ends, None for all of it.
    """

    embodiment: str
    horizon: int
    task: str = ''
    codec: str = 'h264'
    idle_s: float | None = None
    ranges: tuple[RangeEntry, ...] = ()

    @property
    def key(self) -> str:
        """Equal only where items are converted in the same way."""
        return hashlib.sha256(json.dumps([asdict(self), __version__]).encode()).hexdigest()


@dataclass(frozen=True)
class ConversionJob:
    """An item to convert into a folder."""

    item: Recording
    folder: Path
    recipe: ConversionSettings


@dataclass
class ConversionResult:
    """What came of an item: how many episodes and rows, or why there are none; times in s, `trimmed` counts rows."""

    folder: Path
    episodes: int = 0
    rows: int = 0
    trimmed: int = 0
    rows_s: float = 0.0
    video_s: float = 0.0
    problem: str = ''


@dataclass
class ConvertedEpisode:
    """An episode without a number: rows, task, where it came from, and for each camera's feature a video and its statistics."""

    rows: RowTable
    task: str
    provenance: Provenance
    videos: dict[str, Path]
    pictures: dict[str, Any]


def convert_recording(job: ConversionJob) -> ConversionResult:
    """Converts one item, or finds that it is done. An unfit item is told in `problem`; nothing else is caught."""
    embodiment = parse_embodiment(job.recipe.embodiment, 'of the conversion')
    try:
        with fetched(job.item) as path, ThreadPoolExecutor(1) as beside:
            # Hashing takes as long as reading: it is done meanwhile.
            sha256 = beside.submit(fingerprint, job.item, path, embodiment)
            if (job.folder / _DONE).is_file() and (
                done := _done(job.folder, f'{sha256.result()}/{job.recipe.key}')
            ) is not None:
                return done
            shutil.rmtree(job.folder, ignore_errors=True)
            job.folder.mkdir(parents=True)
            part, key = _convert(job, path, embodiment, sha256), f'{sha256.result()}/{job.recipe.key}'
    except GrootRosError as error:
        return ConversionResult(job.folder, problem=str(error))
    (job.folder / _DONE).write_text(json.dumps({**asdict(part), 'folder': '', 'key': key}))
    return part


def fingerprint(item: Recording, path: Path, embodiment: Embodiment) -> str:
    """SHA-256 of what an item at `path` holds. Raises GrootRosError where it cannot be read."""
    if item.kind != 'bag':
        with open_table(item, path, embodiment) as table:
            return table.fingerprint()
    digest = hashlib.sha256()
    for file in sorted([*path.glob('*.mcap'), *path.glob('*.db3')]):
        with file.open('rb') as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def read_episodes(part: ConversionResult, embodiment: Embodiment) -> Iterator[ConvertedEpisode]:
    """The episodes of a part, in their order."""
    for number in range(part.episodes):
        with np.load(part.folder / f'{number}.npz') as file:
            arrays = dict(file)
        rows = RowTable(*(arrays.pop(name) for name in _ARRAYS), more=arrays)
        facts = json.loads((part.folder / f'{number}.json').read_text())
        videos = {
            camera.feature: part.folder / _video_name(number, camera.name) for camera in embodiment.cameras
        }
        yield ConvertedEpisode(
            rows, facts['task'], Provenance(**facts['provenance']), videos, facts['pictures']
        )


def verdict_failures(item: Recording) -> list[str]:
    """Why the verdict beside a bag is fail; empty where it is not, or where there is none."""
    verdict = _verdict(item)
    failed = [finding['text'] for finding in verdict.get('findings', []) if finding['level'] == 'fail']
    reasons = [*filter(None, [verdict.get('failure', '')]), *failed]
    return (reasons or ['its verdict is fail']) if verdict.get('verdict') == 'fail' else []


@contextmanager
def _stretches(job: ConversionJob, path: Path, embodiment: Embodiment) -> Iterator[list[Segment]]:
    if job.item.kind != 'bag':
        with open_table(job.item, path, embodiment) as table:
            yield [table_stretch(table, embodiment, job.recipe.codec)]
        return
    with EpisodeBag(path) as bag:
        ranges = [entry.in_bag(bag) for entry in job.recipe.ranges if entry.bag == job.item.name]
        yield bag_stretches(bag, embodiment, job.folder, job.recipe.codec, ranges)


def _convert(job: ConversionJob, path: Path, embodiment: Embodiment, sha256: Future[str]) -> ConversionResult:
    started_s = time.perf_counter()
    with _stretches(job, path, embodiment) as stretches:
        rows_s = time.perf_counter() - started_s
        part = write_part(
            job.folder,
            job.item.name,
            stretches,
            job.recipe,
            embodiment,
            sha256.result(),
            _verdict(job.item).get('verdict', ''),
        )
    part.rows_s = rows_s
    return part


def write_part(
    folder: Path,
    name: str,
    stretches: list[Segment],
    recipe: ConversionSettings,
    embodiment: Embodiment,
    sha256: str,
    verdict: str = '',
) -> ConversionResult:
    """Writes the episodes of one source into a folder. Raises GrootRosError where none is long enough."""
    part = ConversionResult(folder)
    longest = max((len(stretch.rows) for stretch in stretches), default=0)
    if longest < recipe.horizon:
        raise GrootRosError(
            f'The episode {name} has {longest} rows, fewer than the horizon of {recipe.horizon}, '
            'so GR00T would take no sample from it: record it longer, or leave it out with --skip-bad.'
        )
    for number, stretch in enumerate(stretches):
        first, end = _span(stretch, embodiment, recipe)
        if end - first >= recipe.horizon:
            source = name if len(stretches) == 1 else f'{name} segment {number}'
            provenance = Provenance(
                source, sha256, stretch.facts.outcome, {**stretch.facts.notes, 'verdict': verdict}
            )
            _write(part, stretch, slice(first, end), provenance, recipe, embodiment)
    return part


def _span(stretch: Segment, embodiment: Embodiment, recipe: ConversionSettings) -> tuple[int, int]:
    """The rows to keep. An episode that would become shorter than the horizon keeps all."""
    if recipe.idle_s is None:
        return 0, len(stretch.rows)
    first, end = non_idle_range(embodiment, stretch.rows, recipe.idle_s)
    return (stretch.start_by(first), end) if end - first >= recipe.horizon else (0, len(stretch.rows))


def _write(
    part: ConversionResult,
    stretch: Segment,
    span: slice,
    provenance: Provenance,
    recipe: ConversionSettings,
    embodiment: Embodiment,
) -> None:
    rows, pictures, started_s = stretch.rows[span], {}, time.perf_counter()
    for camera in embodiment.cameras:
        video = part.folder / _video_name(part.episodes, camera.name)
        frames = stretch.write_video(camera, video, span.start, len(rows))
        if frames != len(rows):
            raise GrootRosError(
                f'{provenance.source} has {frames} frames of {camera.name} for {len(rows)} rows: its recording is damaged.'
            )
        pictures[camera.feature] = image_stats(video)
    if embodiment.reward == OUTCOME:
        rows.more[REWARD] = np.zeros(len(rows))
        rows.more[REWARD][-1] = float(provenance.outcome == 'success')
    provenance.notes['trimmed'] = len(stretch.rows) - len(rows)
    facts = {
        'task': stretch.facts.task or recipe.task,
        'provenance': asdict(provenance),
        'pictures': pictures,
    }
    np.savez(
        part.folder / f'{part.episodes}.npz', **{name: getattr(rows, name) for name in _ARRAYS}, **rows.more
    )
    (part.folder / f'{part.episodes}.json').write_text(json.dumps(facts))
    part.video_s += time.perf_counter() - started_s
    part.rows += len(rows)
    part.trimmed += len(stretch.rows) - len(rows)
    part.episodes += 1


def _done(folder: Path, key: str) -> ConversionResult | None:
    try:
        known = json.loads((folder / _DONE).read_text())
        return ConversionResult(**{**known, 'folder': folder}) if known.pop('key') == key else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _verdict(item: Recording) -> dict[str, Any]:
    try:
        return json.loads(read_sidecar(item, VERDICT_FILE)) if item.kind == 'bag' else {}
    except (OSError, ValueError):
        return {}


def _video_name(number: int, camera: str) -> str:
    return f'{number}_{camera}.mp4'
