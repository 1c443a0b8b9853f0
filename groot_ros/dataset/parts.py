"""One bag converted on its own: its episodes wait in a folder for their numbers, so that workers need not know of each other.

A part that is done says so in its last file, and is taken as it is when an interrupted conversion runs again.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from groot_ros import __version__
from groot_ros.bags.reader import EpisodeBag
from groot_ros.bags.video import write_mp4
from groot_ros.dataset.statistics import picture_statistics
from groot_ros.dataset.stretches import Stretch, stretches_of
from groot_ros.embodiment import Embodiment, parse_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.resources import VERDICT_FILE
from groot_ros.rows import Rows, TickSample, rows_of

_DONE = 'part.json'
_RATE_TOLERANCE = 0.02


@dataclass
class Provenance:
    """Where an episode came from; kept in meta/conversion.json."""

    source: str
    sha256: str
    outcome: str
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Job:
    """A bag to convert into a folder; the embodiment as text, since a job crosses to another process."""

    bag: Path
    folder: Path
    embodiment: str
    horizon: int
    task: str

    @property
    def settings(self) -> str:
        """Equal only where bags are converted in the same way."""
        return hashlib.sha256(json.dumps([self.embodiment, self.horizon, self.task, __version__]).encode()).hexdigest()


@dataclass
class Part:
    """What came of a bag: how many episodes and rows, or why there are none; times in s."""

    folder: Path
    episodes: int = 0
    rows: int = 0
    rows_s: float = 0.0
    video_s: float = 0.0
    problem: str = ''


@dataclass
class PartEpisode:
    """An episode without a number: rows, task, where it came from, and for each camera's feature a video and its statistics."""

    rows: Rows
    task: str
    provenance: Provenance
    videos: dict[str, Path]
    pictures: dict[str, Any]


def convert_bag(job: Job) -> Part:
    """Converts one bag, or finds that it is done. An unfit bag is told in `problem`; nothing else is caught."""
    try:
        sha256 = _sha256(job.bag)
        key = f'{sha256}/{job.settings}'
        if (done := _done(job.folder, key)) is not None:
            return done
        shutil.rmtree(job.folder, ignore_errors=True)
        job.folder.mkdir(parents=True)
        part = _convert(job, parse_embodiment(job.embodiment, 'of the conversion'), sha256)
    except GrootRosError as error:
        return Part(job.folder, problem=str(error))
    (job.folder / _DONE).write_text(json.dumps({**asdict(part), 'folder': '', 'key': key}))
    return part


def episodes_of(part: Part, embodiment: Embodiment) -> Iterator[PartEpisode]:
    """The episodes of a part, in their order."""
    for number in range(part.episodes):
        arrays = np.load(part.folder / f'{number}.npz')
        facts = json.loads((part.folder / f'{number}.json').read_text())
        videos = {camera.feature: part.folder / _video_name(number, camera.name) for camera in embodiment.cameras}
        yield PartEpisode(Rows(**arrays), facts['task'], Provenance(**facts['provenance']), videos, facts['pictures'])


def failed_reasons(bag: Path) -> list[str]:
    """Why the verdict beside a bag is fail; empty where it is not, or where there is none."""
    verdict = _verdict(bag)
    failed = [finding['text'] for finding in verdict.get('findings', []) if finding['level'] == 'fail']
    reasons = [*filter(None, [verdict.get('failure', '')]), *failed]
    return (reasons or ['its verdict is fail']) if verdict.get('verdict') == 'fail' else []


def _convert(job: Job, embodiment: Embodiment, sha256: str) -> Part:
    part, started_s = Part(job.folder), time.perf_counter()
    with EpisodeBag(job.bag) as bag:
        stretches = stretches_of(bag, embodiment, job.folder)
        longest = max(len(stretch.samples) for stretch in stretches)
        if longest <= job.horizon:
            raise GrootRosError(
                f'The episode {job.bag} has {max(longest - 1, 0)} rows, fewer than the horizon of {job.horizon}, '
                'so GR00T would take no sample from it: record it longer, or leave it out with --skip-bad.'
            )
        part.rows_s += time.perf_counter() - started_s
        for number, stretch in enumerate(stretches):
            if len(stretch.samples) > job.horizon:
                name = job.bag.name if len(stretches) == 1 else f'{job.bag.name} segment {number}'
                _convert_stretch(bag, stretch, name, sha256, job, embodiment, part)
    return part


def _convert_stretch(bag: EpisodeBag, stretch: Stretch, name: str, sha256: str, job: Job, embodiment: Embodiment, part: Part) -> None:
    started_s = time.perf_counter()
    _check_rate(bag.path, stretch.samples, embodiment)
    rows = rows_of(embodiment, stretch.samples)
    read_s, pictures = time.perf_counter(), {}
    for camera in embodiment.cameras:
        units, video = islice(stretch.access_units(camera), len(rows.states)), job.folder / _video_name(part.episodes, camera.name)
        frames = write_mp4(units, video, embodiment.fps)
        if frames != len(rows.states):
            raise GrootRosError(f'The bag {bag.path} has {frames} frames of {camera.name} for {len(rows.states)} rows: its recording is damaged.')
        pictures[camera.feature] = picture_statistics(video)
    verdict = _verdict(bag.path).get('verdict', '')
    notes = {'filled': bag.info.get('counts', {}).get('filled'), 'operator': bag.info.get('operator', ''), 'verdict': verdict}
    provenance = asdict(Provenance(name, sha256, _outcome(bag), notes))
    facts = {'task': str(bag.info.get('task', '') or job.task), 'provenance': provenance, 'pictures': pictures}
    np.savez(job.folder / f'{part.episodes}.npz', **vars(rows))
    (job.folder / f'{part.episodes}.json').write_text(json.dumps(facts))
    part.rows_s += read_s - started_s
    part.video_s += time.perf_counter() - read_s
    part.rows += len(rows.states)
    part.episodes += 1


def _done(folder: Path, key: str) -> Part | None:
    try:
        known = json.loads((folder / _DONE).read_text())
        return Part(**{**known, 'folder': folder}) if known.pop('key') == key else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _check_rate(path: Path, samples: list[TickSample], embodiment: Embodiment) -> None:
    """By the ticks themselves, so that a recovered bag is checked too."""
    measured = (len(samples) - 1) * 1e9 / (samples[-1].tick_ns - samples[0].tick_ns)
    if abs(measured / embodiment.fps - 1) > _RATE_TOLERANCE:
        raise GrootRosError(
            f'The bag {path} was recorded at {measured:.2f} frames/s but the embodiment {embodiment.name} says {embodiment.fps:g}: '
            'set fps in the embodiment, or the camera, to the same rate.'
        )


def _outcome(bag: EpisodeBag) -> str:
    """What the recorder noted; a bag of another recorder was chosen by somebody who knows it."""
    return str(bag.info.get('outcome', 'unknown')) if bag.info else 'success'


def _verdict(bag: Path) -> dict[str, Any]:
    try:
        return json.loads((bag / VERDICT_FILE).read_text())
    except (OSError, ValueError):
        return {}


def _video_name(number: int, camera: str) -> str:
    return f'{number}_{camera}.mp4'


def _sha256(bag: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted([*bag.glob('*.mcap'), *bag.glob('*.db3')]):
        with file.open('rb') as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
