# SPDX-License-Identifier: Apache-2.0
"""Saved episodes for the page: their table, and image, video, curves and verdict of each."""

import re
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from groot_ros.bags.label import read_label
from groot_ros.bags.message_types import VIDEO_TYPE
from groot_ros.bags.reader import BagMessage, EpisodeBag, naming_bag, read_access_unit
from groot_ros.config_files import read_text
from groot_ros.dimensions import dimensions
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.operator_page.cameras import small_jpeg
from groot_ros.quality.moments import find_moments, pauses
from groot_ros.quality.saved_verdict import SavedFinding, SavedVerdict, parse_verdict
from groot_ros.quality.trace import EpisodeTrace
from groot_ros.quality.trace_from_bag import load_bag_embodiment, load_trace
from groot_ros.recording.episode_folder import read_index
from groot_ros.resources import REPORT_FILE, VERDICT_FILE
from groot_ros.video.frame import VideoFrame, decode_frame
from groot_ros.video.h264 import H264Decoder
from groot_ros.video.mp4 import Mp4Copier, encode_mp4

_NAME = re.compile(r'episode_[0-9]{6}')
_THUMBNAIL_WIDTH = 160
_MAX_KEPT = 8
_MAX_THUMBNAILS = 2000
_MAX_POINTS = 600
_MAX_VERDICT_BYTES = 8 << 20


class EpisodeLibrary:
    """The episodes in a folder. Its methods read files and take up to seconds: call them in a thread.

    Each raises GrootRosError for a name that is no episode of the folder, and for a bag that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept = tempfile.TemporaryDirectory(prefix='groot_ros_page_')
        self._videos: OrderedDict[str, Path] = OrderedDict()
        self._thumbnails: OrderedDict[str, bytes] = OrderedDict()

    def close(self) -> None:
        """Deletes the videos that were made."""
        self._kept.cleanup()

    def path_of(self, name: str) -> Path:
        """The bag of an episode: a folder of this folder, no link out of it."""
        path = self.folder / name
        if not _NAME.fullmatch(name) or not (path / 'metadata.yaml').is_file():
            raise GrootRosError(f'There is no episode {name[:100]!r} in {self.folder}.')
        if path.resolve().parent != self.folder.resolve():
            raise GrootRosError(f'{name} is a link out of {self.folder}: it is not shown.')
        return path

    def table(self) -> list[dict[str, Any]]:
        """All saved episodes, the newest first."""
        entries = []
        for entry in reversed(read_index(self.folder)):
            if not _NAME.fullmatch(entry.name):
                continue
            row = asdict(entry)
            row['has_report'] = (self.folder / entry.name / REPORT_FILE).is_file()
            row['is_usable'] = entry.is_usable
            row['notes'] = self._notes(entry.name)
            entries.append(row)
        return entries

    def _notes(self, name: str) -> str:
        try:
            return read_label(self.folder / name).get('notes', '')
        except GrootRosError as error:
            return str(error)

    def verdict(self, name: str) -> dict[str, Any]:
        """The verdict of an episode: its level, and the reasons against a pass, the worst first."""
        verdict = self._saved_verdict(name)
        texts = [verdict.failure] if verdict.failure else []
        texts += [finding.text for finding in _reasons(verdict)]
        return {'episode': name, 'verdict': verdict.verdict, 'reasons': texts}

    def _saved_verdict(self, name: str) -> SavedVerdict:
        path = self.path_of(name) / VERDICT_FILE
        try:
            return parse_verdict(read_text(path, _MAX_VERDICT_BYTES))
        except (OSError, ValueError) as error:
            raise GrootRosError(f'{path} cannot be read ({error}).') from error

    def report(self, name: str) -> Path:
        """The report of an episode."""
        path = self.path_of(name) / REPORT_FILE
        if not path.is_file():
            raise GrootRosError(f'{name} has no report: make it with `groot-ros inspect`.')
        return path

    def thumbnail(self, name: str) -> bytes:
        """A small JPEG of the first image of the first camera."""
        path = self.path_of(name)
        key = _key(path)
        if key not in self._thumbnails:
            with EpisodeBag(path) as bag, naming_bag(path):
                frame = next(_frames(bag, load_bag_embodiment(bag).cameras[0]))
            self._thumbnails[key] = small_jpeg(frame, _THUMBNAIL_WIDTH)
            if len(self._thumbnails) > _MAX_THUMBNAILS:
                self._thumbnails.popitem(last=False)
        return self._thumbnails[key]

    def video(self, name: str, camera: int) -> Path:
        """An MP4 of a camera whose frame k is that of row k: its packets, copied where the bag has video."""
        path = self.path_of(name)
        key = f'{_key(path)}_{camera}'
        if key in self._videos:
            self._videos.move_to_end(key)
            return self._videos[key]
        with EpisodeBag(path) as bag, naming_bag(path):
            embodiment = load_bag_embodiment(bag)
            if camera >= len(embodiment.cameras):
                raise GrootRosError(f'{name} has no camera number {camera}.')
            target = Path(self._kept.name) / f'{name}_{camera}_{len(self._videos)}_{abs(hash(key))}.mp4'
            _write_video(bag, embodiment.cameras[camera], embodiment.fps, target)
        self._videos[key] = target
        if len(self._videos) > _MAX_KEPT:
            _, oldest = self._videos.popitem(last=False)
            oldest.unlink(missing_ok=True)
        return target

    def replay(self, name: str) -> dict[str, Any]:
        """The state over time, the pauses, and each reason of the verdict with its moments."""
        path = self.path_of(name)
        verdict = self._saved_verdict(name)
        with EpisodeBag(path) as bag, naming_bag(path):
            embodiment = load_bag_embodiment(bag)
            trace = load_trace(bag, embodiment)
            info = bag.info
        return {
            'episode': name,
            'fps': embodiment.fps,
            'rows': trace.rows,
            'task': str(info.get('task', '')),
            'outcome': str(info.get('outcome', 'unknown')),
            'notes': str(info.get('notes', '')),
            'verdict': verdict.verdict,
            'reasons': _timed_reasons(verdict, trace),
            'cameras': [
                {'name': camera.name, 'width': camera.width, 'height': camera.height}
                for camera in embodiment.cameras
            ],
            'panels': _panels(trace, embodiment),
            'pauses_s': pauses(trace),
        }


def _reasons(verdict: SavedVerdict) -> list[SavedFinding]:
    """The findings against a pass, the failures first."""
    return [finding for level in ('fail', 'warn') for finding in verdict.findings if finding.level == level]


def _timed_reasons(verdict: SavedVerdict, trace: EpisodeTrace) -> list[dict[str, Any]]:
    """Level, sentence and moments of each reason; none where it is about the whole episode."""
    reasons = []
    if verdict.failure:
        reasons.append({'level': 'fail', 'text': verdict.failure, 'moments': []})
    for finding in _reasons(verdict):
        moments = [[moment.begin_s, moment.end_s] for moment in find_moments(trace, finding)]
        reasons.append({'level': finding.level, 'text': finding.text, 'moments': moments})
    return reasons


def _key(path: Path) -> str:
    """Names a bag until it is recorded again under the same name."""
    return f'{path.name}_{(path / "metadata.yaml").stat().st_mtime_ns}'


def _video_messages(bag: EpisodeBag, camera: CameraField) -> Any:
    connection = bag.video_connection(camera)
    if connection is None:
        raise GrootRosError(f'{bag.path} has no images of {camera.name}.')
    return bag.messages({camera.topic: connection})


def _frames(bag: EpisodeBag, camera: CameraField) -> Any:
    """The images of a camera, in order."""
    decoder = H264Decoder()
    for message in _video_messages(bag, camera):
        yield _frame(decoder, message)


def _frame(decoder: H264Decoder, message: BagMessage) -> VideoFrame:
    if message.msgtype == VIDEO_TYPE:
        return decoder.decode(message.log_ns, read_access_unit(message))
    return decode_frame(message.decode())


def _write_video(bag: EpisodeBag, camera: CameraField, fps: float, path: Path) -> None:
    messages = _video_messages(bag, camera)
    connection = bag.video_connection(camera)
    assert connection is not None
    if connection.msgtype != VIDEO_TYPE:
        images = (decode_frame(message.decode()) for message in messages)
        encode_mp4(images, path, (camera.width, camera.height), fps, 'h264')
        return
    copier = Mp4Copier(path, fps)
    try:
        for message in messages:
            copier.add(read_access_unit(message))
    finally:
        copier.close()


def _panels(trace: EpisodeTrace, embodiment: Embodiment) -> list[dict[str, Any]]:
    """The numbers of each field that share a unit, at most 600 points of each."""
    step = max(-(-trace.rows // _MAX_POINTS), 1)
    states = trace.states[::step]
    panels = []
    for field in embodiment.state:
        columns = states[:, embodiment.state_slices[field.name]]
        named = dimensions(field)
        for unit in dict.fromkeys(unit for _, unit in named):
            series = [
                {'name': name or field.name, 'values': _numbers(columns[:, k])}
                for k, (name, other) in enumerate(named)
                if other == unit
            ]
            panels.append({'name': field.name, 'unit': unit, 'step': step, 'series': series})
    return panels


def _numbers(column: Array) -> list[float | None]:
    """Rounded numbers; None where the stream was missing."""
    return [round(float(value), 4) if np.isfinite(value) else None for value in column]


class LastVerdict:
    """The verdict of the episode that was saved last, read once when it changes."""

    def __init__(self, read: Callable[[str], dict[str, Any]]) -> None:
        self._read = read
        self._key: tuple[str, int] = ('', 0)
        self._verdict: dict[str, Any] = {}

    def of(self, episode: str, saved: int, level: str) -> dict[str, Any]:
        """The verdict of an episode with its reasons; only its level where its file cannot be read."""
        if not level or not saved:
            return {}
        if self._key != (episode, saved):
            self._key = (episode, saved)
            try:
                self._verdict = self._read(episode)
            except GrootRosError as error:
                self._verdict = {'episode': episode, 'verdict': level, 'reasons': [str(error)]}
        return self._verdict
