# SPDX-License-Identifier: Apache-2.0
"""Execution of chunks on the simulated cell, compared with stop-and-go and linear averaging.

The models have latencies of 50 to 400 ms, with jitter and lost replies. Each way moves the arm along the same
path with the same model, which sees the measured pose only. All figures are computed from the true motion of
the arm, between 3 s after the start and the end.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from groot_ros.msg import PolicyStatus
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from benchmark.common import report
from benchmark.control import Commander
from benchmark.policy_model import PERIOD_S, LateServer, PathModel, path_from
from groot_ros.embodiment import Embodiment, load_embodiment
from groot_ros.geometry import Array, angle_between
from groot_ros.message_fields import pose_from_msg
from groot_ros.ros.qos import IMAGE_QOS, STATUS_QOS, STREAM_QOS
from groot_ros.ros.time import to_time_msg
from groot_ros.sim.ground_truth import read_truth
from groot_ros.sim.scene import TCP_OFFSET
from groot_ros.sim.test_interface import CellHooks
from groot_ros.ur5e_kinematics import forward

Figures = list[tuple[str, float, str]]
HOST = '127.0.0.1'
LATENCIES_S = (0.05, 0.1, 0.2, 0.4)
JITTER = 0.2
LOST = 0.05
SECONDS = 20.0
AFTER_S = 3.0
ROW_S = 1 / 20
LEAD_S = 0.13
STILL_SHARE = 0.1
# The model looks at no image, but nothing is observed without one.
SIZE = {'width': 64, 'height': 48}


@dataclass
class Motion:
    """True TCP poses (n, 7) every 20 ms."""

    times_s: Array
    poses: Array


def node(name: str, **parameters: object) -> subprocess.Popen:
    options = [word for key, value in parameters.items() for word in ('-p', f'{key}:={value}')]
    return subprocess.Popen(
        [sys.executable, '-m', f'groot_ros.nodes.{name}', '--ros-args', *options], stderr=subprocess.DEVNULL
    )


@contextlib.contextmanager
def cell(truth: Path) -> Iterator[Commander]:
    """The simulated cell, the drivers, and a commander that has enabled the arm."""
    words = ['--host', HOST, '--no-camera', '--truth', str(truth)]
    processes = [subprocess.Popen([sys.executable, '-m', 'groot_ros.nodes.sim_cell', *words])]
    commander = Commander()
    try:
        CellHooks(HOST, timeout_s=60.0).close()
        # The limits of silence are for a shared machine, as in config/demo.yaml.
        processes += [
            node('ur5e_driver', robot_ip=HOST, command_timeout_s=0.6, max_command_age_s=0.5),
            node('robotiq_driver', robot_ip=HOST),
        ]
        publish_images(commander)
        commander.until(lambda: commander.status.connected, 60.0)
        commander.until(lambda: False, 2.0)
        if not commander.enable():
            raise SystemExit(f'the arm could not be enabled: {commander.status.reason}')
        yield commander
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(20)
        commander.node.destroy_node()


def publish_images(commander: Commander) -> None:
    images = commander.node.create_publisher(Image, 'zed/image', IMAGE_QOS)

    def publish() -> None:
        pixels = bytes(3 * SIZE['width'] * SIZE['height'])
        image = Image(**SIZE, step=3 * SIZE['width'], encoding='rgb8', data=pixels)
        image.header.stamp = to_time_msg(time.time_ns())
        images.publish(image)

    commander.node.create_timer(ROW_S, publish)


def where(commander: Commander, topic: str = 'tcp_pose') -> Array:
    """The present pose (7,) of a topic."""
    seen: list[Array] = []
    subscription = commander.node.create_subscription(
        PoseStamped, topic, lambda message: seen.append(pose_from_msg(message)), STREAM_QOS
    )
    commander.until(lambda: bool(seen), 10.0)
    commander.node.destroy_subscription(subscription)
    return seen[-1]


def run(
    way: str,
    latency_s: float,
    robot_action_latency_s: float,
    embodiment: Embodiment,
    file: Path,
    folder: Path,
) -> tuple[Motion, Array, Figures]:
    """Runs one way at one latency; returns the motion, its start pose, and figures of the policy server."""
    truth = folder / f'{way}_{latency_s}.truth'
    with cell(truth) as commander:
        start = where(commander, 'tcp_target')
        server = LateServer(PathModel(embodiment, start), latency_s, JITTER * latency_s, LOST)
        status = [PolicyStatus()]
        reported: Figures = []
        commander.node.create_subscription(
            PolicyStatus, 'policy_status', lambda message: status.append(message), STATUS_QOS
        )
        if way == 'ours':
            process = node(
                'policy_server',
                backend='remote',
                port=server.port,
                embodiment=file,
                timeout_s=0.6,
                robot_action_latency_s=robot_action_latency_s,
                max_observation_age_s=0.5,
            )
            commander.until(lambda: status[-1].state == PolicyStatus.READY, 60.0)
            client = commander.node.create_client(SetBool, 'policy_server/enable')
            commander.until(client.service_is_ready)
            began_ns = time.time_ns()
            answer = client.call_async(SetBool.Request(data=True))
            commander.until(answer.done)
            commander.until(lambda: status[-1].state == PolicyStatus.STOPPED, SECONDS)
            seen = status[-1]
            reported = [
                (
                    'transition jump as the policy server reports it, p95',
                    seen.chunk_transition_jump_p95 * 1e3,
                    'mm',
                ),
                ('steps dropped', seen.dropped_share * 100, '%'),
                ('stopped before its time', float(seen.state == PolicyStatus.STOPPED), ''),
            ]
        else:
            began_ns = time.time_ns()
            process = subprocess.Popen(
                [sys.executable, '-m', 'benchmark.policy_baselines', way, str(server.port), str(SECONDS + 3)]
            )
            commander.until(lambda: process.poll() is not None, SECONDS)
        ended_ns = time.time_ns()
        process.terminate()
        process.wait(20)
        server.close()
    return motion_of(truth, began_ns, ended_ns), start, reported


def motion_of(truth: Path, began_ns: int, ended_ns: int) -> Motion:
    records = read_truth(truth)
    records = records[(records['stamp_ns'] >= began_ns) & (records['stamp_ns'] <= ended_ns)]
    times_s = np.arange(0.0, (records['stamp_ns'][-1] - began_ns) / 1e9, 0.02)
    known_s = (records['stamp_ns'] - began_ns) / 1e9
    joints = np.column_stack(
        [np.interp(times_s, known_s, records['joint_positions'][:, joint]) for joint in range(6)]
    )
    poses = np.array([forward(q, TCP_OFFSET) for q in joints])
    # The first motion begins the count.
    moving = np.linalg.norm(poses[:, :3] - poses[0, :3], axis=1) > 0.002
    first_s = times_s[int(np.argmax(moving))] if moving.any() else 0.0
    kept = times_s >= first_s + AFTER_S
    return Motion(times_s[kept], poses[kept])


def figures_of(motion: Motion, start: Array) -> Figures:
    """How the arm moved, compared with the path that the model knows."""
    path = path_from(start)
    grid = np.array([path(time_s) for time_s in np.arange(0, PERIOD_S, 0.002)])
    nearest = [int(np.argmin(np.linalg.norm(grid[:, :3] - pose[:3], axis=1))) for pose in motion.poses]
    away = np.linalg.norm(grid[nearest, :3] - motion.poses[:, :3], axis=1)
    turned = np.array([angle_between(a, b) for a, b in zip(grid[nearest], motion.poses, strict=True)])
    velocities = np.diff(motion.poses[:, :3], axis=0) / 0.02
    smooth = np.array([np.convolve(velocities[:, axis], np.ones(3) / 3, 'valid') for axis in range(3)]).T
    speeds = np.linalg.norm(smooth, axis=1)
    nominal = np.linalg.norm(np.diff(grid[:, :3], axis=0), axis=1).mean() / 0.002
    accelerations = np.linalg.norm(np.diff(smooth, axis=0), axis=1) / 0.02
    return [
        ('path error, mean', away.mean() * 1e3, 'mm'),
        ('path error, p95', float(np.quantile(away, 0.95)) * 1e3, 'mm'),
        ('orientation error, p95', float(np.degrees(np.quantile(turned, 0.95))), 'deg'),
        (
            'max change of velocity within 40 ms',
            float(np.linalg.norm(smooth[2:] - smooth[:-2], axis=1).max()) * 1e3,
            'mm/s',
        ),
        ('max acceleration', float(accelerations.max()), 'm/s2'),
        ('acceleration, root of the mean square', float(np.sqrt(np.mean(accelerations**2))), 'm/s2'),
        ('time without motion', float(np.mean(speeds < STILL_SHARE * nominal)) * 100, '%'),
        ('speed against that of the path', float(speeds.mean() / nominal) * 100, '%'),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures to a file')
    parser.add_argument('--latencies', type=float, nargs='+', default=LATENCIES_S, help='s')
    parser.add_argument('--lead', type=float, default=LEAD_S, help='robot_action_latency_s of ours, s')
    parser.add_argument('--ways', nargs='+', default=['ours', 'stop_and_go', 'linear'])
    chosen = parser.parse_args()
    os.environ.setdefault('ROS_DOMAIN_ID', '77')
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    whole = load_embodiment('ur5e_robotiq_zed')
    embodiment = whole.model_copy(
        update={'cameras': tuple(camera.model_copy(update=SIZE) for camera in whole.cameras)}
    )
    figures: Figures = []
    rclpy.init(args=[])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'small.yaml'
        file.write_text(embodiment.text())
        for latency_s in chosen.latencies:
            for way in chosen.ways:
                motion, start, reported = run(way, latency_s, chosen.lead, embodiment, file, Path(folder))
                found = [*figures_of(motion, start), *reported]
                figures += [
                    (f'{latency_s * 1e3:.0f} ms, {way}: {name}', value, unit) for name, value, unit in found
                ]
                print(
                    f'{latency_s * 1e3:.0f} ms, {way:12}',
                    '  '.join(f'{value:8.3g}' for _, value, _ in found),
                    flush=True,
                )
    rclpy.shutdown()
    report('Carrying out chunks of a late model', figures, chosen.json)


if __name__ == '__main__':
    main()
