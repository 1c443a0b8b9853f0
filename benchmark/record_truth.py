# SPDX-License-Identifier: Apache-2.0
"""The recorder against known signals under latency, jitter, drift, odd rates and faults; and kill -9."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from benchmark import signals
from benchmark.common import report
from benchmark.signals import STATE_TYPES, T0_NS
from groot_ros.bags.message_types import IMAGE_TYPE, ROW_TOPIC, serialized
from groot_ros.bags.reader import EpisodeBag
from groot_ros.bags.recover import recover_bag
from groot_ros.dataset.sources.bag_recorded import read_samples
from groot_ros.embodiment import Embodiment, load_embodiment, parse_embodiment
from groot_ros.message_fields import header_stamp_ns
from groot_ros.quality.verdict import judge, load_thresholds
from groot_ros.recording.episode_recorder import EpisodeRecording
from groot_ros.video.h264 import H264Decoder

ARM_HZ = 125.0
GRIPPER_HZ = 50.0


@dataclass
class Scenario:
    """How the messages of an episode come.

    Times in s; `stamp` turns the true time of a message of a topic into what its stamp says.
    """

    fps: float = 30.0
    camera_hz: tuple[float, ...] = (30.0, 25.0)
    seconds: float = 20.0
    delay: Callable[[np.random.Generator, str], float] = lambda rng, topic: 0.002
    stamp: Callable[[str, float], float] = lambda topic, t: t
    drop: Callable[[np.random.Generator, str], bool] = lambda rng, topic: False
    swap: float = 0.0
    latencies: dict[str, float] = field(default_factory=dict)
    size: tuple[int, int] = (320, 240)
    state_hz: float = ARM_HZ


LATE = {
    'joint_states': 0.012,
    'tcp_pose': 0.012,
    'gripper/state': 0.035,
    'camera0/image': 0.06,
    'camera1/image': 0.045,
}
SCENARIOS = {
    'even': Scenario(),
    'arrival jitter up to 40 ms': Scenario(delay=lambda rng, topic: 0.002 + 0.04 * rng.random()),
    'calibrated latencies of 12 to 60 ms': Scenario(stamp=lambda topic, t: t + LATE[topic], latencies=LATE),
    'clock of the arm drifts by 100 ppm': Scenario(
        seconds=60.0, stamp=lambda topic, t: t * 1.0001 if topic in ('joint_states', 'tcp_pose') else t
    ),
    'camera of 29.97 Hz': Scenario(camera_hz=(30000 / 1001, 25.0)),
    'camera of 60 Hz': Scenario(camera_hz=(60.0, 30.0)),
    'camera of 29.97 Hz, rows at 20 Hz': Scenario(fps=20.0, camera_hz=(30000 / 1001, 60.0)),
    '1 % of frames dropped': Scenario(drop=lambda rng, topic: 'camera' in topic and rng.random() < 0.01),
    '0.2 % of arm messages out of order': Scenario(swap=0.002),
}


def make_embodiment(scenario: Scenario) -> Embodiment:
    values = yaml.safe_load(load_embodiment('ur5e_robotiq_zed').text())
    values['fps'] = scenario.fps
    values['cameras'] = []
    for k, hz in enumerate(scenario.camera_hz):
        topic = f'camera{k}/image'
        camera = {
            'name': f'camera{k}',
            'topic': topic,
            'width': scenario.size[0],
            'height': scenario.size[1],
            'rate_hz': hz,
        }
        values['cameras'].append({**camera, 'obs_latency_s': scenario.latencies.get(topic, 0.0)})
    for part in values['state'] + values['action']:
        part['obs_latency_s'] = scenario.latencies.get(part.get('topic', ''), 0.0)
    return parse_embodiment(yaml.safe_dump(values), 'scenario')


class Messages:
    """The serialized messages of a scenario in the order of their arrival."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._images = signals.Images(*scenario.size)

    def __iter__(self):
        rng = np.random.default_rng(1)
        scenario = self._scenario
        entries = []
        rates = {
            'joint_states': scenario.state_hz,
            'tcp_pose': scenario.state_hz,
            'gripper/state': GRIPPER_HZ,
        }
        rates |= {f'camera{k}/image': hz for k, hz in enumerate(scenario.camera_hz)}
        for number, (topic, hz) in enumerate(rates.items()):
            previous_s = 0.0
            for k in range(int(scenario.seconds * hz)):
                t = k / hz + 0.0013 * number
                if scenario.drop(rng, topic):
                    continue
                # A topic's messages do not overtake each other.
                previous_s = max(
                    previous_s, t + scenario.delay(rng, topic) + scenario.latencies.get(topic, 0.0)
                )
                entries.append([previous_s, topic, t])
        entries.sort(key=lambda entry: entry[0])
        self._swap(entries, rng)
        for arrival_s, topic, t in entries:
            stamp_ns = T0_NS + round(scenario.stamp(topic, t) * 1e9)
            yield topic, T0_NS + round(arrival_s * 1e9), self._serialize(topic, stamp_ns, t)

    def _swap(self, entries: list, rng: np.random.Generator) -> None:
        last: dict[str, int] = {}
        for index, (_, topic, _) in enumerate(entries):
            if topic in ('joint_states', 'tcp_pose') and topic in last and rng.random() < self._scenario.swap:
                entries[index][2], entries[last[topic]][2] = entries[last[topic]][2], entries[index][2]
            last[topic] = index

    def _serialize(self, topic: str, stamp_ns: int, t: float) -> bytes:
        if topic == 'joint_states':
            message = signals.joint_state_message(stamp_ns, signals.joints(t), signals.velocities(t))
        elif topic == 'tcp_pose':
            message = signals.tcp_pose_message(stamp_ns, signals.pose(t))
        elif topic == 'gripper/state':
            message = signals.gripper_message(stamp_ns, signals.opening(t))
        else:
            message = signals.image_message(stamp_ns, self._images.at(round(t * 1e9)))
        return serialized(message, STATE_TYPES.get(topic, IMAGE_TYPE))


def record(scenario: Scenario, path: Path) -> tuple[Embodiment, str, list[str]]:
    """Records a scenario and returns its embodiment, verdict and reasons."""
    embodiment = make_embodiment(scenario)
    topics = {**STATE_TYPES, **{camera.topic: IMAGE_TYPE for camera in embodiment.cameras}}
    info = {
        'task': 'truth',
        'embodiment': embodiment.text(),
        'namespace': '/',
        'fps': embodiment.fps,
        'video': 'h264',
    }
    recording = EpisodeRecording(path, embodiment, topics, info)
    for topic, arrival_ns, cdr in Messages(scenario):
        while recording.queue_length > 500:
            time.sleep(0.001)
        recording.put(topic, arrival_ns, cdr)
    verdict = judge(recording.finish({'outcome': 'success'}), load_thresholds(), info, path.name)
    return embodiment, verdict.verdict, verdict.reasons


def truth_figures(name: str, scenario: Scenario, path: Path) -> list[tuple[str, float, str]]:
    embodiment, verdict, reasons = record(scenario, path)
    with EpisodeBag(path) as bag:
        connections = bag.connections(embodiment)
        rows = [message.decode() for message in bag.messages({ROW_TOPIC: connections[ROW_TOPIC]})]
        converted = np.array([sample.state for sample in read_samples(bag, embodiment)])
        seen = []
        for camera in embodiment.cameras:
            decoder = H264Decoder()
            messages = bag.messages({camera.video_topic: connections[camera.video_topic]})
            frames = [decoder.decode(0, message.decode().data.tobytes()) for message in messages]
            seen.append(
                np.array([signals.Images(*scenario.size).time_ns(frame.pixels) for frame in frames]) / 1e9
            )
    live = np.array([row.state for row in rows])
    ticks_s = np.array([(header_stamp_ns(row) - T0_NS) / 1e9 for row in rows])
    own = np.array([not row.frame_filled for row in rows])
    truth = np.array([signals.state(t) for t in ticks_s])
    print(f'  {name}: {verdict}{": " + " ".join(reasons[:3]) if reasons else ""}')
    tcp_errors_m = np.linalg.norm(live[:, 13:16] - truth[:, 13:16], axis=1)
    joint_errors_rad = np.abs(live[:, :6] - truth[:, :6])
    skews_s = [float(np.percentile(np.abs(times_s - ticks_s)[own], 95)) for times_s in seen]
    figures = [
        ('rows', len(rows), ''),
        ('filled', int((~own).sum()), ''),
        ('TCP position at the tick, largest error', tcp_errors_m.max() * 1e3, 'mm'),
        ('joints at the tick, largest error', joint_errors_rad.max() * 1e3, 'mrad'),
        ('reference frame from the tick, p95', skews_s[0] * 1e3, 'ms'),
        ('other frame from the tick, p95, in its periods', skews_s[1] * scenario.camera_hz[1], ''),
        ('numbers that differ from the converted rows', int((live != converted).sum()), ''),
        ('verdict (0 pass, 1 warn, 2 fail)', ('pass', 'warn', 'fail').index(verdict), ''),
    ]  # fmt: skip
    return [(f'{name}: {label}', value, unit) for label, value, unit in figures]


KILLED = """
import sys, time
from pathlib import Path
from benchmark.record_truth import IMAGE_TYPE, T0_NS, STATE_TYPES, Messages, Scenario, make_embodiment
from groot_ros.recording.episode_recorder import EpisodeRecording
scenario = Scenario(camera_hz=(30.0,), seconds=30.0)
embodiment = make_embodiment(scenario)
types = {{**STATE_TYPES, 'camera0/image': IMAGE_TYPE}}
recording = EpisodeRecording(Path({path!r}), embodiment, types, {{'task': 'x', 'namespace': '/', 'fps': 30}})
began = time.monotonic()
for topic, arrival_ns, cdr in Messages(scenario):
    ahead = (arrival_ns - T0_NS) / 1e9 - (time.monotonic() - began)
    if ahead > 0:
        time.sleep(ahead)
    recording.put(topic, arrival_ns, cdr)
    print(arrival_ns, flush=True)
"""


def kill_figures(folder: Path, runs: int) -> list[tuple[str, float, str]]:
    """kill -9 at random times of recordings in real time: how much before the kill cannot be recovered."""
    rng = np.random.default_rng(2)
    recovered = 0
    lost_s = []
    for run in range(runs):
        path = folder / f'killed_{run:03d}'
        process = subprocess.Popen(
            [sys.executable, '-c', KILLED.format(path=str(path))], stdout=subprocess.PIPE, text=True
        )
        until_s = 1.2 + 2.5 * rng.random()
        last_ns = 0
        assert process.stdout is not None
        for line in process.stdout:
            last_ns = int(line)
            if (last_ns - T0_NS) / 1e9 > until_s:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = recover_bag(path)
        recovered += found.messages > 0
        lost_s.append((last_ns - found.last_ns) / 1e9)
        shutil.rmtree(path)
    return [
        ('kill -9: runs', runs, ''),
        ('kill -9: bags recovered', recovered, ''),
        ('kill -9: lost, median', float(np.median(lost_s)), 's'),
        ('kill -9: lost, most', max(lost_s), 's'),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=50, help='how many recorders are killed (default 50)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures to a file')
    chosen = parser.parse_args()
    os.environ['PYTHONPATH'] = str(Path(__file__).resolve().parents[1])
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, scenario) in enumerate(SCENARIOS.items()):
            figures += truth_figures(name, scenario, Path(folder) / f'scenario_{number}')
        figures += kill_figures(Path(folder), chosen.kills)
    report('The recorder against known signals', figures, chosen.json)


if __name__ == '__main__':
    main()
