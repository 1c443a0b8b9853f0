"""Stretches of a bag: as our recorder recorded them, or made of the messages of any recorder."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from groot_ros.bags.columns import columns_of
from groot_ros.bags.images import Frame, frame_of, stamp_in
from groot_ros.bags.mp4 import Mp4Encoder, cut_mp4, keyframes_of, write_mp4
from groot_ros.bags.reader import BagMessage, EpisodeBag, access_unit_of
from groot_ros.bags.row_maker import CameraFrames, MadeRow, RowMaker
from groot_ros.bags.types import EVENT_TYPE, VIDEO_TYPE
from groot_ros.bags.video import H264Decoder, is_keyframe
from groot_ros.bags.writer import EVENT_TOPIC
from groot_ros.dataset.ranges import TimeRange, ranges_of_recorder
from groot_ros.dataset.stretches import Facts, Stretch, encoded
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.rows import Rows, RowSampler, TickSample, rows_of

_BATCH = 4096
_RATE_TOLERANCE = 0.02


def bag_stretches(bag: EpisodeBag, embodiment: Embodiment, folder: Path, codec: str, ranges: list[TimeRange]) -> list[Stretch]:
    """The episodes of a bag; `folder` takes videos that have to be made, `ranges` choose parts of the bag.

    Those of our recorder at its own rate are taken as they are, others are made anew. Raises GrootRosError for a bag that is unfit.
    """
    recorded_fps = float(bag.info.get('fps', 0.0))
    if bag.has_rows and abs(recorded_fps - embodiment.fps) < 1e-9 and not ranges:
        spans = [span for span in recorded_spans(bag, embodiment) if len(span.samples) > 1]
        return [_RecordedStretch(_rows(bag, embodiment, span.samples), _facts(bag), bag, embodiment, span.first, codec) for span in spans]
    return list(_made(bag, embodiment, folder, codec, ranges or ranges_of_recorder(bag)))


def read_samples(bag: EpisodeBag, embodiment: Embodiment) -> list[TickSample]:
    """State and commands at each tick that our recorder set. Raises MissingSampleError where a stream has a gap."""
    return [sample for span in recorded_spans(bag, embodiment) for sample in span.samples]


@dataclass
class RecordedSpan:
    """Samples at ticks that the recorder set, without a pause; `first` of its ticks come before them in the bag."""

    first: int
    samples: list[TickSample]


def recorded_spans(bag: EpisodeBag, embodiment: Embodiment) -> Iterator[RecordedSpan]:
    """State and commands at each tick of the recorder. Raises MissingSampleError where a stream has a gap."""
    wanted = [*embodiment.row_topics, 'row', EVENT_TOPIC]
    connections = {topic: connection for topic, connection in bag.connections(embodiment).items() if topic in wanted}
    kinds = {topic: connection.msgtype for topic, connection in connections.items()}
    sampling, first = _Sampling(embodiment, kinds), 0
    for message in bag.messages(connections):
        if message.type == EVENT_TYPE:
            if message.decode().kind == 'resumed':
                samples = sampling.finish()
                yield RecordedSpan(first, samples)
                sampling, first = _Sampling(embodiment, kinds), first + len(samples)
        else:
            sampling.add(message)
    yield RecordedSpan(first, sampling.finish())


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
        while self._ticks and (at_end or self._sampler.covers(self._ticks[0])):
            self._samples.append(self._sampler.sample(self._ticks.popleft()))
        if self._samples:
            self._sampler.forget_before(self._samples[-1].tick_ns)


@dataclass
class _RecordedStretch(Stretch):
    """Ticks of the recorder; `first` of them come before it in the bag."""

    bag: EpisodeBag
    embodiment: Embodiment
    first: int
    codec: str

    def start_by(self, row: int) -> int:
        """A keyframe of all cameras whose packets are copied."""
        common = set(range(row + 1))
        for camera in self.embodiment.cameras:
            if row and self._is_copied(camera):
                common &= {index for index, unit in enumerate(self._units(camera, 0, row + 1)) if is_keyframe(unit)}
        return max(common, default=0)

    def write_video(self, camera: CameraField, path: Path, first: int, count: int) -> int:
        """Copied where they were recorded one a row in this size and codec, else encoded of the frames nearest to the ticks."""
        if self._is_copied(camera):
            return write_mp4(self._units(camera, first, count), path, self.embodiment.fps)
        return encoded(islice(self._frames(camera, first + count), first, None), camera, path, self.embodiment.fps, self.codec)

    def _is_copied(self, camera: CameraField) -> bool:
        if self.codec != 'h264' or self._connection(camera).msgtype != VIDEO_TYPE:
            return False
        unit = next(self._units(camera, 0, 1), None)
        return unit is not None and H264Decoder().decode(0, unit).size == (camera.width, camera.height)

    def _connection(self, camera: CameraField):
        return self.bag.connections(self.embodiment)[camera.video_topic]

    def _units(self, camera: CameraField, first: int, count: int) -> Iterator[bytes]:
        messages = self.bag.messages({camera.topic: self._connection(camera)})
        return (access_unit_of(message) for message in islice(messages, self.first + first, self.first + first + count))

    def _frames(self, camera: CameraField, count: int) -> Iterator[Frame]:
        if self._connection(camera).msgtype == VIDEO_TYPE:
            decoder = H264Decoder()
            yield from (decoder.decode(0, unit) for unit in self._units(camera, 0, count))
            return
        messages, frames = self.bag.messages({camera.topic: self._connection(camera)}), CameraFrames(camera)
        for tick_ns in self.rows.ticks_ns[:count]:
            while not frames.covers(tick_ns) and (message := next(messages, None)) is not None:
                frames.add(frame_of(message.decode()))
            yield frames.nearest(tick_ns)


@dataclass
class _MadeStretch(Stretch):
    """Ticks set as the recorder would have set them; the videos are encoded already."""

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
        if first == 0 and count == len(self.rows):
            self.videos[camera.name].replace(path)
            return count
        return cut_mp4(self.videos[camera.name], path, first, count, self.fps)


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
        if np.isnan(row.state).any():
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
    connections = bag.source_connections(embodiment)
    cameras = {camera.topic: camera for camera in embodiment.cameras}
    videos = {topic for topic in cameras if connections[topic].msgtype == VIDEO_TYPE}
    # Stamps of video in our bags are corrected already.
    sources = tuple(camera.model_copy(update={'latency_s': 0.0}) if camera.topic in videos else camera for camera in embodiment.cameras)
    made, decoders = _Maker(bag, embodiment, folder, codec, ranges), {topic: H264Decoder() for topic in videos}
    rows = RowMaker(embodiment.model_copy(update={'cameras': sources}), made.add)
    try:
        for message in bag.messages(connections):
            if message.type == EVENT_TYPE:
                if message.decode().kind == 'resumed':
                    rows.new_segment()
                continue
            decoded = message.decode()
            if message.topic in videos:
                stamp_ns = decoded.timestamp.sec * 1_000_000_000 + decoded.timestamp.nanosec
                rows.take_frame(message.topic, decoders[message.topic].decode(stamp_ns, access_unit_of(message)))
            elif message.topic in cameras:
                rows.take_frame(message.topic, frame_of(decoded))
            else:
                rows.take(message.topic, decoded)
            rows.resolve(message.log_ns)
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
            yield _MadeStretch(_rows(bag, embodiment, span.samples), facts, span.videos, embodiment.fps)


def _rows(bag: EpisodeBag, embodiment: Embodiment, samples: list[TickSample]) -> Rows:
    """Rows of samples whose rate must be the embodiment's; it is measured, so that a recovered bag is checked too."""
    measured = (len(samples) - 1) * 1e9 / (samples[-1].tick_ns - samples[0].tick_ns)
    if abs(measured / embodiment.fps - 1) > _RATE_TOLERANCE:
        raise GrootRosError(
            f'The bag {bag.path} was recorded at {measured:.2f} frames/s but the embodiment {embodiment.name} says {embodiment.fps:g}: '
            'set fps in the embodiment, or the camera, to the same rate.'
        )
    return rows_of(embodiment, samples)


def _facts(bag: EpisodeBag) -> Facts:
    """What the recorder noted; a bag of another recorder was chosen by somebody who knows it."""
    outcome = str(bag.info.get('outcome', 'unknown')) if bag.info else 'success'
    notes = {'filled': bag.info.get('counts', {}).get('filled'), 'operator': bag.info.get('operator', '')}
    return Facts(str(bag.info.get('task', '')), outcome, notes)
