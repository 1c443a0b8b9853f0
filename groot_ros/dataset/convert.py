"""Bags to a GR00T dataset: rows sampled at the recorder's ticks, video packets copied without decoding."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from groot_ros.bags.images import Frame, frame_of
from groot_ros.bags.reader import BagMessage, EpisodeBag, access_unit_of, find_bags, is_row
from groot_ros.bags.row_maker import CameraFrames
from groot_ros.bags.types import EVENT_TYPE, VIDEO_TYPE
from groot_ros.bags.video import H264Encoder, write_mp4
from groot_ros.bags.writer import EVENT_TOPIC
from groot_ros.dataset.lerobot import DatasetWriter, Provenance
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.rows import RowSampler, TickSample, rows_of, stamp_of

HORIZON = 16
_RATE_TOLERANCE = 0.02


@dataclass
class ConversionReport:
    """What came of a conversion; times in s. `skipped` maps bags to why they were left out."""

    output: Path
    episodes: int = 0
    rows: int = 0
    elapsed_s: float = 0.0
    rows_s: float = 0.0
    video_s: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)


def convert(
    sources: list[Path],
    output: Path,
    embodiment: Embodiment,
    *,
    horizon: int = HORIZON,
    skip_bad: bool = False,
    progress: Callable[[list[Path]], Iterator[Path]] = iter,
) -> ConversionReport:
    """Converts every bag below `sources` to a dataset at `output`.

    Raises GrootRosError, and leaves nothing behind, where a bag is unfit; with `skip_bad` such a bag is left out instead.
    `progress` may wrap the list of bags, as tqdm does.
    """
    started_s = time.perf_counter()
    bags = find_bags(sources)
    writer = DatasetWriter(output, embodiment)
    report = ConversionReport(output)
    try:
        for bag in progress(bags):
            try:
                _convert_bag(bag, writer, horizon, report)
            except GrootRosError as error:
                report.skipped[str(bag)] = str(error)
        if report.skipped and not (skip_bad and writer.episodes):
            raise GrootRosError(_refusal(report.skipped, skip_bad))
        writer.finish()
    except BaseException:
        writer.abandon()
        raise
    report.elapsed_s = time.perf_counter() - started_s
    return report


def read_segments(bag: EpisodeBag, embodiment: Embodiment) -> list[list[TickSample]]:
    """State and commands at each tick that the recorder set, by the stretches between its pauses.

    Raises MissingSampleError where a stream has a gap.
    """
    sampler, pending, segments = RowSampler(embodiment), deque(), [[]]
    wanted = [*embodiment.row_topics, 'row', EVENT_TOPIC]
    connections = {topic: connection for topic, connection in bag.connections(embodiment).items() if topic in wanted}
    for message in bag.messages(connections):
        if is_row(message):
            pending.append(stamp_of(message.decode()))
        elif message.type == EVENT_TYPE:
            if message.decode().kind == 'resumed':
                segments[-1].extend(_sample(sampler, tick_ns) for tick_ns in pending)
                sampler, pending = RowSampler(embodiment), deque()
                segments.append([])
        else:
            sampler.add(message.topic, message.decode())
        while pending and sampler.covers(pending[0]):
            segments[-1].append(_sample(sampler, pending.popleft()))
    segments[-1].extend(_sample(sampler, tick_ns) for tick_ns in pending)
    return segments


def read_samples(bag: EpisodeBag, embodiment: Embodiment) -> list[TickSample]:
    """The samples of every segment, one behind the other."""
    return [sample for segment in read_segments(bag, embodiment) for sample in segment]


def access_units(bag: EpisodeBag, embodiment: Embodiment, camera: CameraField, ticks_ns: list[int], first: int = 0) -> Iterator[bytes]:
    """The camera's H.264 access units at some ticks, of which the bag has `first` before them.

    They are copied where they were recorded one a row, and else encoded of the frames nearest to the ticks.
    """
    connection = bag.connections(embodiment)[camera.video_topic]
    messages = bag.messages({camera.topic: connection})
    if connection.msgtype == VIDEO_TYPE:
        return (access_unit_of(message) for message in islice(messages, first, first + len(ticks_ns)))
    encoder = H264Encoder(camera.width, camera.height, embodiment.fps)
    return (encoder.encode(frame) for frame in _nearest_frames(messages, CameraFrames(camera), ticks_ns))


def _nearest_frames(messages: Iterator[BagMessage], frames: CameraFrames, ticks_ns: list[int]) -> Iterator[Frame]:
    for tick_ns in ticks_ns:
        while not frames.covers(tick_ns) and (message := next(messages, None)) is not None:
            frames.add(frame_of(message.decode()))
        yield frames.nearest(tick_ns)


def _sample(sampler: RowSampler, tick_ns: int) -> TickSample:
    sample = sampler.sample(tick_ns)
    sampler.forget_before(tick_ns)
    return sample


def _convert_bag(path: Path, writer: DatasetWriter, horizon: int, report: ConversionReport) -> None:
    with EpisodeBag(path) as bag:
        started_s = time.perf_counter()
        segments = read_segments(bag, writer.embodiment)
        longest = max(len(segment) for segment in segments)
        if longest <= horizon:
            raise GrootRosError(
                f'The episode {path} has {max(longest - 1, 0)} rows, fewer than the horizon of {horizon}, '
                'so GR00T would take no sample from it: record it longer, or leave it out with --skip-bad.'
            )
        report.rows_s += time.perf_counter() - started_s
        first = 0
        for number, segment in enumerate(segments):
            if len(segment) > horizon:
                name = path.name if len(segments) == 1 else f'{path.name} segment {number}'
                _convert_segment(bag, segment, first, name, writer, report)
            first += len(segment)


def _convert_segment(bag: EpisodeBag, samples: list[TickSample], first: int, name: str, writer: DatasetWriter, report: ConversionReport) -> None:
    """One stretch without a pause becomes one episode of the dataset; `first` counts the ticks before it in the bag."""
    embodiment, started_s = writer.embodiment, time.perf_counter()
    _check_rate(bag.path, samples, embodiment)
    rows = rows_of(embodiment, samples)
    read_s = time.perf_counter()
    for camera in embodiment.cameras:
        units = access_units(bag, embodiment, camera, rows.ticks_ns.tolist(), first)
        frames = write_mp4(units, writer.video_path(camera.feature), embodiment.fps)
        if frames != len(rows.states):
            raise GrootRosError(f'The bag {bag.path} has {frames} frames of {camera.name} for {len(rows.states)} rows: its recording is damaged.')
    outcome = str(bag.info.get('outcome', 'unknown'))
    notes = {'filled': bag.info.get('counts', {}).get('filled'), 'operator': bag.info.get('operator', '')}
    writer.add_episode(rows, str(bag.info.get('task', '')), Provenance(name, _sha256(bag.path), outcome, notes))
    report.rows_s += read_s - started_s
    report.video_s += time.perf_counter() - read_s
    report.rows += len(rows.states)
    report.episodes += 1


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
