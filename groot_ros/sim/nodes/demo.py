# SPDX-License-Identifier: Apache-2.0
"""`groot-ros demo`: runs the whole loop in the simulated cell and checks the result."""

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from std_srvs.srv import SetBool

from groot_ros.bringup.profiles import Options, build_processes
from groot_ros.bringup.supervisor import ProcessGroup
from groot_ros.dataset.convert import ConversionReport, convert
from groot_ros.dataset.options import ConversionOptions
from groot_ros.dataset.validation.validate import ValidationReport, validate
from groot_ros.embodiment import STATE_COLUMN, Embodiment, load_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.message_fields import header_stamp_ns, pose_from_msg
from groot_ros.msg import EpisodeStatus, PolicyStatus, RobotStatus, TcpDelta
from groot_ros.resources import DEFAULT_EMBODIMENT, share_directory
from groot_ros.ros.qos import COMMAND_QOS, STATUS_QOS, STREAM_QOS
from groot_ros.sim.demo.metrics import (
    Metric,
    TimedPath,
    conversion_metrics,
    dataset_episode,
    dataset_metrics,
    match_replay,
    recording_metrics,
    replay_metrics,
    truth_metrics,
    validation_metrics,
)  # fmt: skip
from groot_ros.sim.demo.report import DemoResult, format_number, write_report
from groot_ros.sim.scripted_operator import cube_in_bin, grasp_yaw
from groot_ros.sim.test_interface import CellHooks

# A demonstration takes 10 s and may be begun again.
_EPISODE_S = 150.0
_REPLAY_S = 90.0
_ATTEMPTS = 3
_SERVICE_S = 30.0
_REPLAYED_EPISODE = 0
_MARKER = '.groot_ros_demo'
_SETTLE_S = 1.0
_SLOW = 'If streams came too slowly, the computer did other work: close other programs and run it again.'


@dataclass
class DemoMonitor:
    """What the demo receives from the nodes while it waits.

    `cube` is the cube's pose (7,) at the start of the newest episode, and `stop_reason` why the arm has
    stopped, empty if it has not.
    """

    node: Node
    cell: ProcessGroup
    embodiment: Embodiment
    hooks: CellHooks
    all_streams_arrive: bool = False
    saved: int = 0
    recording: bool = False
    cube: Array = field(default_factory=lambda: np.full(7, np.nan))
    stop_reason: str = ''
    policy: PolicyStatus = field(default_factory=PolicyStatus)
    first_delta_ns: int = 0
    poses: list[tuple[int, Array]] = field(default_factory=list)

    def listen(self) -> None:
        """Subscribes to the status of the recorder, of the arm and of the policy server."""
        self.node.create_subscription(EpisodeStatus, 'episode_status', self._on_status, STATUS_QOS)
        self.node.create_subscription(RobotStatus, 'robot_status', self._on_robot, STATUS_QOS)
        self.node.create_subscription(PolicyStatus, 'policy_status', self._on_policy, STATUS_QOS)

    def listen_to_motion(self) -> None:
        """Subscribes to the motion of the arm and to its commands."""
        self.node.create_subscription(PoseStamped, 'tcp_pose', self._on_pose, STREAM_QOS)
        self.node.create_subscription(TcpDelta, 'policy/tcp_delta', self._on_delta, COMMAND_QOS)

    def wait(self, until, timeout_s: float, what: str) -> None:
        """Spins until a condition is true.

        Raises GrootRosError after `timeout_s`, or when a process ends.
        """
        deadline_s = time.monotonic() + timeout_s
        while not until():
            rclpy.spin_once(self.node, timeout_sec=0.1)
            self.cell.check()
            if time.monotonic() > deadline_s:
                raise GrootRosError(f'{what} did not happen within {timeout_s:.0f} s: see the output above.')

    def enable(self, service: str) -> None:
        """Calls an enable service until it succeeds."""
        client = self.node.create_client(SetBool, service)
        self.wait(lambda: client.service_is_ready(), _SERVICE_S, f'The service {service}')
        answers: list[Any] = []

        def accepted() -> bool:
            if not answers or (answers[-1].done() and not answers[-1].result().success):
                answers.append(client.call_async(SetBool.Request(data=True)))
            return answers[-1].done() and answers[-1].result().success

        self.wait(accepted, _SERVICE_S, f'Success of {service}')

    def _on_status(self, message: EpisodeStatus) -> None:
        self.saved = message.saved
        recording = message.state == EpisodeStatus.RECORDING
        if recording and not self.recording:
            self.cube = self.hooks.cube_pose()
        self.recording = recording
        needed = self.embodiment.required_topics
        self.all_streams_arrive = all(stream.rate > 0 for stream in message.streams if stream.topic in needed)

    def _on_robot(self, message: RobotStatus) -> None:
        self.stop_reason = message.reason if message.state == RobotStatus.STOPPED else ''

    def _on_policy(self, message: PolicyStatus) -> None:
        self.policy = message

    def _on_pose(self, message: PoseStamped) -> None:
        self.poses.append((header_stamp_ns(message), pose_from_msg(message)))

    def _on_delta(self, message: TcpDelta) -> None:
        is_running = self.policy.state == PolicyStatus.RUNNING and not self.policy.reason
        if is_running and not self.first_delta_ns:
            self.first_delta_ns = header_stamp_ns(message)


def run_demo(output: Path, episodes: int, host: str) -> int:
    """Runs every stage of the demo. Returns 0 when every metric is within its bound, else 1."""
    started_s = time.monotonic()
    embodiment = load_embodiment(DEFAULT_EMBODIMENT)
    _prepare(output)
    # A ROS domain of its own, on this machine only, so that the demo cannot move a real robot.
    os.environ.setdefault('ROS_DOMAIN_ID', str(50 + os.getpid() % 50))
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    options = Options(
        sim=True,
        robot_ip=host,
        output_dir=str(output / 'episodes'),
        episodes=episodes,
        truth=str(output / 'truth.bin'),
        dataset=str(output / 'dataset'),
        episode=_REPLAYED_EPISODE,
        params_file=str(share_directory() / 'config' / 'demo.yaml'),
    )
    rclpy.init(args=[])
    try:
        with ProcessGroup('collect', options, quiet=True) as cell:
            monitor = DemoMonitor(rclpy.create_node('demo'), cell, embodiment, CellHooks(options.robot_ip))
            metrics, replay = _run_stages(monitor, options, embodiment, output)
    finally:
        rclpy.try_shutdown()
    _stage('cell stopped, comparing with the ground truth')
    metrics += truth_metrics(output / 'episodes', output / 'truth.bin', embodiment, episodes)
    result = DemoResult(
        output / 'episodes',
        output / 'dataset',
        embodiment,
        metrics,
        replay,
        _REPLAYED_EPISODE,
        time.monotonic() - started_s,
    )
    return _conclude(result, output)


def _prepare(output: Path) -> None:
    """Creates the output folder, or empties it when an earlier demo made it.

    Raises GrootRosError for any other folder that is not empty.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        if any(output.iterdir()) and not (output / _MARKER).exists():
            raise GrootRosError(
                f'{output} is not empty and was not made by an earlier demo: choose another --output.'
            )
        for name in ('episodes', 'dataset'):
            shutil.rmtree(output / name, ignore_errors=True)
        for name in ('truth.bin', 'metrics.json', 'report.html'):
            (output / name).unlink(missing_ok=True)
        (output / _MARKER).touch()
    except OSError as error:
        raise GrootRosError(
            f'The demo cannot write to {output} ({error.strerror}): choose another --output.'
        ) from error


def _run_stages(
    monitor: DemoMonitor, options: Options, embodiment: Embodiment, output: Path
) -> tuple[list[Metric], Any]:
    monitor.listen()
    monitor.wait(lambda: monitor.all_streams_arrive, _SERVICE_S, 'The start of all topics')
    _stage('cell up')
    monitor.enable('ur5e_driver/enable')
    cubes = _record(monitor, options.episodes)
    monitor.cell.stop_process('teleop')
    conversion, validation = _convert(options, embodiment)
    metrics = [
        *recording_metrics(output / 'episodes'),
        *dataset_metrics(output / 'dataset', embodiment, conversion.episodes),
        *conversion_metrics(conversion, output / 'episodes'),
        *validation_metrics(validation),
    ]
    replay, placed = _replay(monitor, options, embodiment, cubes[_REPLAYED_EPISODE])
    metrics += replay_metrics(replay, placed)
    lateness = monitor.hooks.call('lateness_ms')
    metrics.append(Metric('lateness of the simulated controller, 99th percentile', lateness[2], 'ms'))
    return metrics, replay


def _record(monitor: DemoMonitor, episodes: int) -> list[Array]:
    """Waits for the scripted episodes. Returns the pose (7,) of the cube at the start of each."""
    cubes = []
    for index in range(episodes):
        _wait_for_episode(monitor, index)
        cubes.append(monitor.cube)
        _stage(f'episode {index + 1} of {episodes} recorded')
    return cubes


def _wait_for_episode(monitor: DemoMonitor, index: int) -> None:
    """Waits until an episode is saved, and enables an arm that stopped in it, as an operator would.

    On a busy machine the simulated robot can fall behind, and the arm rightly stops. The scripted operator
    then begins the episode again.
    """
    for _ in range(_ATTEMPTS):
        monitor.wait(
            lambda: monitor.stop_reason or monitor.saved > index, _EPISODE_S, f'The end of episode {index}'
        )
        if monitor.saved > index:
            return
        reason = monitor.stop_reason
        _stage(f'the arm stopped ({reason}), episode {index} begins again')
        monitor.enable('ur5e_driver/enable')
        monitor.wait(lambda: not monitor.stop_reason, _SERVICE_S, 'The arm in state ENABLED')
    raise GrootRosError(f'The arm stopped {_ATTEMPTS} times in episode {index}, at last: {reason}')


def _convert(options: Options, embodiment: Embodiment) -> tuple[ConversionReport, ValidationReport]:
    # A laptop that renders and records at once may miss frames. The metrics report them.
    report = convert(
        [Path(options.output_dir)], Path(options.dataset), embodiment, ConversionOptions(keep_failed=True)
    )
    _stage(f'{report.episodes} episodes, {report.rows} rows converted')
    validation = validate(Path(options.dataset))
    for finding in validation.findings:
        print(f'    {finding}')
    _stage(f'validated: {validation.errors} errors, {validation.warnings} warnings')
    return report, validation


def _replay(monitor: DemoMonitor, options: Options, embodiment: Embodiment, cube: Array) -> tuple[Any, bool]:
    """Puts the cube back and replays the actions of the dataset, again if the arm was stopped.

    Returns the comparison of the paths and whether the cube is in the bin.
    """
    policy = next(
        process for process in build_processes('deploy', options) if process.executable == 'policy_server'
    )
    monitor.cell.start(policy)
    monitor.listen_to_motion()
    monitor.wait(lambda: bool(monitor.policy.policy), _SERVICE_S, 'The start of policy_server')
    for attempt in range(_ATTEMPTS):
        monitor.hooks.place_cube(float(cube[0]), float(cube[1]), grasp_yaw(cube))
        if _run_policy(monitor):
            break
        _stage(f'the replay was stopped ({monitor.policy.reason}), attempt {attempt + 1} of {_ATTEMPTS}')
    else:
        raise GrootRosError(f'The replay was stopped before its end: {monitor.policy.reason}.')
    settled_s = time.monotonic() + _SETTLE_S
    monitor.wait(lambda: time.monotonic() > settled_s, 2 * _SETTLE_S, 'The end of the motion')
    recorded = dataset_episode(Path(options.dataset), _REPLAYED_EPISODE)[STATE_COLUMN][
        :, embodiment.pose_part
    ]
    origin_ns = monitor.first_delta_ns
    times_s = np.array([(stamp_ns - origin_ns) / 1e9 for stamp_ns, _ in monitor.poses])
    match = match_replay(
        recorded, embodiment.fps, 0.0, TimedPath(times_s, np.array([pose for _, pose in monitor.poses]))
    )
    _stage(f'episode {_REPLAYED_EPISODE} replayed')
    return match, cube_in_bin(monitor.hooks.cube_pose())


def _run_policy(monitor: DemoMonitor) -> bool:
    """Runs the policy once. Returns whether it came to its end."""
    monitor.enable('ur5e_driver/enable')
    monitor.wait(
        lambda: monitor.policy.state in (PolicyStatus.READY, PolicyStatus.STOPPED),
        _SERVICE_S,
        'The readiness of policy_server',
    )
    monitor.first_delta_ns = 0
    monitor.poses.clear()
    monitor.enable('policy_server/enable')
    monitor.wait(lambda: monitor.policy.state == PolicyStatus.RUNNING, _SERVICE_S, 'The start of the replay')
    monitor.wait(
        lambda: monitor.policy.state in (PolicyStatus.DONE, PolicyStatus.STOPPED),
        _REPLAY_S,
        'The end of the replay',
    )
    return monitor.policy.state == PolicyStatus.DONE


def _conclude(result: DemoResult, output: Path) -> int:
    """Prints the table, writes metrics.json and report.html, and returns the exit code."""
    entries = [metric.as_dict() for metric in result.metrics]
    (output / 'metrics.json').write_text(json.dumps(entries, indent=2) + '\n')
    write_report(result, output / 'report.html')
    print()
    for metric in result.metrics:
        print(_format_row(metric))
    print(f'\n{output / "report.html"} and {output / "metrics.json"} written after {result.seconds:.0f} s.')
    bad = [metric.name for metric in result.metrics if not metric.good]
    if bad:
        print(f'error: worse than its bound: {"; ".join(bad)}. {_SLOW}', file=sys.stderr)
    return 1 if bad else 0


def _format_row(metric: Metric) -> str:
    row = f'  {metric.name:60} {format_number(metric.value):>10} {metric.unit:4}'
    if metric.bound is None:
        return row
    verdict = 'good' if metric.good else 'BAD'
    bound = f'<= {format_number(metric.bound)}'
    return f'{row} {bound:>10}  {verdict}'


def _stage(text: str) -> None:
    print(f'==> {text}', flush=True)
