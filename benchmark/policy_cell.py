# SPDX-License-Identifier: Apache-2.0
"""The policy server on the simulated cell: the errors of ten replays, and the motion after each fault.

All figures are computed from the true motion of the arm.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import rclpy
from groot_ros.msg import ActionChunk, PolicyStatus
from std_srvs.srv import SetBool, Trigger

from benchmark.common import report
from benchmark.control import Commander
from benchmark.policy_execution import HOST, LATENCIES_S, ROW_S, SIZE, Figures, cell, node, where
from benchmark.policy_model import LateServer, PathModel
from groot_ros.dataset.sources.arrays import ArrayEpisode, convert_arrays
from groot_ros.embodiment import Embodiment, load_embodiment, parse_embodiment
from groot_ros.geometry import Array, angle_between, apply_delta, interpolate_pose
from groot_ros.policies.builtin_policies import FAULTS
from groot_ros.ros.qos import COMMAND_QOS, STATUS_QOS
from groot_ros.sim.ground_truth import read_truth
from groot_ros.sim.scene import TCP_OFFSET
from groot_ros.sim.test_interface import CellHooks
from groot_ros.ur5e_kinematics import forward

EPISODES = 10
EPISODE_S = 6.0
STILL_M_S = 1e-3
COLUMNS = """
name: ur5e_robotiq_zed
robot_type: ur5e
fps: 20
state:
  - {name: joint_positions, column: q, size: 6}
  - {name: joint_velocities, column: dq, size: 6}
  - {name: gripper_state, column: gripper}
  - {name: tcp_pose, column: pose, field: pose}
action:
  - {name: delta_tcp_position, kind: delta_position, pose: tcp_pose}
  - {name: delta_tcp_orientation, kind: delta_rotation, pose: tcp_pose}
  - {name: gripper_command, kind: command, column: gripper}
cameras:
  - {name: zed_camera, column: image, width: 64, height: 48}
"""


def recorded(start: Array) -> Iterator[ArrayEpisode]:
    """Episodes from rest to rest, each on a curve and with a turn of its own."""
    rows = round(EPISODE_S / ROW_S)
    share = np.arange(rows) / (rows - 1)
    angle = 2 * np.pi * share**3 * (10 - 15 * share + 6 * share**2)
    for episode in range(EPISODES):
        rng = np.random.default_rng(episode)
        radius = rng.uniform(0.03, 0.08, 3)
        turn = rng.uniform(-0.3, 0.3, 3)
        shape = np.stack([np.sin(angle), 1 - np.cos(angle), np.sin(2 * angle) / 2], axis=1)
        offsets = np.hstack([radius * shape, turn * np.sin(angle)[:, None]])
        poses = np.array([apply_delta(start, offset) for offset in offsets])
        numbers = {
            'q': np.zeros((rows, 6)),
            'dq': np.zeros((rows, 6)),
            'gripper': np.ones((rows, 1)),
            'pose': poses,
        }
        images = np.zeros((rows, SIZE['height'], SIZE['width'], 3), np.uint8)
        yield ArrayEpisode({**numbers, 'image': images}, 'follow the curve')


class Policy:
    """A policy server in a process, its status and the times of its chunks."""

    def __init__(self, commander: Commander, **parameters: object) -> None:
        self._commander = commander
        self.status = PolicyStatus()
        self.taken_ns: list[int] = []
        self._subscriptions = [
            commander.node.create_subscription(
                PolicyStatus, 'policy_status', lambda message: setattr(self, 'status', message), STATUS_QOS
            ),
            commander.node.create_subscription(ActionChunk, 'policy/action_chunk', self._note, COMMAND_QOS),
        ]
        self._client = commander.node.create_client(SetBool, 'policy_server/enable')
        self.process = node('policy_server', **parameters)
        commander.until(lambda: self.status.state == PolicyStatus.READY, 60.0)

    def _note(self, message: ActionChunk) -> None:
        if message.taken:
            self.taken_ns.append(time.time_ns())

    def enable(self) -> bool:
        """Enables the policy; returns whether it runs now."""
        if not self._commander.until(self._client.service_is_ready, 5.0):
            return False
        answer = self._client.call_async(SetBool.Request(data=True))
        return self._commander.until(answer.done, 10.0) and answer.result().success

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        for subscription in self._subscriptions:
            self._commander.node.destroy_subscription(subscription)
        self._commander.node.destroy_client(self._client)


def true_poses(truth: Path, from_ns: int, until_ns: int, every_s: float = 0.008) -> tuple[Array, Array]:
    """Times in s after `from_ns` and true TCP poses (n, 7); the log is written twice a second."""
    time.sleep(1.2)
    records = read_truth(truth)
    records = records[(records['stamp_ns'] >= from_ns) & (records['stamp_ns'] <= until_ns)]
    known_s = (records['stamp_ns'] - from_ns) / 1e9
    times_s = np.arange(0.0, known_s[-1], every_s)
    joints = np.column_stack(
        [np.interp(times_s, known_s, records['joint_positions'][:, joint]) for joint in range(6)]
    )
    return times_s, np.array([forward(q, TCP_OFFSET) for q in joints])


def replays(folder: Path) -> Figures:
    truth = folder / 'replays.truth'
    distances: list[Array] = []
    angles: list[Array] = []
    lags: list[float] = []
    ends: list[float] = []
    with cell(truth) as commander:
        episodes = list(recorded(where(commander, 'tcp_target')))
        convert_arrays(iter(episodes), folder / 'dataset', parse_embodiment(COLUMNS, 'the benchmark'))
        for number, episode in enumerate(episodes):
            policy = Policy(commander, backend='replay', dataset=folder / 'dataset', episode=number)
            policy.enable()
            commander.until(
                lambda policy=policy: policy.status.state in (PolicyStatus.DONE, PolicyStatus.STOPPED), 60.0
            )
            if policy.status.state != PolicyStatus.DONE:
                raise SystemExit(f'replay {number} ended: {policy.status.reason}')
            began_ns = policy.taken_ns[0] - 500_000_000
            commander.until(lambda: False, 0.6)
            times_s, poses = true_poses(truth, began_ns, time.time_ns())
            found = matched(times_s, poses, episode.columns['pose'])
            for collected, value in zip((distances, angles, lags, ends), found, strict=True):
                collected.append(value)
            policy.close()
            mean_mm = found[0].mean() * 1e3
            print(
                f'replay {number}: {mean_mm:.3f} mm, lag {found[2]:.3f} s, end {found[3] * 1e3:.3f} mm',
                flush=True,
            )
    away = np.concatenate(distances)
    turned = np.degrees(np.concatenate(angles))
    return [
        ('replays', len(lags), ''),
        ('replay: path error after one constant lag, mean', away.mean() * 1e3, 'mm'),
        ('replay: path error after one constant lag, p95', float(np.quantile(away, 0.95)) * 1e3, 'mm'),
        ('replay: orientation error, mean', turned.mean(), 'deg'),
        ('replay: orientation error, p95', float(np.quantile(turned, 0.95)), 'deg'),
        ('replay: position error at the end, max of the ten', max(ends) * 1e3, 'mm'),
    ]


def matched(times_s: Array, poses: Array, wanted: Array) -> tuple[Array, Array, float, float]:
    """Errors (n,) in m and rad of the rows at the best constant lag, the lag, and the error at the end."""
    rows_s = np.arange(len(wanted)) * ROW_S

    def positions(lag_s: float) -> Array:
        return np.column_stack([np.interp(rows_s + lag_s, times_s, poses[:, axis]) for axis in range(3)])

    lags_s = np.arange(0.0, 1.5, 1e-3)
    means = [np.linalg.norm(positions(lag) - wanted[:, :3], axis=1).mean() for lag in lags_s]
    lag_s = float(lags_s[int(np.argmin(means))])
    replayed = [_pose_at(times_s, poses, time_s) for time_s in rows_s + lag_s]
    turned = np.array([angle_between(a, b) for a, b in zip(replayed, wanted, strict=True)])
    errors = np.linalg.norm(positions(lag_s) - wanted[:, :3], axis=1)
    end = float(np.linalg.norm(poses[-1, :3] - wanted[-1, :3]))
    return errors, turned, lag_s, end


def _pose_at(times_s: Array, poses: Array, time_s: float) -> Array:
    after = int(np.clip(np.searchsorted(times_s, time_s), 1, len(times_s) - 1))
    share = np.clip((time_s - times_s[after - 1]) / (times_s[after] - times_s[after - 1]), 0, 1)
    return interpolate_pose(poses[after - 1], poses[after], float(share))


def faults(folder: Path, file: Path, embodiment: Embodiment) -> Figures:
    """Time and distance to standstill after the last valid chunk (scripted faults) or the event (others)."""
    truth = folder / 'faults.truth'
    figures: Figures = []
    with cell(truth) as commander:
        for fault in filter(None, FAULTS):
            parameters = {'backend': 'scripted', 'fault': fault, 'timeout_s': 0.3}
            figures += judged(commander, truth, fault, parameters, lambda policy: None)
        hooks = CellHooks(HOST)
        events: dict[str, Callable[[Policy], object]] = {
            'server dies': lambda policy: server.close(),
            'protective stop': lambda policy: hooks.call('protective_stop'),
            'policy server killed': lambda policy: policy.process.kill(),
        }
        for name, happens in events.items():
            model = PathModel(embodiment, where(commander, 'tcp_target'))
            server = LateServer(model, LATENCIES_S[1], 0.0, 0.0)
            parameters = {
                'backend': 'remote',
                'port': server.port,
                'embodiment': file,
                'timeout_s': 0.6,
                'max_observation_age_s': 0.5,
            }
            figures += judged(commander, truth, name, parameters, happens)
            server.close()
        hooks.close()
    return figures


def judged(
    commander: Commander, truth: Path, name: str, parameters: dict, happens: Callable[[Policy], object]
) -> Figures:
    if not commander.enable():
        raise SystemExit(f'the arm could not be enabled before {name}: {commander.status.reason}')
    policy = Policy(commander, **parameters)
    if not policy.enable():
        raise SystemExit(f'{name}: the policy does not run: {policy.status.reason}')
    happened_ns = 0
    if name not in FAULTS:
        commander.until(lambda: False, 3.0)
        happened_ns = time.time_ns()
        happens(policy)
    commander.until(lambda: policy.status.state == PolicyStatus.STOPPED, 5.0)
    commander.until(lambda: False, 1.0)
    happened_ns = happened_ns or policy.taken_ns[-1]
    times_s, poses = true_poses(truth, happened_ns, time.time_ns())
    speeds = np.linalg.norm(np.diff(poses[:, :3], axis=0), axis=1) / np.diff(times_s)
    moving = np.flatnonzero(speeds > STILL_M_S)
    until = int(moving[-1]) + 1 if moving.size else 0
    again = 0.0
    if name == 'protective stop':
        commander.until(lambda: False, 6.0)  # which the controller asks for before it unlocks
        commander.call(Trigger, 'recover', Trigger.Request())
    if policy.process.poll() is None:
        ready = commander.enable()
        again = float(ready and policy.enable())
    policy.close()
    commander.until(lambda: False, 1.0)
    print(f'{name}: {times_s[until]:.2f} s, again {again:g}', flush=True)
    distance_m = float(np.linalg.norm(np.diff(poses[: until + 1, :3], axis=0), axis=1).sum())
    return [
        (f'{name}: time to standstill', float(times_s[until]), 's'),
        (f'{name}: distance', distance_m * 1e3, 'mm'),
        (f'{name}: runs again when enabled', again, ''),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures to a file')
    parser.add_argument('--only', choices=('replays', 'faults'), help='leave the other half out')
    chosen = parser.parse_args()
    os.environ.setdefault('ROS_DOMAIN_ID', '79')
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    whole = load_embodiment('ur5e_robotiq_zed')
    embodiment = whole.model_copy(
        update={'cameras': tuple(camera.model_copy(update=SIZE) for camera in whole.cameras)}
    )
    rclpy.init(args=[])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'small.yaml'
        file.write_text(embodiment.text())
        figures = [] if chosen.only == 'faults' else replays(Path(folder))
        figures += [] if chosen.only == 'replays' else faults(Path(folder), file, embodiment)
    rclpy.shutdown()
    report('The policy server on the simulated cell', figures, chosen.json)


if __name__ == '__main__':
    main()
