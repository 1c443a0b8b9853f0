# SPDX-License-Identifier: Apache-2.0
"""One recording converted on its own into a folder, so that workers need not know of each other.

A folder whose recording is done has a last file that says so; it is used as it is when an interrupted
conversion runs again.
"""

import errno
import hashlib
import json
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from groot_ros import __version__
from groot_ros.dataset.options import ConversionOptions
from groot_ros.dataset.sources.discover import FORMATS
from groot_ros.dataset.sources.recording import OutcomeLeftOutError, Recording, RecordingFormat
from groot_ros.dataset.sources.segment import Segment
from groot_ros.dataset.sources.storage import local_copy
from groot_ros.dataset.trimming import non_idle_range
from groot_ros.dataset.writers.converted_episode import ConvertedEpisode
from groot_ros.dataset.writers.statistics import image_stats
from groot_ros.embodiment import OUTCOME, REWARD, Embodiment
from groot_ros.errors import GrootRosError, explain_error

_DONE = 'done.json'
# Of the disk that is written to, and so no fault of the recording.
_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@dataclass(frozen=True)
class ConversionJob:
    """A recording to convert into `folder`, which only this job writes to; `verdict` is noted."""

    recording: Recording
    folder: Path
    embodiment: Embodiment
    options: ConversionOptions
    verdict: str = ''

    @property
    def settings_key(self) -> str:
        """A hash that is equal only for jobs that convert in the same way."""
        options = self.options
        ranges = [asdict(entry) for entry in options.ranges]
        settings = [options.horizon, options.task, options.codec, options.idle_s, ranges, __version__]
        return hashlib.sha256(json.dumps([self.embodiment.text(), settings]).encode()).hexdigest()


@dataclass
class ConversionResult:
    """The episodes of a recording, or why there are none: a `problem`, or its outcome in `left_out`.

    Times are in s, `trimmed` counts rows.
    """

    episodes: list[ConvertedEpisode] = field(default_factory=list)
    trimmed: int = 0
    rows_s: float = 0.0
    video_s: float = 0.0
    problem: str = ''
    left_out: str = ''

    @property
    def rows(self) -> int:
        """The rows of all episodes."""
        return sum(episode.length for episode in self.episodes)


def convert_recording(job: ConversionJob) -> ConversionResult:
    """Converts one recording, or finds that this is done already.

    Whatever is wrong with the recording is reported in `problem`. Raises only the errors of the disk that is
    written to.
    """
    return convert_as(FORMATS[job.recording.format], job)


def convert_as(format: RecordingFormat, job: ConversionJob) -> ConversionResult:
    """As `convert_recording`, for a format that need not be in the table of those that are looked for."""
    try:
        return _convert(format, job)
    except OutcomeLeftOutError as error:
        return ConversionResult(left_out=error.outcome)
    except GrootRosError as error:
        return ConversionResult(problem=str(error))
    except Exception as error:  # each library has its own for a damaged file
        if getattr(error, 'errno', None) in _OUTPUT_ERRORS:
            raise
        return ConversionResult(problem=f'{job.recording} cannot be converted: {explain_error(error)}')


def _convert(format: RecordingFormat, job: ConversionJob) -> ConversionResult:
    with local_copy(job.recording) as path, ThreadPoolExecutor(1) as hasher:
        # Hashing takes as long as reading, so it runs in parallel.
        sha256 = hasher.submit(format.fingerprint, job.recording, path, job.embodiment)
        done = _read_done(job, sha256)
        if done is not None:
            return done
        shutil.rmtree(job.folder, ignore_errors=True)
        job.folder.mkdir(parents=True)
        started_s = time.perf_counter()
        with format.segments(job.recording, path, job.embodiment, job.options, job.folder) as segments:
            rows_s = time.perf_counter() - started_s
            result = write_episodes(job, segments, sha256.result())
    result.rows_s = rows_s
    _write_done(job, result, sha256.result())
    return result


def write_episodes(job: ConversionJob, segments: list[Segment], sha256: str) -> ConversionResult:
    """Writes the segments that are long enough into the job's folder.

    Raises GrootRosError if there is none.
    """
    name = job.recording.name
    horizon = job.options.horizon
    longest = max((len(segment.rows) for segment in segments), default=0)
    if longest < horizon:
        raise GrootRosError(
            f'The episode {name} has {longest} rows, fewer than the horizon of {horizon}, '
            'so GR00T would take no sample from it: record it longer, or leave it out with --skip-bad.'
        )
    result = ConversionResult()
    started_s = time.perf_counter()
    for number, segment in enumerate(segments):
        kept = _kept_rows(segment, job)
        if kept.stop - kept.start >= horizon:
            source = name if len(segments) == 1 else f'{name} segment {number}'
            notes = {**segment.notes, 'verdict': job.verdict}
            episode = ConvertedEpisode(
                folder=job.folder,
                number=len(result.episodes),
                source=source,
                sha256=sha256,
                task=segment.task or job.options.task,
                outcome=segment.outcome,
                notes=notes,
                length=kept.stop - kept.start,
                stats={},
            )
            _write_episode(episode, segment, kept.start, job.embodiment)
            result.episodes.append(episode)
            result.trimmed += notes['trimmed']
    result.video_s = time.perf_counter() - started_s
    return result


def _kept_rows(segment: Segment, job: ConversionJob) -> slice:
    """The rows to keep. An episode that would become shorter than the horizon keeps all."""
    if job.options.idle_s is not None:
        first, end = non_idle_range(job.embodiment, segment.rows, job.options.idle_s)
        if end - first >= job.options.horizon:
            return slice(segment.last_start(first), end)
    return slice(0, len(segment.rows))


def _write_episode(episode: ConvertedEpisode, segment: Segment, first: int, embodiment: Embodiment) -> None:
    for camera in embodiment.cameras:
        video = episode.video_file(camera.name)
        frames = segment.write_video(camera, video, first, episode.length)
        if frames != episode.length:
            raise GrootRosError(
                f'{episode.source} has {frames} frames of {camera.name} for {episode.length} rows, so its '
                'recording is damaged: leave it out with --skip-bad.'
            )
        episode.stats[camera.feature] = image_stats(video)
    rows = segment.rows[first : first + episode.length]
    if embodiment.reward == OUTCOME:
        rewards = np.zeros(episode.length)
        rewards[-1] = float(episode.outcome == 'success')
        rows.more[REWARD] = rewards
    episode.notes['trimmed'] = len(segment.rows) - episode.length
    episode.write_rows(rows, embodiment.fps)


def _write_done(job: ConversionJob, result: ConversionResult, sha256: str) -> None:
    content = asdict(result)
    for episode in content['episodes']:
        del episode['folder']
    content['key'] = [sha256, job.settings_key]
    (job.folder / _DONE).write_text(json.dumps(content))


def _read_done(job: ConversionJob, sha256: Future[str]) -> ConversionResult | None:
    """The result that is in the folder, if it is of the same recording and settings."""
    try:
        content = json.loads((job.folder / _DONE).read_text())
        if content.pop('key') != [sha256.result(), job.settings_key]:
            return None
        episodes = [ConvertedEpisode(folder=job.folder, **episode) for episode in content.pop('episodes')]
        return ConversionResult(episodes, **content)
    except (OSError, ValueError, TypeError, KeyError):
        return None
