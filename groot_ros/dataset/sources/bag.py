# SPDX-License-Identifier: Apache-2.0
"""Stretches of a bag: as our recorder recorded them, or made of the messages of any recorder."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from groot_ros.bags.bulk_decode import decode_columns
from groot_ros.bags.message_types import EPISODE_EVENT_TOPIC, EPISODE_EVENT_TYPE, ROW_TOPIC, VIDEO_TYPE
from groot_ros.bags.reader import BagMessage, EpisodeBag, read_access_unit
from groot_ros.bags.topic_types import check_types
from groot_ros.dataset.sources.segment import EpisodeMetadata, Segment
from groot_ros.dataset.sources.time_ranges import TimeRange, recorded_time_ranges
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.message_fields import cdr_stamp_ns, header_stamp_ns, stamp_to_ns
from groot_ros.sampling.row_builder import FrameBuffer, RowBuilder, SampledRow
from groot_ros.sampling.rows import RowSampler, RowTable, TickSample, build_rows
from groot_ros.video.frame import VideoFrame, decode_frame
from groot_ros.video.h264 import H264Decoder
from groot_ros.video.mp4 import Mp4Copier, Mp4Encoder, cut_mp4, find_keyframes

_BATCH = 4096
_RATE_TOLERANCE = 0.02


def bag_stretches(
    bag: EpisodeBag, embodiment: Embodiment, folder: Path, codec: str, ranges: list[TimeRange]
) -> list[Segment]:
    """The episodes of a bag; `folder` takes videos that have to be made, `ranges` choose parts of the bag.

    Those of our recorder at its own rate are taken as they are, others are made anew. Raises GrootRosError for a bag that is unfit.
    """
    recorded_fps = float(bag.info.get('fps', 0.0))
    if bag.has_rows and abs(recorded_fps - embodiment.fps) < 1e-9 and not ranges:
        return list(_recorded(bag, embodiment, folder, codec))
    return list(_made(bag, embodiment, folder, codec, ranges or recorded_time_ranges(bag)))


def read_samples(bag: EpisodeBag, embodiment: Embodiment) -> list[TickSample]:
    """State and commands at each tick that our recorder set. Raises MissingSampleError where a stream has a gap."""
    return [sample for span in recorded_spans(bag, embodiment) for sample in span]


def recorded_spans(
    bag: EpisodeBag, embodiment: Embodiment, films: dict[str, '_Film'] | None = None
) -> Iterator[list[TickSample]]:
    """State and commands at each tick of the recorder, a list between two pauses; `films` take the pictures of some topics meanwhile.

    Raises MissingSampleError where a stream has a gap.
    """
    films = films or {}
    wanted = [*embodiment.sampled_topics, ROW_TOPIC, EPISODE_EVENT_TOPIC, *films]
    connections = {
        topic: connection for topic, connection in bag.connections(embodiment).items() if topic in wanted
    }
    msgtypes = {topic: connection.msgtype for topic, connection in connections.items() if topic not in films}
    sampling, ticks = _Sampling(embodiment, msgtypes), 0
    for message in bag.messages(connections):
        if message.topic in films:
            films[message.topic].add(message)
        elif message.msgtype != EPISODE_EVENT_TYPE:
            sampling.add(message)
            for film in films.values() if message.topic == ROW_TOPIC else ():
                film.tick(cdr_stamp_ns(message.cdr))
        elif message.decode().kind == 'resumed':
            samples = sampling.finish()
            ticks += len(samples)
            for film in films.values():
                film.end_at(ticks)
            yield samples
            sampling = _Sampling(embodiment, msgtypes)
    yield sampling.finish()


class _Film:
    """A camera's pictures, one a tick, in a file for each span. One is written when the next comes, since the last tick gives no row."""

    def __init__(self, path: Path, write: Callable[[Path], Mp4Copier | Mp4Encoder]) -> None:
        self.videos: list[Path] = []
        self.frames: list[int] = []
        self._path, self._write = path, write
        self._count, self._ends = 0, deque[int]()
        self._begin()

    def add(self, message: BagMessage) -> None:
        """A message of the camera."""
        raise NotImplementedError

    def tick(self, tick_ns: int) -> None:
        """The recorder has set a tick."""

    def end_at(self, ticks: int) -> None:
        """The span in hand ends with so many ticks of the bag."""
        self._ends.append(ticks)

    def close(self) -> None:
        """Ends the file in hand."""
        self.frames.append(self._writer.frames)
        self._writer.close()

    def put(self, picture: Any) -> None:
        """What belongs to the next tick."""
        if self._ends and self._count == self._ends[0]:
            self._ends.popleft()
            _Film.close(self)
            self._begin()
        if self._waiting is not None:
            self._writer.add(self._waiting)
        self._waiting = picture
        self._count += 1

    def _begin(self) -> None:
        self.videos.append(self._path.with_name(f'{self._path.name}_{len(self.videos)}.mp4'))
        self._writer: Any = self._write(self.videos[-1])
        self._waiting: Any = None


class _Copied(_Film):
    """Packets of the recorder's video as they are."""

    def add(self, message: BagMessage) -> None:
        """One access unit, that of the next tick."""
        self.put(read_access_unit(message))


class _Decoded(_Film):
    """The recorder's video in another size or codec."""

    def __init__(self, path: Path, write: Callable[[Path], Mp4Copier | Mp4Encoder]) -> None:
        super().__init__(path, write)
        self._decoder = H264Decoder()

    def add(self, message: BagMessage) -> None:
        """One access unit, that of the next tick."""
        self.put(self._decoder.decode(0, read_access_unit(message)))


class _Nearest(_Film):
    """Pictures as the camera sent them: the one nearest to each tick."""

    def __init__(
        self, path: Path, write: Callable[[Path], Mp4Copier | Mp4Encoder], camera: CameraField
    ) -> None:
        super().__init__(path, write)
        self._frames, self._ticks = FrameBuffer(camera), deque[int]()

    def add(self, message: BagMessage) -> None:
        """A picture."""
        self._frames.add(decode_frame(message.decode()))
        while self._ticks and self._frames.extends_past(self._ticks[0]):
            self.put(self._frames.nearest(self._ticks.popleft()))

    def tick(self, tick_ns: int) -> None:
        """Its picture may still come."""
        self._ticks.append(tick_ns)

    def close(self) -> None:
        """Ticks behind the last picture take that one."""
        while self._ticks and self._frames.has_frames:
            self.put(self._frames.nearest(self._ticks.popleft()))
        super().close()


class _Sampling:
    """Samples of recorded ticks, by some thousand messages at a time: one by one they would take ten times as long, all at once the memory."""

    def __init__(self, embodiment: Embodiment, msgtypes: dict[str, str]) -> None:
        self._sampler, self._msgtypes = RowSampler(embodiment), msgtypes
        self._ticks: deque[int] = deque()
        self._samples: list[TickSample] = []
        self._begin()

    def _begin(self) -> None:
        self._batch: dict[str, list[bytes]] = {topic: [] for topic in self._msgtypes}
        self._count = 0

    def add(self, message: BagMessage) -> None:
        """Takes a row of the recorder, or a message of a topic that rows are sampled from."""
        if message.topic == ROW_TOPIC:
            self._ticks.append(cdr_stamp_ns(message.cdr))
            return
        self._batch[message.topic].append(message.cdr)
        self._count += 1
        if self._count >= _BATCH:
            self._sample(at_end=False)

    def finish(self) -> list[TickSample]:
        """A sample at each row."""
        self._sample(at_end=True)
        return self._samples

    def _sample(self, at_end: bool) -> None:
        for source, stream in self._sampler.sources():
            if batch := self._batch[source.topic]:
                stream.extend(*decode_columns(batch, self._msgtypes[source.topic], source))
        self._begin()
        ready = []
        while self._ticks and (at_end or self._sampler.extends_past(self._ticks[0])):
            ready.append(self._ticks.popleft())
        if ready:
            self._samples += self._sampler.sample_all(ready)
            self._sampler.drop_before(ready[-1])


@dataclass
class _VideoStretch(Segment):
    """Its videos lie in files, one for each camera."""

    videos: dict[str, Path]
    frames: dict[str, int]
    fps: float

    def start_by(self, row: int) -> int:
        """A keyframe of all cameras."""
        common = set(range(row + 1))
        for video in self.videos.values() if row else ():
            common &= set(find_keyframes(video)[0])
        return max(common, default=0)

    def write_video(self, camera: CameraField, path: Path, first: int, count: int) -> int:
        """Moved to its place, or cut."""
        video = self.videos[camera.name]
        if first or count < len(self.rows):
            return cut_mp4(video, path, first, count, self.fps)
        video.replace(path)
        return self.frames[camera.name]


def _recorded(bag: EpisodeBag, embodiment: Embodiment, folder: Path, codec: str) -> Iterator[Segment]:
    films = {
        camera.video_topic: _film(bag, embodiment, camera, folder, codec) for camera in embodiment.cameras
    }
    spans = list(recorded_spans(bag, embodiment, films))
    for film in films.values():
        film.close()
    for number, samples in enumerate(spans):
        if len(samples) > 1:
            videos = {camera.name: films[camera.video_topic].videos[number] for camera in embodiment.cameras}
            frames = {camera.name: films[camera.video_topic].frames[number] for camera in embodiment.cameras}
            yield _VideoStretch(_rows(bag, embodiment, samples), _facts(bag), videos, frames, embodiment.fps)


def _film(bag: EpisodeBag, embodiment: Embodiment, camera: CameraField, folder: Path, codec: str) -> _Film:
    path, fps = folder / f'film_{camera.name}', embodiment.fps

    def encoder(video: Path) -> Mp4Encoder:
        return Mp4Encoder(video, camera.width, camera.height, fps, codec)

    if bag.connections(embodiment)[camera.video_topic].msgtype != VIDEO_TYPE:
        return _Nearest(path, encoder, camera)
    if codec == 'h264' and _fits(bag, embodiment, camera):
        return _Copied(path, lambda video: Mp4Copier(video, fps))
    return _Decoded(path, encoder)


def _fits(bag: EpisodeBag, embodiment: Embodiment, camera: CameraField) -> bool:
    """Whether a camera was recorded in the embodiment's size."""
    message = next(bag.messages({camera.topic: bag.connections(embodiment)[camera.video_topic]}), None)
    return message is not None and H264Decoder().decode(0, read_access_unit(message)).size == (
        camera.width,
        camera.height,
    )


@dataclass
class _Span:
    """A stretch while it is made. A frame is encoded when the next row comes, since the last tick gives no row."""

    samples: list[TickSample]
    encoders: dict[str, Mp4Encoder]
    videos: dict[str, Path]
    task: str
    waiting: dict[str, VideoFrame] = field(default_factory=dict)


class _Maker:
    """Makes stretches of rows: encodes each camera's frame at once, so that no picture is kept."""

    def __init__(
        self, bag: EpisodeBag, embodiment: Embodiment, folder: Path, codec: str, ranges: list[TimeRange]
    ) -> None:
        self.spans: list[_Span] = []
        self._bag, self._embodiment, self._folder, self._codec = bag, embodiment, folder, codec
        self._ranges = ranges
        self._place: tuple[int, TimeRange | None] = (-1, None)

    def add(self, row: SampledRow) -> None:
        """Takes the next row. Raises GrootRosError for one without its state."""
        chosen = next(
            (part for part in self._ranges if part.start_ns <= row.tick.stamp_ns < part.end_ns), None
        )
        if self._ranges and chosen is None:
            return
        if np.isinf(row.ages_s).any():
            raise GrootRosError(
                f'The bag {self._bag.path} lacks its state at the tick {row.tick.stamp_ns / 1e9:.3f} s: a stream has a gap there.'
            )
        if (row.segment, chosen) != self._place:
            self._place = (row.segment, chosen)
            self._begin(chosen.task if chosen else '')
        span = self.spans[-1]
        for name, frame in span.waiting.items():
            span.encoders[name].add(frame)
        span.waiting = {camera.name: row.frames[camera.topic] for camera in self._embodiment.cameras}
        span.samples.append(TickSample(row.tick.stamp_ns, row.state, row.commands, row.ages_s))

    def _begin(self, task: str) -> None:
        self.close()
        fps, number = self._embodiment.fps, len(self.spans)
        videos = {
            camera.name: self._folder / f'made_{number}_{camera.name}.mp4'
            for camera in self._embodiment.cameras
        }
        encoders = {
            c.name: Mp4Encoder(videos[c.name], c.width, c.height, fps, self._codec)
            for c in self._embodiment.cameras
        }
        self.spans.append(_Span([], encoders, videos, task))

    def close(self) -> None:
        """Ends the videos in hand."""
        for encoder in self.spans[-1].encoders.values() if self.spans else ():
            encoder.close()


def _made(
    bag: EpisodeBag, embodiment: Embodiment, folder: Path, codec: str, ranges: list[TimeRange]
) -> Iterator[Segment]:
    made = _Maker(bag, embodiment, folder, codec, ranges)
    try:
        rows = _feed(bag, embodiment, made)
    except GrootRosError as error:
        text = str(error)
        raise GrootRosError(
            text if str(bag.path) in text else f'The bag {bag.path} cannot be converted: {text.rstrip(".")}.'
        ) from error
    finally:
        made.close()
    if not made.spans:
        missing = ', '.join(rows.missing_topics())
        why = (
            f'{missing} has nothing' if missing else 'its streams do not overlap, or no time range meets them'
        )
        raise GrootRosError(f'The bag {bag.path} gives no row: {why}.')
    for span in made.spans:
        if len(span.samples) > 1:
            facts = _facts(bag)
            facts.task = span.task or facts.task
            frames = {name: encoder.frames for name, encoder in span.encoders.items()}
            yield _VideoStretch(
                _rows(bag, embodiment, span.samples), facts, span.videos, frames, embodiment.fps
            )


def _feed(bag: EpisodeBag, embodiment: Embodiment, made: '_Maker') -> RowBuilder:
    """Hands the messages of a bag to a row maker, and its rows to `made`."""
    connections = bag.source_connections(embodiment)
    if problems := check_types(
        embodiment,
        {t: c.msgtype for t, c in connections.items() if c.msgtype not in (VIDEO_TYPE, EPISODE_EVENT_TYPE)},
    ):
        raise GrootRosError('; '.join(problems))
    videos = {
        camera.topic for camera in embodiment.cameras if connections[camera.topic].msgtype == VIDEO_TYPE
    }
    # Stamps of video in our bags are corrected already.
    sources = tuple(
        camera.model_copy(update={'obs_latency_s': 0.0}) if camera.topic in videos else camera
        for camera in embodiment.cameras
    )
    rows, frames = (
        RowBuilder(embodiment.model_copy(update={'cameras': sources}), made.add),
        _Frames(embodiment, videos),
    )
    for message in bag.messages(connections):
        if message.msgtype == EPISODE_EVENT_TYPE:
            if message.decode().kind == 'resumed':
                rows.new_segment()
            continue
        if message.topic in frames.topics:
            rows.take_frame(message.topic, frames.of(message))
        else:
            decoded = message.decode()
            _check_stamp(message.topic, header_stamp_ns(decoded))
            rows.take(message.topic, decoded)
        rows.resolve(message.log_ns)
    return rows


class _Frames:
    """Frames of a bag's cameras, pictures or video of one size each."""

    def __init__(self, embodiment: Embodiment, videos: set[str]) -> None:
        self.topics = {camera.topic for camera in embodiment.cameras}
        self._decoders = {topic: H264Decoder() for topic in videos}
        self._sizes: dict[str, tuple[int, int]] = {}

    def of(self, message: BagMessage) -> VideoFrame:
        """The frame of a message. Raises GrootRosError for one without a stamp or of another size than those before."""
        frame = self._decoded(message)
        _check_stamp(message.topic, frame.stamp_ns)
        size = self._sizes.setdefault(message.topic, frame.size)
        if frame.size != size:
            change = f'{size[0]}x{size[1]} to {frame.size[0]}x{frame.size[1]}'
            raise GrootRosError(
                f'{message.topic} changes from {change}: take the parts of one size with --ranges'
            )
        return frame

    def _decoded(self, message: BagMessage) -> VideoFrame:
        decoded = message.decode()
        if message.topic in self._decoders:
            stamp_ns = stamp_to_ns(decoded.timestamp)
            return self._decoders[message.topic].decode(stamp_ns, read_access_unit(message))
        return decode_frame(decoded)


def _check_stamp(topic: str, stamp_ns: int) -> None:
    if not stamp_ns:
        raise GrootRosError(
            f'{topic} comes with a stamp of zero: its driver does not stamp, so nobody knows when it was measured'
        )


def _rows(bag: EpisodeBag, embodiment: Embodiment, samples: list[TickSample]) -> RowTable:
    """RowTable of samples whose rate must be the embodiment's; it is measured, so that a recovered bag is checked too."""
    measured = (len(samples) - 1) * 1e9 / (samples[-1].tick_ns - samples[0].tick_ns)
    if abs(measured / embodiment.fps - 1) > _RATE_TOLERANCE:
        raise GrootRosError(
            f'The bag {bag.path} was recorded at {measured:.2f} frames/s but the embodiment {embodiment.name} says {embodiment.fps:g}: '
            'set fps in the embodiment, or the camera, to the same rate.'
        )
    rows = build_rows(embodiment, samples)
    for kind, values, slices in (
        ('state', rows.states, embodiment.state_slices),
        ('action', rows.actions, embodiment.action_slices),
    ):
        for name, part in slices.items():
            if len(bad := np.flatnonzero(~np.isfinite(values[:, part]).all(axis=1))):
                raise GrootRosError(
                    f'The bag {bag.path} cannot be converted: {kind} {name} is NaN or infinite at row {bad[0]}.'
                )
    return rows


def _facts(bag: EpisodeBag) -> EpisodeMetadata:
    """What the recorder noted; a bag of another recorder was chosen by somebody who knows it."""
    outcome = str(bag.info.get('outcome', 'unknown')) if bag.info else 'success'
    notes = {'filled': bag.info.get('counts', {}).get('filled'), 'operator': bag.info.get('operator', '')}
    return EpisodeMetadata(str(bag.info.get('task', '')), outcome, notes)
