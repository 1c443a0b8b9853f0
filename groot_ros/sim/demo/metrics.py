# SPDX-License-Identifier: Apache-2.0
"""The metrics of the demo with their bounds, from the bags, the dataset, the ground truth and the replay."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from groot_ros.bags.message_types import ROW_TOPIC
from groot_ros.bags.reader import EpisodeBag
from groot_ros.dataset.convert import ConversionReport
from groot_ros.dataset.sources.bag_recorded import read_samples
from groot_ros.dataset.sources.discover import find_bags
from groot_ros.dataset.validation.validate import ValidationReport
from groot_ros.dataset.writers.lerobot_v2 import data_file, video_file
from groot_ros.embodiment import ACTION_COLUMN, STATE_COLUMN, Embodiment
from groot_ros.geometry import Array, angle_between, interpolate_pose
from groot_ros.sim.ground_truth import read_truth
from groot_ros.sim.scene import TCP_OFFSET
from groot_ros.ur5e_kinematics import forward
from groot_ros.video.mp4 import count_frames

_MOTION_S = 1e-3
_MAX_LAG_S = 0.5


@dataclass
class Metric:
    """One measured number. `bound` is its maximum good value, or None."""

    name: str
    value: float
    unit: str
    bound: float | None = None

    @property
    def good(self) -> bool:
        """Whether the value is within its bound."""
        return self.bound is None or bool(self.value <= self.bound)

    def as_dict(self) -> dict[str, Any]:
        """The entry of this metric in metrics.json."""
        return {**asdict(self), 'good': self.good}


@dataclass
class TimedPath:
    """Poses (n, 7) at times (n,) in s."""

    times_s: Array
    poses: Array


@dataclass
class ReplayMatch:
    """The recorded path compared with the replayed one, after removing a constant lag."""

    lag_s: float
    distances_m: Array
    angles_rad: Array
    recorded: Array
    replayed: Array


def dataset_episode(root: Path, episode: int) -> dict[str, Array]:
    """Reads the columns observation.state, action and timestamp of one episode."""
    table = pq.read_table(data_file(root, episode), columns=[STATE_COLUMN, ACTION_COLUMN, 'timestamp'])
    return {name: np.array(table[name].to_pylist(), float) for name in table.column_names}


def dataset_metrics(root: Path, embodiment: Embodiment, episodes: int) -> list[Metric]:
    """Compares frames with rows, and checks timestamps and signs of quaternions, over all episodes."""
    frame_faults = 0
    time_faults = 0
    sign_jumps = 0
    max_rotation_deg = 0.0
    for index in range(episodes):
        columns = dataset_episode(root, index)
        rows = len(columns['timestamp'])
        for camera in embodiment.cameras:
            frame_faults += abs(count_frames(video_file(root, camera.feature, index)) - rows)
        time_faults += int(np.sum(columns['timestamp'] != np.arange(rows) / embodiment.fps))
        quaternions = columns[STATE_COLUMN][:, embodiment.pose_part][:, 3:]
        dot_products = np.sum(quaternions[1:] * quaternions[:-1], axis=1)
        sign_jumps += int(np.sum(dot_products < 0))
        rotation_rad = 2 * np.arccos(np.min(np.abs(quaternions[:, 3])))
        max_rotation_deg = max(max_rotation_deg, float(np.degrees(rotation_rad)))
    return [
        Metric('frames without a row, or rows without a frame', frame_faults, '', 0),
        Metric('timestamps that are not exactly k/fps', time_faults, '', 0),
        Metric('sign jumps of the quaternion', sign_jumps, '', 0),
        Metric('max rotation of the tool from upright', max_rotation_deg, 'deg'),
    ]


def recording_metrics(bags: Path) -> list[Metric]:
    """Lost messages, missing frames, ages and delays as the recorder counted them."""
    counts = [info['counts'] for info in bag_infos(bags)]
    ticks = sum(count['ticks'] for count in counts)
    filled = sum(count['filled'] for count in counts)
    lost = sum(count['overflows'] for count in counts)
    lost += sum(topic['lost'] for count in counts for topic in count['topics'].values())
    max_age_ms = max(count['max_age_ms'] for count in counts)
    max_encoder_lag_ms = max(count['max_encoder_lag_ms'] for count in counts)
    return [
        Metric('ticks recorded', ticks, ''),
        Metric('ticks without a camera frame of their own', filled, '', 0.05 * ticks),
        Metric('messages lost', lost, '', 0),
        Metric('max age of a state sample at its tick', max_age_ms, 'ms', 100),
        Metric('max time from exposure to encoded row', max_encoder_lag_ms, 'ms'),
    ]


def bag_infos(bags: Path) -> list[dict[str, Any]]:
    """Reads the metadata that the recorder wrote into each bag of a folder."""
    infos = []
    for path in find_bags(bags):
        with EpisodeBag(path) as bag:
            infos.append(bag.info)
    return infos


def truth_metrics(bags: Path, truth_file: Path, embodiment: Embodiment, episodes: int) -> list[Metric]:
    """Compares the state of each row with the true state of the simulator at the tick of the row."""
    truth = read_truth(truth_file)
    joints = []
    tcp = []
    delays = []
    differing = 0
    for path in find_bags(bags)[:episodes]:
        with EpisodeBag(path) as bag:
            samples = read_samples(bag, embodiment)
            rows = bag.messages({ROW_TOPIC: bag.connections(embodiment)[ROW_TOPIC]})
            live = np.array([row.decode().state for row in rows])
        states = np.array([sample.state for sample in samples])
        differing += int(np.sum(live != states))
        ticks_ns = np.array([sample.tick_ns for sample in samples])
        joint_errors, tcp_errors, delay_s = _compare_with_truth(ticks_ns, states, truth, embodiment)
        joints.append(joint_errors)
        tcp.append(tcp_errors)
        delays.append(delay_s)
    joint_error_rad = float(np.concatenate(joints).max())
    tcp_error_mm = float(np.concatenate(tcp).max()) * 1e3
    delay_ms = float(np.mean(delays)) * 1e3
    return [
        Metric('joint error against truth beyond 1 ms of motion, max', joint_error_rad, 'rad', 1e-3),
        Metric('TCP error against truth beyond 1 ms of motion, max', tcp_error_mm, 'mm', 0.5),
        Metric('delay of the state after its stamp, mean', delay_ms, 'ms', 1.0),
        Metric('numbers that differ between live rows and converted rows', differing, '', 0),
    ]


def _compare_with_truth(
    ticks_ns: np.ndarray, states: Array, truth: np.ndarray, embodiment: Embodiment
) -> tuple[Array, Array, float]:
    """Joint errors (n, 6) in rad and TCP errors (n,) in m beyond 1 ms of motion, and the mean delay in s."""
    positions = _interpolate_truth(truth, 'joint_positions', ticks_ns)
    velocities = _interpolate_truth(truth, 'joint_velocities', ticks_ns)
    measured = states[:, embodiment.state_slices['joint_positions']]
    joint_errors = np.abs(measured - positions) - np.abs(velocities) * _MOTION_S
    poses = np.array([forward(q, TCP_OFFSET) for q in positions])
    ahead = np.array([forward(q, TCP_OFFSET) for q in positions + velocities * _MOTION_S])
    motion = np.linalg.norm(ahead[:, :3] - poses[:, :3], axis=1)
    tcp_errors = np.linalg.norm(states[:, embodiment.pose_part][:, :3] - poses[:, :3], axis=1) - motion
    delay_s = float(np.sum((positions - measured) * velocities) / max(np.sum(velocities**2), 1e-9))
    return np.maximum(joint_errors, 0), np.maximum(tcp_errors, 0), delay_s


def _interpolate_truth(truth: np.ndarray, column: str, ticks_ns: np.ndarray) -> Array:
    origin_ns = int(truth['stamp_ns'][0])
    times = ticks_ns - origin_ns
    known = truth['stamp_ns'] - origin_ns
    return np.column_stack([np.interp(times, known, truth[column][:, joint]) for joint in range(6)])


def conversion_metrics(report: ConversionReport, bags: Path) -> list[Metric]:
    """Speed of the conversion, compared with the time that reading the bags alone takes."""
    started_s = time.perf_counter()
    for path in find_bags(bags):
        with EpisodeBag(path) as bag:
            for _ in bag.all_messages():
                pass
    read_s = time.perf_counter() - started_s
    return [
        Metric('rows converted per second', report.rows / report.elapsed_s, '1/s'),
        Metric('video rows copied per second', report.rows / report.video_s, '1/s'),
        Metric('share of the conversion that reading the bags alone takes', read_s / report.elapsed_s, ''),
    ]


def validation_metrics(report: ValidationReport) -> list[Metric]:
    """Counts of errors and warnings of the validator."""
    return [
        Metric('validation errors', report.errors, '', 0),
        Metric('validation warnings', report.warnings, ''),
    ]


def match_replay(recorded: Array, fps: float, start_s: float, replay: TimedPath) -> ReplayMatch:
    """Compares recorded poses (n, 7), row k at k / fps, with a replay that started at `start_s`.

    The lag is the one that minimises the mean distance, with a resolution of 1 ms.
    """
    due_s = start_s + np.arange(len(recorded)) / fps
    lags_s = np.arange(0.0, _MAX_LAG_S, 1e-3)
    costs = [_mean_distance(recorded, _positions_at(replay, due_s + lag)) for lag in lags_s]
    lag_s = float(lags_s[int(np.argmin(costs))])
    replayed = np.array([_pose_at(replay, t) for t in due_s + lag_s])
    return ReplayMatch(
        lag_s=lag_s,
        distances_m=np.linalg.norm(replayed[:, :3] - recorded[:, :3], axis=1),
        angles_rad=np.array([angle_between(a, b) for a, b in zip(recorded, replayed, strict=True)]),
        recorded=recorded,
        replayed=replayed,
    )


def replay_metrics(match: ReplayMatch, placed: bool) -> list[Metric]:
    """How closely the converted actions moved the arm along the recorded path."""
    mean_mm = float(match.distances_m.mean()) * 1e3
    p95_mm = float(np.quantile(match.distances_m, 0.95)) * 1e3
    mean_deg = float(np.degrees(match.angles_rad.mean()))
    return [
        Metric('constant lag of the replay', match.lag_s * 1e3, 'ms'),
        Metric('replayed against recorded TCP path, mean distance', mean_mm, 'mm', 3.0),
        Metric('replayed against recorded TCP path, 95th percentile', p95_mm, 'mm'),
        Metric('replayed against recorded TCP orientation, mean angle', mean_deg, 'deg', 1.0),
        Metric('replays that did not place the cube in the bin', float(not placed), '', 0),
    ]


def _mean_distance(recorded: Array, positions: Array) -> float:
    return float(np.linalg.norm(positions - recorded[:, :3], axis=1).mean())


def _positions_at(path: TimedPath, times_s: Array) -> Array:
    return np.column_stack([np.interp(times_s, path.times_s, path.poses[:, axis]) for axis in range(3)])


def _pose_at(path: TimedPath, time_s: float) -> Array:
    after = int(np.clip(np.searchsorted(path.times_s, time_s), 1, len(path.times_s) - 1))
    start_s = path.times_s[after - 1]
    end_s = path.times_s[after]
    share = float(np.clip((time_s - start_s) / (end_s - start_s), 0, 1))
    return interpolate_pose(path.poses[after - 1], path.poses[after], share)
