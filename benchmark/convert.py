# SPDX-License-Identifier: Apache-2.0
"""Conversion compared with only reading the bag, a bare decode-and-encode loop, and LeRobot's own writer.

Memory and truth are measured too. --lerobot makes two environments with LeRobot below build/ (minutes,
some GB) and compares with its writer.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmark import convert_against_lerobot, convert_truth
from benchmark.bags import FPS, recorded
from benchmark.common import report
from groot_ros.bags.reader import EpisodeBag
from groot_ros.dataset.convert import convert
from groot_ros.dataset.options import ConversionOptions
from groot_ros.recording.episode_recorder import RecordingSettings
from groot_ros.video.frame import VideoFrame, decode_frame
from groot_ros.video.mp4 import Mp4Encoder

Figures = list[tuple[str, float, str]]
REMUX_S = 180
TRANSCODE_S = 30
RAW_S = 20
REPEATS = 5


def timed(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def fresh(sources: list[Path], output: Path, embodiment, **options) -> float:
    """Seconds of a conversion into a new dataset."""
    shutil.rmtree(output, ignore_errors=True)
    return timed(lambda: convert(sources, output, embodiment, ConversionOptions(**options)))


def read_all(bag: Path) -> None:
    with EpisodeBag(bag) as opened:
        for _ in opened.all_messages():
            pass


def remux(folder: Path) -> Figures:
    """Packets of the recorder's video are copied."""
    bag = folder / 'remux'
    embodiment = recorded(bag, REMUX_S)
    rows = round(REMUX_S * FPS) - 3
    pairs = [
        (timed(lambda: read_all(bag)), fresh([bag], folder / 'remux_set', embodiment)) for _ in range(REPEATS)
    ]
    read_s, all_s = np.median(pairs, axis=0)
    best_s = min(seconds for _, seconds in pairs)
    return [
        ('remux, two cameras at 30 Hz: rows a second, median', rows / all_s, '1/s'),
        ('the same, best', rows / best_s, '1/s'),
        ('times real time, median', REMUX_S / all_s, ''),
        ('share of only reading the bag', read_s / all_s, ''),
    ]


def frames_in(bag: Path, embodiment) -> dict[str, list]:
    """Returns the JPEG bytes, or the images, of each camera."""
    found: dict[str, list] = {}
    with EpisodeBag(bag) as opened:
        for camera in embodiment.cameras:
            connection = opened.connections(embodiment)[camera.video_topic]
            messages = (message.decode() for message in opened.messages({camera.topic: connection}))
            found[camera.name] = [
                message.data if hasattr(message, 'format') else decode_frame(message) for message in messages
            ]
    return found


def bare_loop(frames: dict[str, list], folder: Path, embodiment) -> None:
    """Decodes each image and encodes it, which no converter can avoid."""
    for camera in embodiment.cameras:
        encoder = Mp4Encoder(folder / 'bare.mp4', camera.width, camera.height, embodiment.fps, 'h264')
        for image in frames[camera.name]:
            if not isinstance(image, VideoFrame):
                image = VideoFrame(0, cv2.imdecode(image, cv2.IMREAD_COLOR), 'bgr24')
            encoder.add(image)
        encoder.close()


def transcode(folder: Path) -> Figures:
    """Images are decoded, sampled at the ticks and encoded."""
    found: Figures = []
    for video, seconds in (('jpeg', TRANSCODE_S), ('raw', RAW_S)):
        bag = folder / video
        embodiment = recorded(bag, seconds, RecordingSettings(video=video))
        frames = frames_in(bag, embodiment)
        output = folder / f'{video}_set'
        bare = partial(bare_loop, frames, folder, embodiment)
        pairs = [(timed(bare), fresh([bag], output, embodiment)) for _ in range(REPEATS)]
        bare_s, ours_s = np.median(pairs, axis=0)
        found += [
            (f'{video}: rows a second', seconds * FPS / ours_s, '1/s'),
            (
                f'{video}: throughput over a bare decode-and-encode loop',
                float(np.median([bare / ours for bare, ours in pairs])),
                '',
            ),
            (f'{video}: bare loop', seconds * FPS / bare_s, '1/s'),
        ]
    return [*found, *workers(folder, embodiment)]


def workers(folder: Path, embodiment) -> Figures:
    """Two episodes by two workers, against one; the median leaves out the first start of the workers."""
    shutil.copytree(folder / 'jpeg', folder / 'jpegs/one')
    shutil.copytree(folder / 'jpeg', folder / 'jpegs/two')
    pairs = [
        [fresh([folder / 'jpegs'], folder / 'jpegs_set', embodiment, workers=count) for count in (1, 2)]
        for _ in range(REPEATS)
    ]
    return [
        ('two jpeg episodes: one worker over two', float(np.median([one / two for one, two in pairs])), '')
    ]


_CONVERT = """
import re, sys
from pathlib import Path
from groot_ros.dataset.convert import convert
from groot_ros.embodiment import parse_embodiment
bag, output, text = sys.argv[1:]
convert([Path(bag)], Path(output), parse_embodiment(Path(text).read_text(), 'of the benchmark'))
print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024)
"""


def memory(folder: Path) -> Figures:
    """Maximum resident memory of a process that converts one bag with two cameras."""
    found: Figures = []
    for minutes in (1, 10):
        bag = folder / f'{minutes}_min'
        text = folder / 'embodiment.yaml'
        text.write_text(recorded(bag, 60.0 * minutes).text())
        command = [sys.executable, '-c', _CONVERT, bag, folder / f'{minutes}_min_set', text]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append((f'max resident memory, {minutes} min', float(done.stdout.splitlines()[-1]), 'MiB'))
        shutil.rmtree(bag)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--lerobot', action='store_true', help="compare with LeRobot's writer")
    parser.add_argument(
        '--newer-python', default='', metavar='PATH', help='interpreter of Python 3.12 for LeRobot 0.6.1'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures to a file')
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures: Figures = []
        for stage in (remux, transcode, memory, convert_truth.figures):
            figures += stage(folder)
            print(f'  {len(figures)} figures', flush=True)
        if chosen.lerobot:
            figures += convert_against_lerobot.figures(folder, chosen.newer_python)
    report('Conversion, two 640x480 cameras at 30 Hz, arm at 125 Hz', figures, chosen.json)


if __name__ == '__main__':
    main()
