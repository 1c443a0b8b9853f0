# SPDX-License-Identifier: Apache-2.0
"""Conversion against known signals: bags of a plain recorder at several rates, as rows at several rates."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml
from rosbags.rosbag2 import StoragePlugin, Writer

from benchmark import signals
from benchmark.record_truth import Messages, Scenario, make_embodiment
from benchmark.signals import STATE_TYPES
from groot_ros.bags.message_types import IMAGE_TYPE, typestore
from groot_ros.dataset.convert import convert
from groot_ros.dataset.meta import column_to_array
from groot_ros.dataset.options import ConversionOptions
from groot_ros.dataset.writers.lerobot_v2 import data_file, video_file
from groot_ros.embodiment import parse_embodiment
from groot_ros.geometry import deltas_between
from groot_ros.video.mp4 import read_frames

ROWS_HZ = (10.0, 15.0, 20.0, 30.0)
CAMERAS_HZ = (30000 / 1001, 30.0, 60.0)
STATES_HZ = (60.0, 125.0, 500.0)
SECONDS = 6.0


@dataclass
class Errors:
    """The maximum errors of one conversion; `frame_ms` is the distance of a frame from its row."""

    position_mm: float
    joints_mrad: float
    delta_mm: float
    delta_mrad: float
    frame_ms: float
    step_ns: float


def write_bag(path: Path, camera_hz: float, state_hz: float) -> Scenario:
    """A rosbag2 as any recorder would have written it."""
    scenario = Scenario(fps=camera_hz, camera_hz=(camera_hz,), seconds=SECONDS, state_hz=state_hz)
    kinds = {**STATE_TYPES, 'camera0/image': IMAGE_TYPE}
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {
            topic: writer.add_connection(f'/{topic}', kind, typestore=typestore())
            for topic, kind in kinds.items()
        }
        for topic, arrival_ns, cdr in Messages(scenario):
            writer.write(connections[topic], arrival_ns, cdr)
    return scenario


def errors_of(bag: Path, output: Path, scenario: Scenario, fps: float) -> Errors:
    """Converts a bag at a rate, and compares each row with the truth at its time."""
    values = yaml.safe_load(make_embodiment(scenario).text())
    embodiment = parse_embodiment(yaml.safe_dump(values), 'of the benchmark')
    if abs(fps / scenario.camera_hz[0] - 1) > 1e-9:
        embodiment = embodiment.at_fps(fps)
    convert([bag], output, embodiment, ConversionOptions(horizon=8))
    table = pq.read_table(data_file(output, 0))
    states, actions, stamps = (
        column_to_array(table, name) for name in ('observation.state', 'action', 'timestamp')
    )
    seen = signals.Images(*scenario.size)
    frames = read_frames(video_file(output, embodiment.cameras[0].feature, 0), range(len(states)))
    frames_s = np.array([seen.time_ns(frame) for frame in frames]) / 1e9
    # Frames of a camera at the rate of the rows, to 1 %, are the ticks. Otherwise ticks are a grid whose
    # first time follows from the joints of the first row.
    camera_hz = scenario.camera_hz[0]
    own = abs(camera_hz / fps - 1) < 0.01
    at_s = frames_s if own else first_tick(states[0], frames_s[0]) + stamps
    truth = np.array([signals.state(t) for t in [*at_s, at_s[-1] + 1 / (camera_hz if own else fps)]])
    deltas = deltas_between(truth[:, 13:])
    return Errors(
        position_mm=np.linalg.norm(states[:, 13:16] - truth[:-1, 13:16], axis=1).max() * 1e3,
        joints_mrad=np.abs(states[:, :6] - truth[:-1, :6]).max() * 1e3,
        delta_mm=np.linalg.norm(actions[:, :3] - deltas[:, :3], axis=1).max() * 1e3,
        delta_mrad=np.linalg.norm(actions[:, 3:6] - deltas[:, 3:], axis=1).max() * 1e3,
        frame_ms=np.abs(frames_s - at_s).max() * 1e3,
        step_ns=np.abs(np.diff(stamps) - 1 / fps).max() * 1e9,
    )


def first_tick(state: np.ndarray, near_s: float) -> float:
    """Returns when the joints were as in a row, by Newton's method from a frame's time."""
    t = near_s
    for _ in range(20):
        error = signals.joints(t) - state[:6]
        slope = signals.velocities(t)
        t -= float(error @ slope / (slope @ slope))
    return t


def figures(folder: Path) -> list[tuple[str, float, str]]:
    """Returns the maximum errors over all rates."""
    found: dict[tuple[float, float, float], Errors] = {}
    for camera_hz in CAMERAS_HZ:
        for state_hz in STATES_HZ:
            bag = folder / f'truth_{camera_hz:.0f}_{camera_hz:.3f}_{state_hz:g}'
            scenario = write_bag(bag, camera_hz, state_hz)
            for fps in ROWS_HZ:
                found[fps, camera_hz, state_hz] = errors_of(
                    bag, bag.with_name(f'{bag.name}_{fps:g}'), scenario, fps
                )
    worst = {
        name: max(getattr(errors, name) for errors in found.values()) for name in Errors.__dataclass_fields__
    }
    share = max(errors.frame_ms * camera_hz / 1e3 for (_, camera_hz, _), errors in found.items())
    return [
        ('combinations of rates', len(found), ''),
        ('TCP position, max error', worst['position_mm'], 'mm'),
        ('joints, max error', worst['joints_mrad'], 'mrad'),
        ('delta of the position, max error', worst['delta_mm'], 'mm'),
        ('delta of the orientation, max error', worst['delta_mrad'], 'mrad'),
        ('frame from its row, max, in its periods', share, ''),
        ('step between rows, max error', worst['step_ns'], 'ns'),
    ]  # fmt: skip
