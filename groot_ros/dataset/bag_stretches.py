"""Stretches of a bag: as our recorder recorded them, or made of the messages of any recorder."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from groot_ros.bags.columns import columns_of
from groot_ros.bags.images import Frame, frame_of, stamp_in
from groot_ros.bags.mp4 import Mp4Copier, Mp4Encoder, count_frames, cut_mp4, keyframes_of
from groot_ros.bags.reader import BagMessage, EpisodeBag, access_unit_of
from groot_ros.bags.recording import check_types
from groot_ros.bags.row_maker import CameraFrames, MadeRow, RowMaker
from groot_ros.bags.types import EVENT_TYPE, VIDEO_TYPE
from groot_ros.bags.video import H264Decoder
from groot_ros.bags.writer import EVENT_TOPIC
from groot_ros.dataset.ranges import TimeRange, ranges_of_recorder
from groot_ros.dataset.stretches import Facts, Stretch, encoded
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.rows import Rows, RowSampler, TickSample, rows_of, stamp_of

_BATCH = 4096
_RATE_TOLERANCE = 0.02


def bag_stretches(bag: EpisodeBag, embodiment: Embodiment, folder: Path, codec: str, ranges: list[TimeRange]) -> list[Stretch]:
    """The episodes of a bag; `folder` takes videos that have to be made, `ranges` choose parts of the bag.

    Those of our recorder at its own rate are taken as they are, others are made anew. Raises GrootRosError for a bag that is unfit.
    """
    recorded_fps = float(bag.info.get('fps', 0.0))
    if bag.has_rows and abs(recorded_fps - embodiment.fps) < 1e-9 and not ranges:
        return list(_recorded(bag, embodiment, folder, codec))
    return list(_made(bag, embodiment, folder, codec, ranges or ranges_of_recorder(bag)))


def read_samples(bag: EpisodeBag, embodiment: Embodiment) -> list[TickSample]:
    """State and commands at each tick that our recorder set. Raises MissingSampleError where a stream has a gap."""
    return [sample for span in recorded_spans(bag, embodiment) for sample in span]


def recorded_spans(bag: EpisodeBag, embodiment: Embodiment, copies: dict[str, '_Copies'] | None = None) -> Iterator[list[TickSample]]:
    """State and commands at each tick of the recorder, a list between two pauses; `copies` take the video of some topics meanwhile.

    Raises MissingSampleError where a stream has a gap.
    """
    copies = copies or {}
    wanted = [*embodiment.row_topics, 'row', EVENT_TOPIC, *copies]
    connections = {topic: connection for topic, connection in bag.connections(embodiment).items() if topic in wanted}
    kinds = {topic: connection.msgtype for topic, connection in connections.items() if topic not in copies}
    sampling, ticks = _Sampling(embodiment, kinds), 0
    for message in bag.messages(connections):
        if message.topic in copies:
            copies[message.topic].add(access_unit_of(message))
        elif message.type != EVENT_TYPE:
            sampling.add(message)
        elif message.decode().kind == 'resumed':
            samples = sampling.finish()
            ticks += len(samples)
            for copy in copies.values():
                copy.end_at(ticks)
            yield samples
            sampling = _Sampling(embodiment, kinds)
    yield sampling.finish()


class _Copies:
    """Copies a camera's access units into a file for each span. A unit is copied when the next one comes, since the last tick gives no row."""

    def __init__(self, folder: Path, camera: CameraField, fps: float) -> None:
        self.videos: list[Path] = []
        self._name, self._fps = folder / f'copied_{camera.name}', fps
        self._copier: Mp4Copier | None = None
        self._waiting: bytes | None = None
        self._units, self._ends = 0, deque[int]()
        self._begin()

    def add(self, access_unit: bytes) -> None:
        """The unit of the next tick."""
        if self._ends and self._units == self._ends[0]:
            self._ends.popleft()
            self.close()
            self._begin()
        if self._waiting is not None and self._copier is not None:
            self._copier.add(self._waiting)
        self._waiting = access_unit
        self._units += 1

    def end_at(self, ticks: int) -> None:
        """The span in hand ends with so many ticks of the bag."""
        self._ends.append(ticks)

    def close(self) -> None:
        """Ends the file in hand."""
        if self._copier is not None:
            self._copier.close()
        self._waiting = None

    def _begin(self) -> None:
        path = self._name.with_name(f'{self._name.name}_{len(self.videos)}.mp4')
        self.videos.append(path)
        self._copier = Mp4Copier(path, self._fps)


class _Sampling:
    """Samples of recorded ticks, by some thousand messages at a time: one by one they would take ten times as long, all at once the memory."""

    def __init__(self, embodiment: Embodiment, kinds: dict[str, str]) -> None:
        self._sampler, self._kinds = RowSampler(embodiment), kinds
        self._ticks: deque[int] = deque()
        self._samples: list[TickSample] = []
        self._begin()

    def _begin(self) -> None:
        self._batch: dict[str, list[bytes]] = {topic: [] for topic in self._kinds}
        self._count = 0

    def add(self, message: BagMessage) -> None:
        """Takes a row of the recorder, or a message of a topic that rows are sampled from."""
        if message.topic == 'row':
            self._ticks.append(stamp_in(message.cdr))
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
                stream.extend(*columns_of(batch, self._kinds[source.topic], source))
        self._begin()
        ready = []
        while self._ticks and (at_end or self._sampler.covers(self._ticks[0])):
            ready.append(self._ticks.popleft())
        if ready:
            self._samples += self._sampler.sample_all(ready)
            self._sampler.forget_before(ready[-1])


@dataclass
class _VideoStretch(Stretch):
    """Its videos lie in files already, one for each camera."""

    videos: dict[str, Path]
    fps: float

    def start_by(self, row: int) -> int:
        """A keyframe of all cameras."""
        common = set(range(row + 1))
        for video in self.videos.values() if row else ():
            common &= set(keyframes_of(video)[0])
        return max(common, default=0)

    def write_video(self, camera: CameraField, path: Path, first: int, count: int) -> int:
        """Moved to its place, or cut."""
        video = self.videos[camera.name]
        if first or count < len(self.rows):
            return cut_mp4(video, path, first, count, self.fps)
        video.replace(path)
        return count_frames(path)


@dataclass
class _RecordedStretch(_VideoStretch):
    """Ticks of the recorder, `first` of which come before it in the bag; cameras whose video could not be copied are encoded anew."""

    bag: EpisodeBag
    embodiment: Embodiment
    first: int
    codec: str

    def write_video(self, camera: CameraField, path: Path, first: int, count: int) -> int:
        """As it was copied, or encoded of the frames nearest to the ticks."""
        if camera.name in self.videos:
            return super().write_video(camera, path, first, count)
        return encoded(islice(self._frames(camera, first + count), first, None), camera, path, self.fps, self.codec)

    def _frames(self, camera: CameraField, count: int) -> Iterator[Frame]:
        connection = self.bag.connections(self.embodiment)[camera.video_topic]
        messages = self.bag.messages({camera.topic: connection})
        if connection.msgtype == VIDEO_TYPE:
            decoder = H264Decoder()
            units = (access_unit_of(message) for message in islice(messages, self.first + count))
            yield from islice((decoder.decode(0, unit) for unit in units), self.first, None)
            return
        frames = CameraFrames(camera)
        for tick_ns in self.rows.ticks_ns[:count]:
            while not frames.covers(tick_ns) and (message := next(messages, None)) is not None:
                frames.add(frame_of(message.decode()))
            yield frames.nearest(tick_ns)


def _recorded(bag: EpisodeBag, embodiment: Embodiment, folder: Path, codec: str) -> Iterator[Stretch]:
    copied = [camera for camera in embodiment.cameras if codec == 'h264' and _fits(bag, embodiment, camera)]
    copies = {camera.video_topic: _Copies(folder, camera, embodiment.fps) for camera in copied}
    spans = list(recorded_spans(bag, embodiment, copies))
    for copy in copies.values():
        copy.close()
    first = 0
    for number, samples in enumerate(spans):
        if len(samples) > 1:
            videos = {camera.name: copies[camera.video_topic].videos[number] for camera in copied}
            yield _RecordedStretch(_rows(bag, embodiment, samples), _facts(bag), videos, embodiment.fps, bag, embodiment, first, codec)
        first += len(samples)


def _fits(bag: EpisodeBag, embodiment: Embodiment, camera: CameraField) -> bool:
    """Whether a camera was recorded as video, a frame a row, in the embodiment's size."""
    connection = bag.connections(embodiment)[camera.video_topic]
    if connection.msgtype != VIDEO_TYPE:
        return False
    message = next(bag.messages({camera.topic: connection}), None)
    return message is not None and H264Decoder().decode(0, access_unit_of(message)).size == (camera.width, camera.height)


@dataclass
class _Span:
    """A stretch while it is made. A frame is encoded when the next row comes, since the last tick gives no row."""

    samples: list[TickSample]
    encoders: dict[str, Mp4Encoder]
    videos: dict[str, Path]
    task: str
    waiting: dict[str, Frame] = field(default_factory=dict)


class _Maker:
    """Makes stretches of rows: encodes each camera's frame at once, so that no picture is kept."""

    def __init__(self, bag: EpisodeBag, embodiment: Embodiment, folder: Path, codec: str, ranges: list[TimeRange]) -> None:
        self.spans: list[_Span] = []
        self._bag, self._embodiment, self._folder, self._codec = bag, embodiment, folder, codec
        self._ranges = ranges
        self._place: tuple[int, TimeRange | None] = (-1, None)

    def add(self, row: MadeRow) -> None:
        """Takes the next row. Raises GrootRosError for one without its state."""
        chosen = next((part for part in self._ranges if part.start_ns <= row.tick.stamp_ns < part.end_ns), None)
        if self._ranges and chosen is None:
            return
        if np.isinf(row.ages_s).any():
            raise GrootRosError(f'The bag {self._bag.path} lacks its state at the tick {row.tick.stamp_ns / 1e9:.3f} s: a stream has a gap there.')
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
        videos = {camera.name: self._folder / f'made_{number}_{camera.name}.mp4' for camera in self._embodiment.cameras}
        encoders = {c.name: Mp4Encoder(videos[c.name], c.width, c.height, fps, self._codec) for c in self._embodiment.cameras}
        self.spans.append(_Span([], encoders, videos, task))

    def close(self) -> None:
        """Ends the videos in hand."""
        for encoder in self.spans[-1].encoders.values() if self.spans else ():
            encoder.close()


def _made(bag: EpisodeBag, embodiment: Embodiment, folder: Path, codec: str, ranges: list[TimeRange]) -> Iterator[Stretch]:
    made = _Maker(bag, embodiment, folder, codec, ranges)
    try:
        rows = _feed(bag, embodiment, made)
    except GrootRosError as error:
        text = str(error)
        raise GrootRosError(text if str(bag.path) in text else f'The bag {bag.path} cannot be converted: {text.rstrip(".")}.') from error
    finally:
        made.close()
    if not made.spans:
        missing = ', '.join(rows.missing())
        why = f'{missing} has nothing' if missing else 'its streams do not overlap, or no time range meets them'
        raise GrootRosError(f'The bag {bag.path} gives no row: {why}.')
    for span in made.spans:
        if len(span.samples) > 1:
            facts = _facts(bag)
            facts.task = span.task or facts.task
            yield _VideoStretch(_rows(bag, embodiment, span.samples), facts, span.videos, embodiment.fps)


def _feed(bag: EpisodeBag, embodiment: Embodiment, made: '_Maker') -> RowMaker:
    """Hands the messages of a bag to a row maker, and its rows to `made`."""
    connections = bag.source_connections(embodiment)
    if problems := check_types(embodiment, {t: c.msgtype for t, c in connections.items() if c.msgtype not in (VIDEO_TYPE, EVENT_TYPE)}):
        raise GrootRosError('; '.join(problems))
    videos = {camera.topic for camera in embodiment.cameras if connections[camera.topic].msgtype == VIDEO_TYPE}
    # Stamps of video in our bags are corrected already.
    sources = tuple(camera.model_copy(update={'latency_s': 0.0}) if camera.topic in videos else camera for camera in embodiment.cameras)
    rows, frames = RowMaker(embodiment.model_copy(update={'cameras': sources}), made.add), _Frames(embodiment, videos)
    for message in bag.messages(connections):
        if message.type == EVENT_TYPE:
            if message.decode().kind == 'resumed':
                rows.new_segment()
            continue
        if message.topic in frames.topics:
            rows.take_frame(message.topic, frames.of(message))
        else:
            decoded = message.decode()
            _check_stamp(message.topic, stamp_of(decoded))
            rows.take(message.topic, decoded)
        rows.resolve(message.log_ns)
    return rows


class _Frames:
    """Frames of a bag's cameras, pictures or video of one size each."""

    def __init__(self, embodiment: Embodiment, videos: set[str]) -> None:
        self.topics = {camera.topic for camera in embodiment.cameras}
        self._decoders = {topic: H264Decoder() for topic in videos}
        self._sizes: dict[str, tuple[int, int]] = {}

    def of(self, message: BagMessage) -> Frame:
        """The frame of a message. Raises GrootRosError for one without a stamp or of another size than those before."""
        frame = self._decoded(message)
        _check_stamp(message.topic, frame.stamp_ns)
        size = self._sizes.setdefault(message.topic, frame.size)
        if frame.size != size:
            change = f'{size[0]}x{size[1]} to {frame.size[0]}x{frame.size[1]}'
            raise GrootRosError(f'{message.topic} changes from {change}: take the parts of one size with --ranges')
        return frame

    def _decoded(self, message: BagMessage) -> Frame:
        decoded = message.decode()
        if message.topic in self._decoders:
            stamp_ns = decoded.timestamp.sec * 1_000_000_000 + decoded.timestamp.nanosec
            return self._decoders[message.topic].decode(stamp_ns, access_unit_of(message))
        return frame_of(decoded)


def _check_stamp(topic: str, stamp_ns: int) -> None:
    if not stamp_ns:
        raise GrootRosError(f'{topic} comes with a stamp of zero: its driver does not stamp, so nobody knows when it was measured')


def _rows(bag: EpisodeBag, embodiment: Embodiment, samples: list[TickSample]) -> Rows:
    """Rows of samples whose rate must be the embodiment's; it is measured, so that a recovered bag is checked too."""
    measured = (len(samples) - 1) * 1e9 / (samples[-1].tick_ns - samples[0].tick_ns)
    if abs(measured / embodiment.fps - 1) > _RATE_TOLERANCE:
        raise GrootRosError(
            f'The bag {bag.path} was recorded at {measured:.2f} frames/s but the embodiment {embodiment.name} says {embodiment.fps:g}: '
            'set fps in the embodiment, or the camera, to the same rate.'
        )
    rows = rows_of(embodiment, samples)
    for kind, values, slices in (('state', rows.states, embodiment.state_slices), ('action', rows.actions, embodiment.action_slices)):
        for name, part in slices.items():
            if len(bad := np.flatnonzero(~np.isfinite(values[:, part]).all(axis=1))):
                raise GrootRosError(f'The bag {bag.path} cannot be converted: {kind} {name} is NaN or infinite at row {bad[0]}.')
    return rows


def _facts(bag: EpisodeBag) -> Facts:
    """What the recorder noted; a bag of another recorder was chosen by somebody who knows it."""
    outcome = str(bag.info.get('outcome', 'unknown')) if bag.info else 'success'
    notes = {'filled': bag.info.get('counts', {}).get('filled'), 'operator': bag.info.get('operator', '')}
    return Facts(str(bag.info.get('task', '')), outcome, notes)
