# SPDX-License-Identifier: Apache-2.0
"""The recorder with real ROS, fed by a small cell: episodes from start to verdict, and preflight."""

import json
import threading
import time

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from geometry_msgs.msg import PoseStamped
from groot_ros.action import RecordEpisode
from groot_ros.msg import EpisodeStatus, GripperState
from groot_ros.srv import Preflight, StartEpisode, StopEpisode
from rclpy.action import ActionClient
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from groot_ros.bags.reader import EpisodeBag
from groot_ros.quality.trace_from_bag import load_bag_embodiment, load_trace
from groot_ros.ros.qos import IMAGE_QOS, STATUS_QOS, STREAM_QOS
from groot_ros.ros.time import to_time_msg
from groot_ros.ur5e_kinematics import JOINT_NAMES

WIDTH, HEIGHT = 64, 48
EMBODIMENT = f"""
base: ur5e_robotiq_zed
cameras: [{{name: zed_camera, topic: zed/image, width: {WIDTH}, height: {HEIGHT}}}]
expected_rates_hz: {{joint_states: 40, tcp_pose: 40, gripper/state: 20}}
extra_topics: []
"""
# These machines are shared: what is judged here is the recorder, not their clock.
UNJUDGED = (
    'rate_deviation', 'gap_s', 'tick_jitter', 'fps_deviation', 'filled_share', 'max_filled_s', 'age_p95_s',
    'age_max_s', 'delay_s', 'late_share', 'drift_ppm', 'idle_head_s', 'idle_tail_s', 'rows_without_state',
    'duration_s', 'future_stamp_s', 'gripper_still', 'frame_skew', 'stamp_regressions',
)  # fmt: skip
PATIENT = ''.join(f'{check}: {{}}\n' for check in UNJUDGED)


class SmallCell:
    """Publishes arm, gripper and camera from a thread of its own."""

    def __init__(self, node) -> None:
        self._node = node
        self.joints = node.create_publisher(JointState, 'joint_states', STREAM_QOS)
        self.poses = node.create_publisher(PoseStamped, 'tcp_pose', STREAM_QOS)
        self.gripper = node.create_publisher(GripperState, 'gripper/state', STREAM_QOS)
        self.images = node.create_publisher(Image, 'zed/image', IMAGE_QOS)
        self.camera_on, self.size = True, (WIDTH, HEIGHT)
        self._running = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._running = False
        self._thread.join()

    def _run(self) -> None:
        k, began_s = 0, time.time()
        while self._running:
            stamp = to_time_msg(round((began_s + k / 40) * 1e9))
            t = k / 40
            joints = JointState(
                name=list(JOINT_NAMES), position=(0.2 * np.sin(t + np.arange(6))).tolist(), velocity=[0.0] * 6
            )
            pose, gripper = (
                PoseStamped(),
                GripperState(opening=0.5 + 0.5 * np.sin(t), target=0.5 + 0.5 * np.sin(t)),
            )
            pose.pose.position.x, pose.pose.orientation.w = 0.1 * np.sin(t), 1.0
            for message, publisher, every in (
                (joints, self.joints, 1),
                (pose, self.poses, 1),
                (gripper, self.gripper, 2),
            ):
                if k % every == 0:
                    message.header.stamp = stamp
                    publisher.publish(message)
            if k % 2 == 0 and self.camera_on:
                width, height = self.size
                data = np.full(3 * width * height, 60 + k % 100, np.uint8).tobytes()
                image = Image(width=width, height=height, step=3 * width, encoding='rgb8', data=data)
                image.header.stamp = stamp
                self.images.publish(image)
            k += 1
            time.sleep(max(began_s + k / 40 - time.time(), 0.0))


class RecorderClient:
    """The services of a recorder, and its newest status."""

    def __init__(self, operator, folder) -> None:
        self._operator, self.folder = operator, folder
        self.status = EpisodeStatus()
        self.seen_problems: set[str] = set()
        operator.node.create_subscription(EpisodeStatus, 'episode_status', self._note, STATUS_QOS)

    def _note(self, status) -> None:
        self.status = status
        if status.state == EpisodeStatus.RECORDING:
            self.seen_problems.update(status.problems)

    def until(self, condition) -> bool:
        return self._operator.until(condition)

    def green(self) -> bool:
        return self.until(lambda: self.call(Preflight, 'preflight').success)

    def call(self, kind, name, **fields):
        return self._operator.call(kind, f'recorder/{name}', kind.Request(**fields))

    def start(self, task='move the cube', **fields):
        return self.call(StartEpisode, 'start', task=task, operator_name='test', **fields)

    def stop(self, succeeded=True):
        return self.call(StopEpisode, 'stop', succeeded=succeeded)

    def rows(self, count) -> bool:
        return self.until(lambda: self.status.rows >= count)


@pytest.fixture
def small_cell(operator):
    cell = SmallCell(operator.node)
    yield cell
    cell.close()


@pytest.fixture
def recorder(operator, start_node, tmp_path):
    """A recorder, with parameters of one's own."""

    def start(**parameters) -> RecorderClient:
        (tmp_path / 'small.yaml').write_text(EMBODIMENT)
        (tmp_path / 'patient.yaml').write_text(PATIENT)
        folder = tmp_path / 'episodes'
        chosen = {
            'embodiment': tmp_path / 'small.yaml',
            'quality_thresholds': tmp_path / 'patient.yaml',
            'report': 'false',
            'hardware_encoder': 'false',
        }
        start_node('recorder', output_dir=folder, min_free_gb=0.01, **{**chosen, **parameters})
        return RecorderClient(operator, folder)

    return start


def test_an_episode_from_preflight_to_verdict(small_cell, recorder):
    client = recorder()
    assert client.green()
    answer = client.start()
    assert answer.success, answer.message
    assert not client.start().success
    assert client.rows(20)
    assert client.status.state == EpisodeStatus.RECORDING
    assert {stream.topic for stream in client.status.streams} == {
        'joint_states',
        'tcp_pose',
        'gripper/state',
        'zed/image',
    }
    answer = client.stop()
    assert answer.success, answer.message
    path = client.folder / answer.episode
    verdict = json.loads((path / 'verdict.json').read_text())
    assert verdict['verdict'] == answer.verdict == 'pass', verdict['reasons']
    assert (
        json.loads((client.folder / 'episodes.json').read_text())['episodes'][0]['rows']
        == verdict['rows']
        >= 20
    )
    with EpisodeBag(path) as bag:
        assert load_trace(bag, load_bag_embodiment(bag)).rows == verdict['rows']
    assert 'No episode' in client.stop().message


def test_pause_redo_and_discard(small_cell, recorder):
    client = recorder()
    assert client.green()
    assert not client.call(SetBool, 'pause', data=True).success
    assert client.start().success
    assert client.rows(10)
    assert client.call(SetBool, 'pause', data=True).success
    assert not client.call(SetBool, 'pause', data=True).success
    assert client.until(lambda: client.status.state == EpisodeStatus.PAUSED)
    assert client.call(SetBool, 'pause', data=False).success
    rows = client.status.rows
    assert client.rows(rows + 10)
    answer = client.stop()
    assert answer.success, answer.message
    assert json.loads((client.folder / answer.episode / 'verdict.json').read_text())['segments'] == 2
    assert client.start('another').success
    assert client.rows(5)
    answer = client.call(Trigger, 'redo')
    assert answer.success, answer.message
    assert client.until(
        lambda: client.status.state == EpisodeStatus.RECORDING and client.status.task == 'another'
    )
    assert client.call(Trigger, 'discard').success
    assert not client.call(Trigger, 'discard').success
    assert [path.name for path in sorted(client.folder.glob('episode_*'))] == ['episode_000000']


def test_the_action_records_with_feedback_and_a_cancelled_goal_leaves_nothing(small_cell, recorder, operator):
    client, action, feedback = recorder(), ActionClient(operator.node, RecordEpisode, 'recorder/record'), []
    assert client.green()

    def send(**fields):
        assert operator.until(action.server_is_ready)
        future = action.send_goal_async(
            RecordEpisode.Goal(task='x', **fields), feedback_callback=feedback.append
        )
        assert operator.until(future.done)
        return future.result()

    goal = send()
    assert goal.accepted
    assert client.rows(5)
    assert not send().accepted
    assert operator.until(lambda: bool(feedback))
    assert client.stop().success
    result = goal.get_result_async()
    assert operator.until(result.done)
    assert result.result().result.success
    goal = send()
    assert operator.until(lambda: client.status.state == EpisodeStatus.RECORDING)
    assert operator.until(goal.cancel_goal_async().done)
    assert operator.until(lambda: client.status.state == EpisodeStatus.IDLE)
    result = goal.get_result_async()
    assert operator.until(result.done)
    assert not result.result().result.success
    assert len(list(client.folder.glob('episode_*'))) == 1
    goal = send(time_limit=0.5)
    result = goal.get_result_async()
    assert operator.until(result.done)
    assert 'failure' in result.result().result.message
    assert result.result().status == GoalStatus.STATUS_ABORTED


def test_a_red_preflight_stops_the_start_unless_it_is_forced(small_cell, recorder, operator):
    client = recorder()
    assert client.green()
    second = operator.node.create_publisher(PoseStamped, 'tcp_pose', STREAM_QOS)
    assert operator.until(lambda: 'tcp_pose has 2 publishers' in client.call(Preflight, 'preflight').message)
    assert 'Not ready' in client.start().message
    assert client.start(force=True).success
    assert client.rows(3)
    assert client.stop().success
    operator.node.destroy_publisher(second)


def test_a_topic_of_the_wrong_type_is_named_before_an_episode(recorder, operator):
    client = recorder()
    operator.node.create_publisher(String, 'zed/image', STREAM_QOS)
    assert operator.until(
        lambda: (
            'zed/image is of type std_msgs/msg/String, and a camera must be'
            in client.call(Preflight, 'preflight').message
        )
    )


def test_a_publisher_that_comes_back_with_another_type_is_named(small_cell, recorder, operator):
    client = recorder()
    assert client.green()
    small_cell.camera_on = False
    operator.node.destroy_publisher(small_cell.images)
    operator.node.create_publisher(CompressedImage, 'zed/image', IMAGE_QOS)
    types = 'came as sensor_msgs/msg/Image and now as sensor_msgs/msg/CompressedImage'
    expected = f'zed/image {types}: start the recorder again'
    assert operator.until(lambda: expected in client.call(Preflight, 'preflight').message)


def test_a_camera_that_falls_silent_is_reported_at_once_and_ends_the_episode(small_cell, recorder):
    client = recorder()
    assert client.green()
    assert client.start().success
    assert client.rows(5)
    small_cell.camera_on = False
    assert client.until(
        lambda: any(problem.startswith('zed/image: silent') for problem in client.seen_problems)
    )
    assert client.until(lambda: client.status.state == EpisodeStatus.IDLE)
    verdict = json.loads((client.folder / 'episode_000000' / 'verdict.json').read_text())
    assert (verdict['outcome'], verdict['failure']) == ('interrupted', '')
    assert 'zed/image fell silent' in verdict['reasons'][0]
    small_cell.camera_on = True


def test_a_camera_of_another_size_ends_the_episode_and_what_came_before_is_kept(small_cell, recorder):
    client = recorder()
    assert client.green()
    assert client.start().success
    assert client.rows(10)
    small_cell.size = (32, 24)
    assert client.until(lambda: client.status.state == EpisodeStatus.IDLE)
    verdict = json.loads((client.folder / 'episode_000000' / 'verdict.json').read_text())
    assert verdict['verdict'] == 'fail'
    assert '32x24 came where' in verdict['failure']
    assert verdict['rows'] >= 10
    small_cell.size = (WIDTH, HEIGHT)
    assert client.green()
    assert client.start().success


def test_the_next_task_of_the_list_is_taken_and_counted(small_cell, recorder, tmp_path):
    (tmp_path / 'tasks.yaml').write_text(
        'tasks: [{text: first, count: 1}, {text: "second\\nline – ü", count: 1}]'
    )
    client = recorder(tasks_file=tmp_path / 'tasks.yaml')
    assert client.green()
    assert client.call(Trigger, 'next_task').message == 'next: second\nline – ü'
    assert client.until(lambda: client.status.next_task == 'second\nline – ü')
    assert client.call(Trigger, 'next_task').success
    for task in ('first', 'second\nline – ü'):
        assert client.until(lambda task=task: client.status.next_task == task)
        assert client.start('').success
        assert client.rows(3)
        assert client.stop().success
    assert client.until(lambda: client.status.next_task == '')
    assert 'The task list is done' in client.start('').message
    answer = client.call(Trigger, 'skip_task')
    assert (answer.success, answer.message) == (False, 'The task list is done.')


@pytest.mark.parametrize(
    ('parameters', 'message'),
    [({'video': 'mpeg'}, 'h264, jpeg, raw'), ({'tasks_file': '/nonexistent'}, 'cannot be read')],
)
def test_parameters_that_are_wrong_are_named(start_node, tmp_path, parameters, message):
    process = start_node('recorder', output_dir=tmp_path, **parameters)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert message in text
    assert 'Traceback' not in text
