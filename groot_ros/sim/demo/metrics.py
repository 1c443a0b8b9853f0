# SPDX-License-Identifier: Apache-2.0
"""What the demo measures, each figure with its bound: computed from the bags, the dataset, the truth and the replay."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from groot_ros.bags.message_types import ROW_TOPIC
from groot_ros.bags.reader import EpisodeBag
from groot_ros.dataset.convert import ConversionReport
from groot_ros.dataset.sources.bag import read_samples
from groot_ros.dataset.sources.discover import find_bags
from groot_ros.dataset.validation.validate import ValidationReport
from groot_ros.dataset.writers.features import data_file, video_file
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
    """One measured number; `bound` is the largest good value, or None where there is no bound."""

    name: str
    value: float
    unit: str
    bound: float | None = None

    @property
    def good(self) -> bool:
        """Whether it keeps its bound."""
        return self.bound is None or bool(self.value <= self.bound)

    def as_dict(self) -> dict[str, Any]:
        """For figures.json."""
        return {**asdict(self), 'good': self.good}


@dataclass
class TimedPath:
    """Poses (n, 7) at times in s (n,)."""

    times_s: Array
    poses: Array


@dataclass
class ReplayMatch:
    """Recorded against replayed path after removing one constant lag."""

    lag_s: float
    distances_m: Array
    angles_rad: Array
    recorded: Array
    replayed: Array


def dataset_episode(root: Path, episode: int) -> dict[str, Array]:
    """Numeric columns of an episode."""
    table = pq.read_table(data_file(root, episode), columns=[STATE_COLUMN, ACTION_COLUMN, 'timestamp'])
    return {name: np.array(table[name].to_pylist(), float) for name in table.column_names}


def dataset_figures(root: Path, embodiment: Embodiment, episodes: int) -> list[Metric]:
    """Frames against rows, timestamps, and signs of quaternions, over all episodes."""
    frame_faults, time_faults, jumps, turned = 0, 0, 0, 0.0
    for index in range(episodes):
        columns = dataset_episode(root, index)
        rows = len(columns['timestamp'])
        frame_faults += sum(
            abs(count_frames(video_file(root, camera.feature, index)) - rows) for camera in embodiment.cameras
        )
        time_faults += int(np.sum(columns['timestamp'] != np.arange(rows) / embodiment.fps))
        quaternions = columns[STATE_COLUMN][:, embodiment.pose_part][:, 3:]
        jumps += int(np.sum(np.sum(quaternions[1:] * quaternions[:-1], axis=1) < 0))
        turned = max(turned, float(2 * np.degrees(np.arccos(np.min(np.abs(quaternions[:, 3]))))))
    return [
        Metric('frames without a row, or rows without a frame', frame_faults, '', 0),
        Metric('timestamps that are not exactly k/fps', time_faults, '', 0),
        Metric('sign jumps of the quaternion', jumps, '', 0),
        Metric('largest rotation of the tool from upright', turned, 'deg'),
    ]


def recording_figures(bags: Path) -> list[Metric]:
    """Drops, losses, ages and lags as the recorder counted them."""
    counts = [info['counts'] for info in bag_infos(bags)]
    return [
        Metric('ticks recorded', sum(c['ticks'] for c in counts), ''),
        Metric(
            'ticks without a camera frame of their own',
            sum(c['filled'] for c in counts),
            '',
            0.05 * sum(c['ticks'] for c in counts),
        ),
        Metric(
            'messages lost',
            sum(c['overflows'] + sum(t['lost'] for t in c['topics'].values()) for c in counts),
            '',
            0,
        ),
        Metric('largest age of a state sample at its tick', max(c['max_age_ms'] for c in counts), 'ms', 100),
        Metric(
            'longest time from exposure to encoded row', max(c['max_encoder_lag_ms'] for c in counts), 'ms'
        ),
    ]


def bag_infos(bags: Path) -> list[dict[str, Any]]:
    """What each bag says of itself."""
    infos = []
    for path in find_bags(bags):
        with EpisodeBag(path) as bag:
            infos.append(bag.info)
    return infos


def truth_figures(bags: Path, truth_file: Path, embodiment: Embodiment, episodes: int) -> list[Metric]:
    """The state of each row against the simulator's own state at the row's tick."""
    truth = read_truth(truth_file)
    joints, tcp, delays, parity = [], [], [], 0
    for path in find_bags(bags)[:episodes]:
        with EpisodeBag(path) as bag:
            samples = read_samples(bag, embodiment)
            live = np.array(
                [
                    row.decode().state
                    for row in bag.messages({ROW_TOPIC: bag.connections(embodiment)[ROW_TOPIC]})
                ]
            )
        states = np.array([sample.state for sample in samples])
        parity += int(np.sum(live != states))
        joint_errors, tcp_errors, delay_s = _against_truth(
            np.array([s.tick_ns for s in samples]), states, truth, embodiment
        )
        joints.append(joint_errors)
        tcp.append(tcp_errors)
        delays.append(delay_s)
    return [
        Metric(
            'joint error against truth beyond 1 ms of motion, max',
            float(np.concatenate(joints).max()),
            'rad',
            1e-3,
        ),
        Metric(
            'TCP error against truth beyond 1 ms of motion, max',
            float(np.concatenate(tcp).max()) * 1e3,
            'mm',
            0.5,
        ),
        Metric('delay of the state behind its stamp, mean', float(np.mean(delays)) * 1e3, 'ms', 1.0),
        Metric('numbers that differ between live rows and converted rows', parity, '', 0),
    ]


def _against_truth(
    ticks_ns: np.ndarray, states: Array, truth: np.ndarray, embodiment: Embodiment
) -> tuple[Array, Array, float]:
    origin_ns = int(truth['stamp_ns'][0])
    times, known = ticks_ns - origin_ns, truth['stamp_ns'] - origin_ns

    def at(column: str) -> Array:
        return np.column_stack([np.interp(times, known, truth[column][:, joint]) for joint in range(6)])

    positions, velocities = at('joint_positions'), at('joint_velocities')
    measured = states[:, embodiment.state_slices['joint_positions']]
    joint_errors = np.abs(measured - positions) - np.abs(velocities) * _MOTION_S
    poses = np.array([forward(q, TCP_OFFSET) for q in positions])
    ahead = np.array([forward(q, TCP_OFFSET) for q in positions + velocities * _MOTION_S])
    motion = np.linalg.norm(ahead[:, :3] - poses[:, :3], axis=1)
    tcp_errors = np.linalg.norm(states[:, embodiment.pose_part][:, :3] - poses[:, :3], axis=1) - motion
    delay_s = float(np.sum((positions - measured) * velocities) / max(np.sum(velocities**2), 1e-9))
    return np.maximum(joint_errors, 0), np.maximum(tcp_errors, 0), delay_s


def conversion_figures(report: ConversionReport, bags: Path) -> list[Metric]:
    """SpeedMotion of the conversion, beside the time that only reading the bags takes."""
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


def validation_figures(report: ValidationReport) -> list[Metric]:
    """Findings of the validator."""
    return [
        Metric('validation errors', report.errors, '', 0),
        Metric('validation warnings', report.warnings, ''),
    ]


def match_replay(recorded: Array, fps: float, began_s: float, replay: TimedPath) -> ReplayMatch:
    """Compares recorded poses (n, 7), row k at k / fps, with a replay whose first action was due at `began_s`.

    The lag is the one, to 1 ms, that makes the mean distance least.
    """
    due_s = began_s + np.arange(len(recorded)) / fps
    lags_s = np.arange(0.0, _MAX_LAG_S, 1e-3)
    costs = [
        np.linalg.norm(_positions_at(replay, due_s + lag) - recorded[:, :3], axis=1).mean() for lag in lags_s
    ]
    lag_s = float(lags_s[int(np.argmin(costs))])
    replayed = np.array([_pose_at(replay, t) for t in due_s + lag_s])
    return ReplayMatch(
        lag_s=lag_s,
        distances_m=np.linalg.norm(replayed[:, :3] - recorded[:, :3], axis=1),
        angles_rad=np.array([angle_between(a, b) for a, b in zip(recorded, replayed, strict=True)]),
        recorded=recorded,
        replayed=replayed,
    )


def replay_figures(match: ReplayMatch, placed: bool) -> list[Metric]:
    """How well the converted actions moved the arm along the recorded path."""
    return [
        Metric('constant lag of the replay', match.lag_s * 1e3, 'ms'),
        Metric(
            'replayed against recorded TCP path, mean distance',
            float(match.distances_m.mean()) * 1e3,
            'mm',
            3.0,
        ),
        Metric(
            'replayed against recorded TCP path, 95th percentile',
            float(np.quantile(match.distances_m, 0.95)) * 1e3,
            'mm',
        ),
        Metric(
            'replayed against recorded TCP attitude, mean angle',
            float(np.degrees(match.angles_rad.mean())),
            'deg',
            1.0,
        ),
        Metric('replays that did not place the cube in the bin', float(not placed), '', 0),
    ]


def _positions_at(path: TimedPath, times_s: Array) -> Array:
    return np.column_stack([np.interp(times_s, path.times_s, path.poses[:, axis]) for axis in range(3)])


def _pose_at(path: TimedPath, time_s: float) -> Array:
    after = int(np.clip(np.searchsorted(path.times_s, time_s), 1, len(path.times_s) - 1))
    start_s, end_s = path.times_s[after - 1], path.times_s[after]
    return interpolate_pose(
        path.poses[after - 1], path.poses[after], float(np.clip((time_s - start_s) / (end_s - start_s), 0, 1))
    )
