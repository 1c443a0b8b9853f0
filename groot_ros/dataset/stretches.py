"""Stretches of a bag without a pause, each an episode of the dataset: as recorded by us, or made of the messages of any recorder."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from groot_ros.bags.columns import columns_of
from groot_ros.bags.images import Frame, frame_of, stamp_in
from groot_ros.bags.reader import BagMessage, EpisodeBag, access_unit_of
from groot_ros.bags.row_maker import CameraFrames, MadeRow, RowMaker
from groot_ros.bags.types import EVENT_TYPE, VIDEO_TYPE
from groot_ros.bags.video import H264Decoder, H264Encoder
from groot_ros.bags.writer import EVENT_TOPIC
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.rows import RowSampler, TickSample


class Stretch:
    """Samples at the ticks, and for each camera as many H.264 access units."""

    samples: list[TickSample]

    def access_units(self, camera: CameraField) -> Iterator[bytes]:
        """The camera's access units, one a tick, the first of them a keyframe."""
        raise NotImplementedError


def stretches_of(bag: EpisodeBag, embodiment: Embodiment, folder: Path) -> list[Stretch]:
    """Those of our recorder at its own rate, else made anew; `folder` takes their video meanwhile."""
    recorded_fps = float(bag.info.get('fps', 0.0))
    if bag.has_rows and abs(recorded_fps - embodiment.fps) < 1e-9:
        return list(_recorded(bag, embodiment))
    return _made(bag, embodiment, folder)


def read_samples(bag: EpisodeBag, embodiment: Embodiment) -> list[TickSample]:
    """State and commands at each tick that our recorder set. Raises MissingSampleError where a stream has a gap."""
    return [sample for stretch in _recorded(bag, embodiment) for sample in stretch.samples]


@dataclass
class RecordedStretch(Stretch):
    """Ticks that the recorder set; `first` of them come before this stretch in the bag."""

    bag: EpisodeBag
    embodiment: Embodiment
    first: int
    samples: list[TickSample] = field(default_factory=list)

    def access_units(self, camera: CameraField) -> Iterator[bytes]:
        """Copied where they were recorded one a row, and else encoded of the frames nearest to the ticks."""
        connection = self.bag.connections(self.embodiment)[camera.video_topic]
        messages = self.bag.messages({camera.topic: connection})
        if connection.msgtype == VIDEO_TYPE:
            return (access_unit_of(message) for message in islice(messages, self.first, self.first + len(self.samples)))
        encoder = H264Encoder(camera.width, camera.height, self.embodiment.fps)
        return (encoder.encode(frame) for frame in self._nearest(messages, CameraFrames(camera)))

    def _nearest(self, messages: Iterator[BagMessage], frames: CameraFrames) -> Iterator[Frame]:
        for sample in self.samples:
            while not frames.covers(sample.tick_ns) and (message := next(messages, None)) is not None:
                frames.add(frame_of(message.decode()))
            yield frames.nearest(sample.tick_ns)


def _recorded(bag: EpisodeBag, embodiment: Embodiment) -> Iterator[RecordedStretch]:
    """State and commands at each tick of the recorder. Raises MissingSampleError where a stream has a gap."""
    wanted = [*embodiment.row_topics, 'row', EVENT_TOPIC]
    connections = {topic: connection for topic, connection in bag.connections(embodiment).items() if topic in wanted}
    kinds = {topic: connection.msgtype for topic, connection in connections.items()}
    batch: dict[str, list[bytes]] = {topic: [] for topic in connections}
    first = 0
    for message in bag.messages(connections):
        if message.type == EVENT_TYPE and message.decode().kind == 'resumed':
            stretch = RecordedStretch(bag, embodiment, first, _samples(embodiment, batch, kinds))
            yield stretch
            batch, first = {topic: [] for topic in connections}, first + len(stretch.samples)
        batch[message.topic].append(message.cdr)
    yield RecordedStretch(bag, embodiment, first, _samples(embodiment, batch, kinds))


def _samples(embodiment: Embodiment, batch: dict[str, list[bytes]], kinds: dict[str, str]) -> list[TickSample]:
    """A sample at each row of a batch; decoding messages one by one took nine tenths of a conversion."""
    sampler = RowSampler(embodiment)
    for source, stream in sampler.sources():
        if batch[source.topic]:
            stream.extend(*columns_of(batch[source.topic], kinds[source.topic], source))
    return [sampler.sample(stamp_in(row)) for row in batch['row']]


@dataclass
class MadeStretch(Stretch):
    """Ticks set as the recorder would have set them; the video waits in a file for each camera."""

    samples: list[TickSample] = field(default_factory=list)
    files: dict[str, tuple[BinaryIO, list[int]]] = field(default_factory=dict)

    def access_units(self, camera: CameraField) -> Iterator[bytes]:
        """Read back from the file."""
        file, lengths = self.files[camera.name]
        file.seek(0)
        return (file.read(length) for length in lengths)


class _Maker:
    """Makes stretches of rows: encodes each camera's frame at once, so that no picture is kept."""

    def __init__(self, bag: EpisodeBag, embodiment: Embodiment, folder: Path) -> None:
        self.stretches: list[MadeStretch] = []
        self._bag, self._embodiment, self._folder = bag, embodiment, folder
        self._encoders: dict[str, H264Encoder] = {}
        self._segment = -1

    def add(self, row: MadeRow) -> None:
        """Takes the next row. Raises GrootRosError for one without its state."""
        if np.isnan(row.state).any():
            raise GrootRosError(f'The bag {self._bag.path} lacks its state at the tick {row.tick.stamp_ns / 1e9:.3f} s: a stream has a gap there.')
        if row.segment != self._segment:
            self._begin(row.segment)
        stretch = self.stretches[-1]
        stretch.samples.append(TickSample(row.tick.stamp_ns, row.state, row.commands, row.ages_s))
        for camera in self._embodiment.cameras:
            unit = self._encoders[camera.name].encode(row.frames[camera.topic].fitted(camera.width, camera.height))
            file, lengths = stretch.files[camera.name]
            file.write(unit)
            lengths.append(len(unit))

    def _begin(self, segment: int) -> None:
        self._segment = segment
        stretch = MadeStretch()
        for camera in self._embodiment.cameras:
            self._encoders[camera.name] = H264Encoder(camera.width, camera.height, self._embodiment.fps)
            path = self._folder / f'{camera.name}_{segment}.h264'
            stretch.files[camera.name] = (path.open('w+b'), [])
            with suppress(OSError):
                path.unlink()  # the open file lives on, and nothing is left behind
        self.stretches.append(stretch)


def _made(bag: EpisodeBag, embodiment: Embodiment, folder: Path) -> list[Stretch]:
    connections = bag.source_connections(embodiment)
    cameras = {camera.topic: camera for camera in embodiment.cameras}
    videos = {topic for topic in cameras if connections[topic].msgtype == VIDEO_TYPE}
    # Stamps of video in our bags are corrected already.
    sources = tuple(camera.model_copy(update={'latency_s': 0.0}) if camera.topic in videos else camera for camera in embodiment.cameras)
    made, decoders = _Maker(bag, embodiment, folder), {topic: H264Decoder() for topic in videos}
    rows = RowMaker(embodiment.model_copy(update={'cameras': sources}), made.add)
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
    if not made.stretches:
        raise GrootRosError(f'The bag {bag.path} gives no row: {", ".join(rows.missing()) or "its streams do not overlap"} has nothing.')
    return list(made.stretches)
