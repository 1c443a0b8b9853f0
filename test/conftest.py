"""Shared fixtures: synthetic episodes with a known truth, cells on loopback addresses of their own."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from groot_ros.bags.recording import EpisodeRecording
from groot_ros.bags.types import time_message, typestore
from groot_ros.embodiment import load_embodiment
from groot_ros.geometry import apply_delta
from groot_ros.kinematics import JOINT_NAMES
from groot_ros.sim.hooks import CellHooks

# A domain and a loopback network of this run's own, so that runs beside each other do not meet.
os.environ['ROS_DOMAIN_ID'] = str(20 + os.getpid() % 30)
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
_NETWORK = f'127.{20 + os.getpid() % 200}'
T0_NS = 1_700_000_000_000_000_000
TOPIC_TYPES = {
    'joint_states': 'sensor_msgs/msg/JointState',
    'gripper/state': 'groot_ros/msg/GripperState',
    'tcp_pose': 'geometry_msgs/msg/PoseStamped',
    'zed/image': 'sensor_msgs/msg/Image',
}


@pytest.fixture(scope='session')
def embodiment():
    return load_embodiment('ur5e_robotiq_zed')


class KnownMotion:
    """Signals that are known functions of time."""

    def joints(self, t: float) -> np.ndarray:
        return 0.3 * np.sin(t + np.arange(6))

    def velocities(self, t: float) -> np.ndarray:
        return 0.3 * np.cos(t + np.arange(6))

    def pose(self, t: float) -> np.ndarray:
        """Tool down, moving and turning about base z at constant rates."""
        down = np.array([-0.1, -0.5, 0.2, 0.0, 1.0, 0.0, 0.0])
        return apply_delta(down, np.array([0.05 * t, 0.02 * t, 0.0, 0.0, 0.0, 0.4 * t]))

    def opening(self, t: float) -> float:
        return 1.0 if t < 0.55 else 0.0


class SyntheticEpisode:
    """Puts messages of a KnownMotion into a recording, in the order of their stamps, as fast as it can."""

    def __init__(self, embodiment, seconds: float = 1.5, missing_frames=(), flip_quaternions: bool = False) -> None:
        self.embodiment, self.seconds = embodiment, seconds
        self.missing_frames, self.flip = set(missing_frames), flip_quaternions
        self.motion = KnownMotion()
        self.types = typestore().types
        self._rng = np.random.default_rng(0)

    def record(self, path: Path, task: str = 'move the cube', outcome: str = 'success', drop_topic: str = ''):
        kinds = {topic: kind for topic, kind in TOPIC_TYPES.items() if topic != drop_topic}
        info = {'task': task, 'operator': 'test', 'embodiment': self.embodiment.text(), 'namespace': '/', 'fps': self.embodiment.fps}
        recording = EpisodeRecording(path, self.embodiment, kinds, info)
        for stamp_ns, topic, message in self.messages():
            if topic != drop_topic:
                cdr = bytes(typestore().serialize_cdr(message, TOPIC_TYPES[topic]))
                while recording._queue.full():  # a recorder never waits; this source may
                    time.sleep(0.001)
                recording.put(topic, T0_NS + stamp_ns + 1_000_000, cdr)
        return recording.finish({'outcome': outcome})

    def messages(self):
        entries = [(round(k * 8e6), 'arm') for k in range(int(self.seconds / 0.008) + 30)]
        entries += [(round(k * 20e6) + 1_000_000, 'gripper') for k in range(int(self.seconds / 0.02) + 10)]
        period = 1e9 / self.embodiment.fps
        frames = range(2, int(self.seconds * self.embodiment.fps) + 2)
        entries += [(round(k * period) + 3_000_000, 'frame') for k in frames if k - 2 not in self.missing_frames]
        for offset_ns, kind in sorted(entries):
            yield from getattr(self, f'_{kind}')(offset_ns)

    def _header(self, offset_ns: int):
        return self.types['std_msgs/msg/Header'](time_message(T0_NS + offset_ns), 'base')

    def _arm(self, offset_ns: int):
        t, header = offset_ns / 1e9, self._header(offset_ns)
        state = self.types['sensor_msgs/msg/JointState'](
            header, list(JOINT_NAMES)[::-1], self.motion.joints(t)[::-1].copy(), self.motion.velocities(t)[::-1].copy(), np.zeros(0)
        )
        x, y, z, qx, qy, qz, qw = self.motion.pose(t) * np.array([1, 1, 1, *[self._sign()] * 4])
        pose = self.types['geometry_msgs/msg/Pose'](
            self.types['geometry_msgs/msg/Point'](x, y, z), self.types['geometry_msgs/msg/Quaternion'](qx, qy, qz, qw)
        )
        yield offset_ns, 'joint_states', state
        yield offset_ns, 'tcp_pose', self.types['geometry_msgs/msg/PoseStamped'](header, pose)

    def _sign(self) -> float:
        return float(self._rng.choice([-1.0, 1.0])) if self.flip else 1.0

    def _gripper(self, offset_ns: int):
        opening = self.motion.opening(offset_ns / 1e9)
        state = self.types['groot_ros/msg/GripperState'](self._header(offset_ns), opening, opening, False, False, 0, '')
        yield offset_ns, 'gripper/state', state

    def _frame(self, offset_ns: int):
        camera = self.embodiment.cameras[0]
        image = np.full((camera.height, camera.width, 3), int(offset_ns / 1e6) % 200, np.uint8)
        message = self.types['sensor_msgs/msg/Image'](
            self._header(offset_ns), camera.height, camera.width, 'rgb8', 0, 3 * camera.width, image.ravel()
        )
        yield offset_ns, 'zed/image', message


@pytest.fixture
def synthetic(embodiment):
    """Makes synthetic episodes: synthetic(seconds=..., missing_frames=...).record(path)."""
    return lambda **options: SyntheticEpisode(embodiment, **options)


@pytest.fixture
def dataset(tmp_path, synthetic, embodiment):
    """A good dataset of two episodes."""
    from groot_ros.dataset.convert import convert

    for index in range(2):
        synthetic(seconds=1.5).record(tmp_path / 'bags' / f'episode_{index:06d}')
    convert([tmp_path / 'bags'], tmp_path / 'dataset', embodiment)
    return tmp_path / 'dataset'


_hosts = iter(range(1, 250))


@pytest.fixture
def loopback() -> str:
    """A loopback address that no other test uses."""
    return f'{_NETWORK}.0.{next(_hosts)}'


class RunningCell:
    """A sim_cell process without a camera."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.process = subprocess.Popen([sys.executable, '-m', 'groot_ros.nodes.sim_cell', '--host', host, '--no-camera'])
        self.hooks = CellHooks(host, patience_s=60.0)

    def stop(self) -> None:
        self.hooks.close()
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def start_cell():
    """Starts simulated cells, each on an address of its own, and stops them afterwards."""
    cells: list[RunningCell] = []

    def start() -> RunningCell:
        cells.append(RunningCell(f'{_NETWORK}.0.{next(_hosts)}'))
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
