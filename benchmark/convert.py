"""Conversion of a recorded bag, beside only reading it and beside decoding and encoding its video, in one run."""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / 'test'))
from conftest import SyntheticEpisode

from benchmark.common import options, report
from groot_ros.bags.reader import EpisodeBag
from groot_ros.bags.video import H264Decoder, H264Encoder
from groot_ros.dataset.convert import convert
from groot_ros.dataset.stretches import read_samples, stretches_of
from groot_ros.embodiment import load_embodiment

SECONDS = 60


def timed(work) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def read_all(bag: Path) -> None:
    with EpisodeBag(bag) as opened:
        for _ in opened.all_messages():
            pass


def sample_all(bag: Path, embodiment) -> None:
    with EpisodeBag(bag) as opened:
        read_samples(opened, embodiment)


def transcode(bag: Path, embodiment) -> None:
    """What a converter has to do that does not copy packets: decode every frame and encode it again, same settings."""
    camera = embodiment.cameras[0]
    decoder, encoder = H264Decoder(), H264Encoder(camera.width, camera.height, embodiment.fps)
    with EpisodeBag(bag) as opened:
        (stretch,) = stretches_of(opened, embodiment, bag)
        for unit in stretch.access_units(camera):
            encoder.encode(decoder.decode(0, unit))


def main() -> None:
    chosen = options(__doc__)
    embodiment = load_embodiment('ur5e_robotiq_zed')
    with tempfile.TemporaryDirectory() as folder:
        bag, output = Path(folder) / 'bag', Path(folder) / 'set'
        SyntheticEpisode(embodiment, seconds=SECONDS).record(bag)
        read_s = np.median([timed(lambda: read_all(bag)) for _ in range(3)])
        samples_s = timed(lambda: sample_all(bag, embodiment))
        started = convert([bag], output, embodiment)
        transcode_s = timed(lambda: transcode(bag, embodiment))
    report(
        f'Conversion of {SECONDS} s, one 640x480 camera at {embodiment.fps:g} Hz, state at 125 Hz',
        [
            ('rows', started.rows, ''),
            ('rows converted per second', started.rows / started.elapsed_s, '1/s'),
            ('times real time', started.rows / embodiment.fps / started.elapsed_s, ''),
            ('share of the conversion: only reading the bag', read_s / started.elapsed_s, ''),
            ('share of the conversion: rows (reading, decoding, sampling)', samples_s / started.elapsed_s, ''),
            ('share of the conversion: copying the video', started.video_s / started.elapsed_s, ''),
            ('decoding and encoding the video, over copying it', transcode_s / started.video_s, ''),
            ('peak resident memory of this process', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 'MiB'),
        ],
        chosen.json,
    )


if __name__ == '__main__':
    main()
