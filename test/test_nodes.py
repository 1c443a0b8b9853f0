"""The nodes on real rclpy, against a simulated cell."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from groot_ros.msg import GripperState, RobotStatus, TcpDelta
from groot_ros.srv import StartEpisode
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from groot_ros.nodes.common import COMMAND_QOS, STATUS_QOS, STREAM_QOS, time_of


class Operator:
    """A node of the test that listens and commands."""

    def __init__(self) -> None:
        self.node = rclpy.create_node('operator')
        self.newest = {}
        self._deltas = self.node.create_publisher(TcpDelta, 'teleop/tcp_delta', COMMAND_QOS)
        self.sequence = 0
        for kind, topic, qos in (
            (JointState, 'joint_states', STREAM_QOS), (PoseStamped, 'tcp_pose', STREAM_QOS), (PoseStamped, 'tcp_target', STREAM_QOS),
            (RobotStatus, 'robot_status', STATUS_QOS), (GripperState, 'gripper/state', STREAM_QOS),
        ):  # fmt: skip
            self.node.create_subscription(kind, topic, lambda message, topic=topic: self.newest.update({topic: message}), qos)

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
        client = self.node.create_client(kind, service)
        assert self.until(client.service_is_ready)
        future = client.call_async(request)
        assert self.until(future.done)
        return future.result()

    def enable(self, on: bool = True):
        return self.call(SetBool, 'ur5e_driver/enable', SetBool.Request(data=on))

    def send(self, translation=(0.0, 0.0, 0.0), opening=float('nan'), duration=0.05) -> None:
        self.sequence += 1
        message = TcpDelta(source='teleop', sequence=self.sequence, opening=opening, duration=duration)
        message.translation = np.array(translation)
        message.header.stamp = time_of(time.time_ns())
        self._deltas.publish(message)


@pytest.fixture
def operator():
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
    # A shared machine may stall for longer than a real cell's limits.
    start_node('ur5e_driver', robot_ip=cell.host, silence_s=1.0, stale_s=1.0)
    assert operator.until(lambda: operator.status.connected and 'tcp_pose' in operator.newest)
    return cell


def test_the_arm_moves_only_after_enable_and_stops_on_silence(driver, operator):
    before = operator.position
    for _ in range(10):
        operator.send((0.0, 0.0, -0.005))
        operator.spin(0.05)
    assert operator.until(lambda: operator.status.refused >= 5)
    np.testing.assert_allclose(operator.position, before, atol=1e-4)

    assert operator.enable().success
    for _ in range(10):
        operator.send((0.0, 0.0, -0.005))
        operator.spin(0.05)
    assert operator.until(lambda: operator.position[2] < before[2] - 0.04)
    assert operator.until(lambda: operator.status.state == RobotStatus.STOPPED)
    assert 'silent' in operator.status.reason
    assert operator.position[2] == pytest.approx(before[2] - 0.05, abs=2e-3)


def test_commands_beyond_a_limit_are_clipped_or_refused_and_counted(driver, operator):
    assert operator.enable().success
    start = operator.position
    operator.send((float('nan'), 0.0, 0.0))
    assert operator.until(lambda: operator.status.refused == 1)
    operator.send((5.0, 0.0, 0.0))
    assert operator.until(lambda: operator.status.clipped == 1)
    assert operator.until(lambda: operator.status.state == RobotStatus.STOPPED)
    assert np.linalg.norm(operator.position - start) <= 0.5 * 0.05 + 1e-3


def test_a_protective_stop_is_named_and_refuses_to_be_enabled(driver, operator):
    assert operator.enable().success
    assert operator.until(lambda: operator.status.runtime_state == 2)
    driver.hooks.call('protective_stop')
    assert operator.until(lambda: operator.status.state == RobotStatus.STOPPED and operator.status.protective_stopped)
    assert 'safety mode 3' in operator.status.reason
    answer = operator.enable()
    assert not answer.success
    assert 'protective stop' in answer.message


def test_a_lost_controller_is_reported_and_found_again(driver, operator):
    driver.hooks.call('silence', on=True)
    assert operator.until(lambda: not operator.status.connected)
    assert not operator.enable().success
    driver.hooks.call('silence', on=False)
    assert operator.until(lambda: operator.status.connected)
    assert operator.enable().success


def test_state_stamps_rise_evenly_by_robot_time(driver, operator):
    stamps = []
    operator.node.create_subscription(
        JointState, 'joint_states', lambda m: stamps.append(m.header.stamp.sec * 10**9 + m.header.stamp.nanosec), STREAM_QOS
    )
    assert operator.until(lambda: len(stamps) > 250)
    steps_ms = np.diff(stamps[50:]) / 1e6
    # A step is a multiple of 8 ms, whatever the scheduler did to the arrival.
    assert np.abs(steps_ms - 8 * np.round(steps_ms / 8)).max() < 1.0
    assert steps_ms.min() > 0


def test_the_gripper_follows_accepted_commands_only(driver, operator, start_node):
    start_node('robotiq_driver', robot_ip=driver.host)
    assert operator.until(lambda: 'gripper/state' in operator.newest)
    operator.send(opening=0.0)
    assert operator.until(lambda: operator.status.refused == 1)
    assert operator.newest['gripper/state'].target > 0.98
    assert operator.enable().success

    def closed():
        operator.send(opening=0.0)
        operator.spin(0.05)
        return operator.newest['gripper/state'].position < 0.02

    assert operator.until(closed)
    assert operator.newest['gripper/state'].target == 0.0


def test_an_unreachable_robot_ends_in_one_sentence(start_node, loopback):
    process = start_node('ur5e_driver', robot_ip=loopback, connect_timeout_s=1.0)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f'error: No UR5e answers at {loopback}' in text
    assert 'Traceback' not in text


def test_a_camera_without_the_zed_sdk_says_what_to_install(start_node):
    process = start_node('zed_driver', source='sdk', connect_timeout_s=1.0)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'get_python_api.py' in text


def test_a_parameter_out_of_its_range_is_refused(start_node, loopback):
    process = start_node('ur5e_driver', robot_ip=loopback, lookahead_s=5.0)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'lookahead_s' in text
    assert 'Traceback' not in text


def test_the_recorder_says_which_stream_is_missing(start_node, operator, tmp_path):
    start_node('recorder', output_dir=tmp_path / 'episodes')
    answer = operator.call(StartEpisode, 'recorder/start', StartEpisode.Request(task='x'))
    assert not answer.success
    assert 'Nothing publishes joint_states' in answer.message
    assert not operator.call(StartEpisode, 'recorder/start', StartEpisode.Request(task=' ')).success


def test_a_second_recorder_on_the_same_folder_is_refused(start_node, operator, tmp_path):
    start_node('recorder', output_dir=tmp_path)
    assert operator.until(lambda: (tmp_path / '.recorder.lock').exists())
    second = start_node('recorder', output_dir=tmp_path)
    _, text = second.communicate(timeout=60)
    assert second.returncode == 1
    assert 'Another recorder' in text


def test_a_node_ends_cleanly_on_ctrl_c(start_node, operator, tmp_path):
    process = start_node('recorder', output_dir=tmp_path)
    assert operator.until(lambda: (tmp_path / '.recorder.lock').exists())
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=20)
    assert process.returncode == 0
    assert 'Traceback' not in text
