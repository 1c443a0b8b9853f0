# SPDX-License-Identifier: Apache-2.0
"""Coordinate frames: their names with and without a prefix, and the transforms on /tf and /tf_static."""

import time

import numpy as np
import pytest
import rclpy
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from groot_ros.bags.message_types import STRING_TYPE, absolute_topic, typestore
from groot_ros.bags.reader import EpisodeBag
from groot_ros.bringup.profiles import Options, build_processes
from groot_ros.embodiment import load_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.hardware.cameras.base import Frame
from groot_ros.hardware.ur5e.ipc import STATE
from groot_ros.nodes import camera_driver, ur5e_driver
from groot_ros.quality.trace_from_bag import load_trace
from groot_ros.ros.qos import STATUS_QOS
from groot_ros.ros.topic_subscriber import StreamWatch
from groot_ros.ros.transforms import make_transform

POSE = np.array([0.1, 0.2, 0.3, 0.0, 0.0, 0.6, 0.8])
MOUNTED = """
base: ur5e_robotiq_zed
cameras:
  - name: zed_camera
    topic: zed/image
    mount: {frame: tool0_controller, position: [0.1, 0.2, 0.3], orientation: [0, 0, 0.6, 0.8]}
"""


@pytest.fixture
def ros():
    """rclpy with parameters of one's own; nodes that are put into the list are destroyed."""
    nodes = []

    def start(make_node, **parameters):
        words = [word for name, value in parameters.items() for word in ('-p', f'{name}:={value}')]
        rclpy.init(args=['test', '--ros-args', *words])
        nodes.append(make_node())
        return nodes[-1]

    yield start
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown()


@pytest.fixture
def mounted(tmp_path):
    """An embodiment whose camera is calibrated."""
    file = tmp_path / 'mounted.yaml'
    file.write_text(MOUNTED)
    return file


class Published:
    """What a node publishes, by type."""

    def __init__(self, node, monkeypatch) -> None:
        self.messages = []
        monkeypatch.setattr(node, 'publish', lambda publisher, message: self.messages.append(message))

    def of(self, kind: str) -> list:
        return [message for message in self.messages if type(message).__name__ == kind]


class OneFrame:
    """A camera of one image."""

    intrinsics = {}  # noqa: RUF012

    def __init__(self, eyes) -> None:
        self._eyes = eyes

    def frames(self):
        yield Frame(time.time_ns(), {eye: np.zeros((4, 6, 3), np.uint8) for eye in self._eyes})

    def close(self) -> None:
        pass


def arm_messages(ros, monkeypatch, **parameters) -> Published:
    """What ur5e_driver publishes of one state of the robot."""
    node = ros(ur5e_driver.Ur5eDriver, **parameters)
    published = Published(node, monkeypatch)
    state = np.zeros(1, STATE)
    state['tcp_pose'] = [0.1, 0.2, 0.3, 0.0, 0.0, 2 * np.arctan2(0.6, 0.8)]
    node._on_state(state[0])
    return published


def test_the_arm_publishes_its_tool_in_its_base(ros, monkeypatch):
    pytest.importorskip('tf2_msgs', reason='run make setup')
    published = arm_messages(ros, monkeypatch)
    (transform,) = published.of('TFMessage')[0].transforms
    pose = published.of('PoseStamped')[0]
    assert (transform.header.frame_id, transform.child_frame_id) == ('base', 'tool0_controller')
    assert transform.header.stamp == pose.header.stamp
    translation = transform.transform.translation
    rotation = transform.transform.rotation
    np.testing.assert_allclose([translation.x, translation.y, translation.z], POSE[:3], atol=1e-12)
    np.testing.assert_allclose([rotation.x, rotation.y, rotation.z, rotation.w], POSE[3:], atol=1e-12)


def test_a_prefix_is_in_every_frame_of_the_arm(ros, monkeypatch):
    published = arm_messages(ros, monkeypatch, tf_prefix='left_')
    headers = [message.header for message in published.messages if hasattr(message, 'header')]
    assert len(headers) == 4
    assert {header.frame_id for header in headers} == {'left_base'}
    for message in published.of('TFMessage'):
        assert message.transforms[0].header.frame_id == 'left_base'
        assert message.transforms[0].child_frame_id == 'left_tool0_controller'


def test_image_and_camera_info_are_in_one_frame_with_the_prefix(ros, monkeypatch):
    node = ros(camera_driver.CameraDriver, tf_prefix='left_')
    published = Published(node, monkeypatch)
    node._publish_frames(OneFrame(['left']), node._closing)
    frames = [message.header.frame_id for message in published.messages]
    assert frames == ['left_zed_left_optical_frame'] * 2
    assert {type(message) for message in published.messages} == {Image, CameraInfo}


def test_a_calibrated_camera_publishes_its_mount_once(ros, monkeypatch, mounted):
    pytest.importorskip('tf2_msgs', reason='run make setup')
    node = ros(camera_driver.CameraDriver, embodiment=mounted, tf_prefix='left_')
    published = Published(node, monkeypatch)
    monkeypatch.setattr(node, 'active', True)
    for _ in range(2):
        node._publish_frames(OneFrame(['left']), node._closing)
    (message,) = published.of('TFMessage')
    (transform,) = message.transforms
    assert transform.header.frame_id == 'left_tool0_controller'
    assert transform.child_frame_id == published.of('Image')[0].header.frame_id
    assert transform.transform == make_transform(transform.header.stamp, '', '', POSE).transform


def test_an_inactive_camera_keeps_its_mount_for_later(ros, monkeypatch, mounted):
    node = ros(camera_driver.CameraDriver, embodiment=mounted)
    node._publish_frames(OneFrame(['left']), node._closing)
    assert not node._has_mounts


def test_two_eyes_that_are_mounted_come_in_one_message(ros, monkeypatch, tmp_path):
    pytest.importorskip('tf2_msgs', reason='run make setup')
    mount = '{position: [0, 0, 1], orientation: [0, 0, 0, 1]}'
    size = 'width: 64, height: 48'
    cameras = [
        f'{{name: {eye}, topic: zed/{eye}/image, {size}, mount: {mount}}}' for eye in ('left', 'right')
    ]
    file = tmp_path / 'two.yaml'
    file.write_text(f'base: ur5e_robotiq_zed\ncameras: [{", ".join(cameras)}]\n')
    node = ros(camera_driver.CameraDriver, embodiment=file, eye='both')
    published = Published(node, monkeypatch)
    monkeypatch.setattr(node, 'active', True)
    node._publish_frames(OneFrame(['left', 'right']), node._closing)
    (message,) = published.of('TFMessage')
    children = [transform.child_frame_id for transform in message.transforms]
    assert children == ['zed_left_optical_frame', 'zed_right_optical_frame']


@pytest.mark.parametrize(
    ('mount', 'problem'),
    [
        ('{position: [0, 0, 0], orientation: [0, 0, 0, 2]}', 'unit quaternion'),
        ('{position: [0, 0, 0], orientation: [0, 0, 1]}', 'orientation'),
        ('{position: [0, 0, .inf], orientation: [0, 0, 0, 1]}', 'position'),
        ('{frame: world, position: [0, 0, 0], orientation: [0, 0, 0, 1]}', 'frame'),
    ],
)
def test_a_mount_that_is_none_is_refused(tmp_path, mount, problem):
    file = tmp_path / 'wrong.yaml'
    file.write_text(f'base: ur5e_robotiq_zed\ncameras: [{{name: zed_camera, mount: {mount}}}]\n')
    with pytest.raises(GrootRosError, match=problem):
        load_embodiment(str(file))


@pytest.mark.parametrize(
    ('options', 'prefix'),
    [
        ({}, ''),
        ({'namespace': 'left'}, 'left_'),
        ({'namespace': '/a/b/'}, 'a_b_'),
        ({'namespace': 'left', 'tf_prefix': 'l/'}, 'l/'),
    ],
)
def test_cells_in_two_namespaces_have_frames_of_their_own(options, prefix):
    processes = build_processes('collect', Options(sim=True, shadow=True, policy='hold', **options))
    prefixes = {p.executable: p.parameters['tf_prefix'] for p in processes if 'tf_prefix' in p.parameters}
    assert prefixes == dict.fromkeys(('ur5e_driver', 'camera_driver', 'teleop', 'policy_server'), prefix)


@given(st.from_regex(r'(/[a-z]{1,5}){0,2}/', fullmatch=True), st.from_regex(r'/?[a-z]{1,5}', fullmatch=True))
def test_a_topic_that_is_absolute_stays_as_it_is(namespace, topic):
    absolute = absolute_topic(namespace, topic)
    assert absolute.startswith('/')
    assert absolute.endswith(topic)
    assert absolute_topic(namespace, absolute) == absolute


def test_a_bag_has_absolute_topics_under_their_names(tmp_path, synthetic, embodiment):
    episode = synthetic(seconds=0.5)
    entries = episode.entries()
    text = typestore().types[STRING_TYPE]('anything')
    entries.insert(5, [entries[5][0], '/tf', text])
    episode.record(tmp_path / 'bag', entries=entries, more_types={'/tf': STRING_TYPE}, namespace='/left/')
    with EpisodeBag(tmp_path / 'bag') as bag:
        assert {'/tf', '/left/tcp_pose'} <= set(bag.types)
        streams = load_trace(bag, embodiment).streams
    assert len(streams['/tf'].stamps_ns) == 1
    assert 'tf' not in streams


def test_a_recorder_gets_latched_messages_again_for_each_episode(operator, embodiment):
    latched = embodiment.model_copy(update={'extra_topics': ('/latched',)})
    operator.node.create_publisher(String, '/latched', STATUS_QOS).publish(String(data='mount'))
    received = []
    watch = StreamWatch(operator.node, latched, lambda topic, *_: received.append(topic), lambda *_: None)

    def subscribed() -> bool:
        watch.follow_publishers()
        return bool(received)

    assert operator.until(subscribed)
    for count in (2, 3):
        watch.ask_latched_again()
        assert operator.until(lambda count=count: len(received) == count)
    watch.close()
