# SPDX-License-Identifier: Apache-2.0
"""The recorder node, fed by another process: lost messages, CPU, memory, and its reports under overload."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rclpy
import yaml
from groot_ros.msg import EpisodeStatus
from groot_ros.srv import StartEpisode, StopEpisode

from benchmark.common import report
from groot_ros.bags.reader import EpisodeBag
from groot_ros.embodiment import load_embodiment
from groot_ros.quality.trace_from_bag import load_bag_embodiment, load_trace
from groot_ros.resources import VERDICT_FILE
from groot_ros.ros.qos import STATUS_QOS

PAGE_BYTES = os.sysconf('SC_PAGE_SIZE')
TICKS_PER_S = os.sysconf('SC_CLK_TCK')
SETTLE_S = 4.0
SLOPE_AFTER_S = 10.0


def embodiment_file(folder: Path, cameras: int, size: tuple[int, int]) -> Path:
    """ur5e_robotiq_zed with other cameras, at 30 Hz."""
    values = yaml.safe_load(load_embodiment('ur5e_robotiq_zed').text())
    values['fps'] = 30
    values['cameras'] = [
        {'name': f'camera{k}', 'topic': f'camera{k}/image', 'width': size[0], 'height': size[1]}
        for k in range(cameras)
    ]
    path = folder / f'{cameras}x{size[1]}.yaml'
    path.write_text(yaml.safe_dump(values))
    return path


class Watcher:
    """A node that starts and stops episodes and reads episode_status."""

    def __init__(self) -> None:
        self.node = rclpy.create_node('watcher')
        self.status = EpisodeStatus()
        self.problems: list[tuple[float, str]] = []
        self.began_s = 0.0
        self.node.create_subscription(EpisodeStatus, 'episode_status', self._note, STATUS_QOS)

    def _note(self, status: EpisodeStatus) -> None:
        self.status = status
        if status.state == EpisodeStatus.RECORDING:
            self.problems += [(time.monotonic() - self.began_s, problem) for problem in status.problems]

    def spin(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            rclpy.spin_once(self.node, timeout_sec=0.1)

    def call(self, kind, name: str, request):
        client = self.node.create_client(kind, f'recorder/{name}')
        client.wait_for_service(30.0)
        future = client.call_async(request)
        rclpy.spin_until_future_complete(self.node, future, timeout_sec=120.0)
        return future.result()


def processor_s(pid: int) -> float:
    fields = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def resident_mib(pid: int) -> float:
    return int(Path(f'/proc/{pid}/statm').read_text().split()[1]) * PAGE_BYTES / 2**20


def episode(
    folder: Path, video: str, cameras: int, size: tuple[int, int], seconds: float
) -> list[tuple[str, float, str]]:
    """Records one episode and returns its figures (name, value, unit)."""
    title = f'{video}, {cameras} x {size[0]}x{size[1]}'
    publisher = subprocess.Popen(
        [sys.executable, '-m', 'benchmark.publisher', '--cameras', str(cameras), '--size', *map(str, size)],
        stdout=subprocess.PIPE,
        text=True,
    )
    words = [
        f'embodiment:={embodiment_file(folder, cameras, size)}',
        f'output_dir:={folder}',
        f'video:={video}',
        'report:=false',
    ]
    recorder = subprocess.Popen(
        [
            sys.executable,
            '-m',
            'groot_ros.nodes.recorder',
            '--ros-args',
            *(w for p in words for w in ('-p', p)),
        ]
    )
    watcher = Watcher()
    try:
        while not (
            watcher.status.streams
            and all(stream.rate for stream in watcher.status.streams if stream.expected_rate)
        ):
            watcher.spin(0.5)
        watcher.spin(SETTLE_S)
        watcher.began_s = time.monotonic()
        answer = watcher.call(StartEpisode, 'start', StartEpisode.Request(task=title, force=True))
        assert answer.success, answer.message
        watcher.began_s = time.monotonic()
        before_s = processor_s(recorder.pid)
        times_s = []
        resident = []
        while (now_s := time.monotonic() - watcher.began_s) < seconds:
            watcher.spin(1.0)
            times_s.append(now_s)
            resident.append(resident_mib(recorder.pid))
        share = (processor_s(recorder.pid) - before_s) / (time.monotonic() - watcher.began_s)
        answer = watcher.call(StopEpisode, 'stop', StopEpisode.Request(succeeded=True))
        publisher.terminate()
        sent = json.loads(publisher.communicate(timeout=30)[0])
    finally:
        for process in (publisher, recorder):
            process.terminate()
            process.wait(30)
        watcher.node.destroy_node()
    figures = bag_figures(folder / answer.episode, sent['sent'])
    late = np.array(times_s) > SLOPE_AFTER_S
    slope = (
        np.polyfit(np.array(times_s)[late], np.array(resident)[late], 1)[0] * 60
        if late.sum() > 2
        else float('nan')
    )
    figures += [
        ('share of a core', share, ''),
        ('resident memory at the end', resident[-1], 'MiB'),
        ('slope of the resident memory', slope, 'MiB/min'),
        ('the publisher was late by up to', sent['late_s'] * 1e3, 'ms'),
        ('first problem reported after', watcher.problems[0][0] if watcher.problems else float('nan'), 's'),
    ]  # fmt: skip
    for _, problem in watcher.problems[:1]:
        print(f'  {title}: it said "{problem}"')
    print(f'  {title}: {answer.message}')
    return [(f'{title}: {name}', value, unit) for name, value, unit in figures]


def bag_figures(path: Path, sent: dict[str, list[int]]) -> list[tuple[str, float, str]]:
    """Counts at both ends: what was sent between the first and the last stamp in the bag has to be in it."""
    verdict = json.loads((path / VERDICT_FILE).read_text())
    with EpisodeBag(path) as bag:
        trace = load_trace(bag, load_bag_embodiment(bag))
        seconds = bag.duration_s
    received_count = sum(len(stream.stamps_ns) for stream in trace.streams.values())
    missed = 0
    for topic, stamps_ns in sent.items():
        received = np.array(trace.streams[topic].stamps_ns)
        published = np.array(stamps_ns)
        within = published[(published >= received[0]) & (published <= received[-1])]
        missed += len(np.setdiff1d(within, received))
    size = sum(file.stat().st_size for file in path.glob('*.mcap'))
    return [
        ('rows', trace.rows, ''),
        ('filled', trace.filled, ''),
        ('messages received', received_count, ''),
        ('messages sent and not in the bag', missed, ''),
        ('messages lost by its own count', verdict['lost'], ''),
        ('written', size / seconds / 1e6, 'MB/s'),
        ('verdict (0 pass, 1 warn, 2 fail)', ('pass', 'warn', 'fail').index(verdict['verdict']), ''),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=60.0, help='length of the h264 episode (default 60)')
    parser.add_argument(
        '--other-seconds',
        type=float,
        default=30.0,
        help='length of the jpeg and raw episodes, and of each step of the stress',
    )
    parser.add_argument(
        '--most-cameras', type=int, default=4, help='how many 1280x720 cameras the stress goes up to'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures to a file')
    chosen = parser.parse_args()
    os.environ.update(ROS_DOMAIN_ID=str(60 + os.getpid() % 30), ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST')
    rclpy.init()
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for video, seconds in (
            ('h264', chosen.seconds),
            ('jpeg', chosen.other_seconds),
            ('raw', chosen.other_seconds),
        ):
            figures += episode(Path(folder), video, 2, (640, 480), seconds)
        for cameras in range(1, chosen.most_cameras + 1):
            figures += episode(Path(folder), 'h264', cameras, (1280, 720), chosen.other_seconds)
    report(
        'The recorder, fed by another process at 30 Hz (cameras), 125 Hz (arm) and 50 Hz (gripper)',
        figures,
        chosen.json,
    )


if __name__ == '__main__':
    main()
