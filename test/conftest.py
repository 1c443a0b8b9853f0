# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures: synthetic episodes with a known truth, cells on loopback addresses of their own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from groot_ros.msg import GripperState, RobotStatus, TcpDelta
from hypothesis import settings
from rosbags.rosbag2 import StoragePlugin, Writer
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger

from benchmark import signals
from benchmark.signals import T0_NS
from groot_ros.bags.message_types import IMAGE_TYPE, typestore
from groot_ros.embodiment import load_embodiment
from groot_ros.geometry import apply_delta
from groot_ros.recording.episode_recorder import EpisodeRecording
from groot_ros.ros.qos import COMMAND_QOS, STATUS_QOS, STREAM_QOS
from groot_ros.ros.time import to_time_msg
from groot_ros.sim.test_interface import CellHooks
from groot_ros.ur5e_kinematics import JOINT_NAMES

# A domain and a loopback network of this run's own, so that parallel runs do not meet.
os.environ['ROS_DOMAIN_ID'] = str(20 + os.getpid() % 30)
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
# A shell that starts the tests in the background ignores Ctrl-C for them and for every process they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# A shared machine may stall for longer than any single example takes.
settings.register_profile('shared', deadline=None)
settings.load_profile('shared')
_NETWORK = f'127.{20 + os.getpid() % 200}'
TOPIC_TYPES = {**signals.STATE_TYPES, 'zed/image': IMAGE_TYPE}

_REAL_TIME = {'cell', 'start_cell', 'driver', 'operator', 'start_node'}


def pytest_addoption(parser):
    parser.addoption('--walks', type=int, default=1, help='random walks of each node')
    parser.addoption('--walk-steps', type=int, default=80, help='steps of each walk')


def pytest_generate_tests(metafunc):
    if 'walk_number' in metafunc.fixturenames:
        metafunc.parametrize('walk_number', range(metafunc.config.getoption('--walks')))


def pytest_collection_modifyitems(items):
    """Tests with real processes get the mark `cell`; all others may run in parallel."""
    for item in items:
        if _REAL_TIME & set(item.fixturenames) or item.path.stem in ('test_demo', 'test_up'):
            item.add_marker('cell')


@pytest.fixture(scope='session')
def embodiment():
    return load_embodiment('ur5e_robotiq_zed')


class KnownMotion:
    """Signals that are known functions of time, from a place of one's own."""

    def __init__(self, place_m: float = 0.0) -> None:
        self.place_m = place_m

    joints = staticmethod(signals.joints)
    velocities = staticmethod(signals.velocities)

    def pose(self, t: float) -> np.ndarray:
        """Tool down, moving and turning about base z at constant rates."""
        start = apply_delta(signals.DOWN, np.array([self.place_m, 0.0, 0.0, 0.0, 0.0, 0.0]))
        return apply_delta(start, np.array([0.05 * t, 0.02 * t, 0.0, 0.0, 0.0, 0.4 * t]))

    def opening(self, t: float) -> float:
        return 1.0 if t < 0.55 else 0.0


class SyntheticEpisode:
    """Puts messages of a KnownMotion into a recording, in the order of their stamps, as fast as it can."""

    def __init__(
        self,
        embodiment,
        seconds: float = 1.5,
        missing_frames=(),
        flip_quaternions: bool = False,
        place_m: float = 0.0,
    ) -> None:
        self.embodiment = embodiment
        self.seconds = seconds
        self.missing_frames = set(missing_frames)
        self.flip = flip_quaternions
        self.motion = KnownMotion(place_m)
        self._rng = np.random.default_rng(0)

    def record(
        self,
        path: Path,
        task: str = 'move the cube',
        outcome: str = 'success',
        drop_topic: str = '',
        **options,
    ):
        """Records what `entries` gives, by default all messages; options are those of EpisodeRecording."""
        types = {**TOPIC_TYPES, **options.pop('more_types', {})}
        types.pop(drop_topic, None)
        info = {
            'task': task,
            'operator': 'test',
            'embodiment': self.embodiment.text(),
            'namespace': '/',
            'fps': self.embodiment.fps,
        }
        # One by one: the images of an hour do not fit in memory.
        entries = options.pop('entries', None) or self._arrivals()
        recording = EpisodeRecording(path, self.embodiment, types, info, **options)
        for arrival_ns, topic, message in entries:
            if topic in types:
                while recording.queue_length > 200:  # a recorder never waits; this source may
                    time.sleep(0.001)
                recording.put(
                    topic, T0_NS + arrival_ns, bytes(typestore().serialize_cdr(message, types[topic]))
                )
            elif callable(message):
                message(recording)
        return recording.finish({'outcome': outcome})

    def write_plain(self, path: Path, entries=None, more_types=None, plugin=StoragePlugin.MCAP) -> None:
        """A bag of the messages without rows; `more_types` may replace a topic's type."""
        types = {**TOPIC_TYPES, **(more_types or {})}
        with Writer(path, version=9, storage_plugin=plugin) as writer:
            connections = {
                topic: writer.add_connection(f'/{topic}', msgtype, typestore=typestore())
                for topic, msgtype in types.items()
            }
            for arrival_ns, topic, message in self.entries() if entries is None else entries:
                writer.write(
                    connections[topic],
                    T0_NS + arrival_ns,
                    bytes(typestore().serialize_cdr(message, types[topic])),
                )

    def entries(self) -> list:
        """[arrival, topic, message] in order of arrival, 1 ms after the stamps; arrivals count from T0_NS."""
        return list(self._arrivals())

    def _arrivals(self):
        return ([stamp_ns + 1_000_000, topic, message] for stamp_ns, topic, message in self.messages())

    def messages(self):
        entries = [(round(k * 8e6), 'arm') for k in range(int(self.seconds / 0.008) + 30)]
        entries += [(round(k * 20e6) + 1_000_000, 'gripper') for k in range(int(self.seconds / 0.02) + 10)]
        period = 1e9 / self.embodiment.fps
        frames = range(2, int(self.seconds * self.embodiment.fps) + 2)
        entries += [
            (round(k * period) + 3_000_000, 'frame') for k in frames if k - 2 not in self.missing_frames
        ]
        for offset_ns, kind in sorted(entries):
            yield from getattr(self, f'_{kind}')(offset_ns)

    def _arm(self, offset_ns: int):
        t = offset_ns / 1e9
        stamp_ns = T0_NS + offset_ns
        # In reverse order: joints must be found by their names.
        yield (
            offset_ns,
            'joint_states',
            signals.joint_state_message(
                stamp_ns, self.motion.joints(t)[::-1], self.motion.velocities(t)[::-1], JOINT_NAMES[::-1]
            ),
        )
        pose = self.motion.pose(t)
        pose[3:] *= self._sign()
        yield offset_ns, 'tcp_pose', signals.tcp_pose_message(stamp_ns, pose)

    def _sign(self) -> float:
        return float(self._rng.choice([-1.0, 1.0])) if self.flip else 1.0

    def _gripper(self, offset_ns: int):
        opening = self.motion.opening(offset_ns / 1e9)
        yield offset_ns, 'gripper/state', signals.gripper_message(T0_NS + offset_ns, opening)

    def _frame(self, offset_ns: int):
        camera = self.embodiment.cameras[0]
        level = int(offset_ns / 1e6) % 200
        pixels = np.full((camera.height, camera.width, 3), level, np.uint8)
        yield offset_ns, 'zed/image', signals.image_message(T0_NS + offset_ns, pixels)


@pytest.fixture(scope='module')
def make_synthetic(embodiment):
    """Makes synthetic episodes, also for a fixture of a whole module."""
    return lambda **options: SyntheticEpisode(embodiment, **options)


@pytest.fixture
def synthetic(make_synthetic):
    """Makes synthetic episodes: synthetic(seconds=..., missing_frames=...).record(path)."""
    return make_synthetic


@pytest.fixture(scope='session')
def bags(tmp_path_factory, embodiment):
    """A folder with three episodes of 29, 30 and 31 rows of two tasks."""
    folder = tmp_path_factory.mktemp('bags')
    for index in range(3):
        SyntheticEpisode(embodiment, seconds=1.5 + index / 20).record(
            folder / f'episode_{index:06d}', task=f'task {index % 2}'
        )
    return folder


@pytest.fixture(scope='session')
def converted(tmp_path_factory, embodiment):
    """A good dataset of two episodes, made once."""
    from groot_ros.dataset.convert import convert

    folder = tmp_path_factory.mktemp('converted')
    for index in range(2):
        SyntheticEpisode(embodiment, seconds=1.5, place_m=index / 100).record(
            folder / 'bags' / f'episode_{index:06d}'
        )
    convert([folder / 'bags'], folder / 'dataset', embodiment)
    return folder / 'dataset'


@pytest.fixture
def dataset(converted, tmp_path):
    """A copy of it to spoil."""
    return Path(shutil.copytree(converted, tmp_path / 'dataset'))


_hosts = iter(range(1, 250))


@pytest.fixture
def loopback() -> str:
    """A loopback address that no other test uses."""
    return f'{_NETWORK}.0.{next(_hosts)}'


class RunningCell:
    """A sim_cell process without a camera."""

    def __init__(self, host: str, *arguments: str) -> None:
        self.host = host
        self.process = subprocess.Popen(
            [
                sys.executable,
                '-m',
                'groot_ros.nodes.sim_cell',
                '--host',
                host,
                '--no-camera',
                '--no-diagnostics',
                *arguments,
            ]
        )
        self.hooks = CellHooks(host, timeout_s=60.0)

    def stop(self) -> None:
        self.hooks.close()
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def start_cell():
    """Starts simulated cells, each on an address of its own, and stops them afterwards."""
    cells: list[RunningCell] = []

    def start(*arguments: str) -> RunningCell:
        cells.append(RunningCell(f'{_NETWORK}.0.{next(_hosts)}', *arguments))
        return cells[-1]

    yield start
    for running in cells:
        running.stop()


@pytest.fixture
def cell(start_cell):
    """One simulated cell."""
    return start_cell()


def wait_until(condition, timeout_s: float = 30.0, step=lambda: time.sleep(0.02)) -> bool:
    """Whether a condition came true; generous, since these machines are shared."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        step()
    return True


@pytest.fixture
def eventually():
    """The function wait_until."""
    return wait_until


@pytest.fixture
def known() -> SimpleNamespace:
    """The signals of synthetic episodes and the instant they begin."""
    return SimpleNamespace(motion=KnownMotion(), t0_ns=T0_NS)


class Operator:
    """A node of the test that listens and commands."""

    def __init__(self) -> None:
        self.node = rclpy.create_node('operator')
        self.newest = {}
        self._clients = {}
        self._deltas = self.node.create_publisher(TcpDelta, 'teleop/tcp_delta', COMMAND_QOS)
        self.sequence = 0
        for kind, topic, qos in (
            (JointState, 'joint_states', STREAM_QOS), (PoseStamped, 'tcp_pose', STREAM_QOS),
            (PoseStamped, 'tcp_target', STREAM_QOS),
            (RobotStatus, 'robot_status', STATUS_QOS), (GripperState, 'gripper/state', STREAM_QOS),
        ):  # fmt: skip
            self.node.create_subscription(
                kind, topic, lambda message, topic=topic: self.newest.update({topic: message}), qos
            )

    def spin(self, seconds: float = 0.02) -> None:
        rclpy.spin_once(self.node, timeout_sec=seconds)

    def until(self, condition, timeout_s: float = 60.0) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            self.spin()
            if time.monotonic() > deadline_s:
                return False
        return True

    @property
    def status(self) -> RobotStatus:
        return self.newest.get('robot_status', RobotStatus())

    @property
    def position(self) -> np.ndarray:
        p = self.newest['tcp_pose'].pose.position
        return np.array([p.x, p.y, p.z])

    def call(self, kind, service, request):
        # An answer is lost if it comes before the server has discovered a new client: one for all calls.
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, service)
        client = self._clients[service]
        assert self.until(client.service_is_ready)
        future = client.call_async(request)
        assert self.until(future.done)
        return future.result()

    def enable(self, on: bool = True):
        """Asks again, as a person would, if a process of the driver was held up meanwhile."""
        for _ in range(3):
            answer = self.call(SetBool, 'ur5e_driver/enable', SetBool.Request(data=on))
            if answer.success or 'stopped meanwhile' not in answer.message:
                break
            self.until(lambda: False, 1.0)
        return answer

    def recover(self):
        return self.call(Trigger, 'ur5e_driver/recover', Trigger.Request())

    def stopped(self, timeout_s: float = 30.0) -> bool:
        return self.until(lambda: self.status.state == RobotStatus.STOPPED, timeout_s)

    def leave_commands_to_another(self) -> None:
        """The driver refuses a second publisher of commands."""
        self.node.destroy_publisher(self._deltas)

    def release(self) -> None:
        self.sequence += 1
        self._deltas.publish(TcpDelta(source='teleop', sequence=self.sequence, released=True))

    def send(self, translation=(0.0, 0.0, 0.0), opening=float('nan'), duration=0.05) -> None:
        self.sequence += 1
        message = TcpDelta(source='teleop', sequence=self.sequence, opening=opening, duration=duration)
        message.translation = np.array(translation)
        message.header.stamp = to_time_msg(time.time_ns())
        self._deltas.publish(message)


@pytest.fixture
def operator():
    """A node of the test, on real rclpy."""
    rclpy.init(args=[])
    made = Operator()
    yield made
    made.node.destroy_node()
    rclpy.shutdown()


@pytest.fixture
def start_node():
    """Starts nodes as processes, and stops them afterwards."""
    processes = []

    def start(name: str, *arguments: str, **parameters) -> subprocess.Popen:
        options = [word for key, value in parameters.items() for word in ('-p', f'{key}:={value}')]
        command = [sys.executable, '-m', f'groot_ros.nodes.{name}', *arguments, '--ros-args', *options]
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in reversed(processes):
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture
def driver(cell, operator, start_node):
    """The arm's driver on a simulated cell, connected."""
    # A shared machine may stall for longer than a real cell: these are the maximum limits of the driver.
    start_node(
        'ur5e_driver',
        robot_ip=cell.host,
        command_timeout_s=2.0,
        max_command_age_s=2.0,
        state_timeout_s=0.6,
        tracking_margin_s=1.0,
    )
    assert operator.until(lambda: operator.status.connected and 'tcp_pose' in operator.newest)
    return cell
