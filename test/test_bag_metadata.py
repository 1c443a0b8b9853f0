# SPDX-License-Identifier: Apache-2.0
"""What a bag says besides its messages, as a rosbag2 of the running distribution would write it."""

from importlib import metadata

import pytest
import yaml
from groot_ros.msg import GripperState
from mcap.reader import make_reader
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import Reader

from groot_ros.bags.mcap_file import whole_records
from groot_ros.bags.recover import recover_bag
from groot_ros.bags.rosbag2_metadata import DEFAULT_QOS, parse_profiles, ros_distribution
from groot_ros.recording.episode_recorder import RecordingSettings
from groot_ros.ros.qos import STATUS_QOS, bag_qos
from groot_ros.ros.topic_subscriber import StreamWatch

LATCHED = DEFAULT_QOS._replace(durability=QosDurability.TRANSIENT_LOCAL)
BEST_EFFORT = DEFAULT_QOS._replace(reliability=QosReliability.BEST_EFFORT)
OFFERED = {'gripper/state': [LATCHED, DEFAULT_QOS], 'zed/image': [BEST_EFFORT]}
INFINITE = {'sec': 9223372036, 'nsec': 854775807}
# From a metadata.yaml of `ros2 bag record` on Jazzy.
AS_ROSBAG2_WRITES = {
    'history': 'keep_last',
    'depth': 10,
    'reliability': 'reliable',
    'durability': 'transient_local',
    'deadline': INFINITE,
    'lifespan': INFINITE,
    'liveliness': 'automatic',
    'liveliness_lease_duration': INFINITE,
    'avoid_ros_namespace_conventions': False,
}


@pytest.fixture
def bag(tmp_path, synthetic, monkeypatch):
    monkeypatch.setenv('ROS_DISTRO', 'rolling')
    synthetic(seconds=0.5).record(tmp_path / 'bag', task='ros_distro: rosbags', offered=OFFERED)
    return tmp_path / 'bag'


def information(bag):
    return yaml.safe_load((bag / 'metadata.yaml').read_text())['rosbag2_bagfile_information']


def profiles(bag):
    topics = [entry['topic_metadata'] for entry in information(bag)['topics_with_message_count']]
    return {topic['name']: topic['offered_qos_profiles'] for topic in topics}


def test_the_distribution_is_the_running_one(bag):
    assert information(bag)['ros_distro'] == 'rolling'
    assert information(bag)['custom_data']['task'] == 'ros_distro: rosbags'


def test_the_file_alone_has_the_same_metadata(bag):
    """`ros2 bag reindex`, and tools that open the .mcap without the folder, read its metadata record."""
    with (bag / 'bag.mcap').open('rb') as stream:
        records = list(make_reader(stream).iter_metadata())
    inside = yaml.safe_load(records[0].metadata['serialized_metadata'])
    assert inside['ros_distro'] == 'rolling'
    assert inside['topics_with_message_count'] == information(bag)['topics_with_message_count']


def test_topics_keep_the_quality_of_service_of_every_publisher(bag):
    written = profiles(bag)
    assert written['/gripper/state'][0] == AS_ROSBAG2_WRITES
    assert [profile['durability'] for profile in written['/gripper/state']] == ['transient_local', 'volatile']
    for ours in ('/row', '/video/zed_camera', '/episode_info'):
        assert [profile['reliability'] for profile in written[ours]] == ['reliable']


def test_an_image_that_is_written_unchanged_keeps_its_quality_of_service(tmp_path, synthetic):
    synthetic(seconds=0.3).record(tmp_path / 'raw', offered=OFFERED, settings=RecordingSettings('raw'))
    assert profiles(tmp_path / 'raw')['/zed/image'][0]['reliability'] == 'best_effort'


def test_channels_say_it_too(bag):
    with (bag / 'bag.mcap').open('rb') as stream:
        channels = {
            channel.topic: channel.metadata for channel in make_reader(stream).get_summary().channels.values()
        }
    assert parse_profiles(channels['/gripper/state']['offered_qos_profiles']) == OFFERED['gripper/state']
    hashes = {c.topic: c.digest for c in connections(bag)}
    assert {topic: entries['topic_type_hash'] for topic, entries in channels.items()} == hashes


def connections(bag):
    with Reader(bag) as reader:
        return list(reader.connections)


def test_a_recovered_bag_keeps_them(bag):
    (bag / 'metadata.yaml').unlink()
    file = bag / 'bag.mcap'
    with file.open('rb') as stream:
        ends = [record.end for record in whole_records(stream, file.stat().st_size)]
    with file.open('r+b') as stream:
        stream.truncate(ends[-1] - 4)
    recover_bag(bag)
    assert profiles(bag)['/gripper/state'][0] == AS_ROSBAG2_WRITES
    assert information(bag)['ros_distro'] == 'rolling'


@pytest.mark.parametrize('text', ['', '- {depth: 1}', 'a: [', '7'])
def test_profiles_that_are_missing_or_damaged_are_the_default(text):
    assert parse_profiles(text) == (DEFAULT_QOS,)


@pytest.mark.parametrize(('version', 'name'), [('7.1.5', 'jazzy'), ('9.1.2', 'kilted'), ('99.0', '')])
def test_ros_from_wheels_has_no_variable_but_an_rclpy(monkeypatch, version, name):
    monkeypatch.delenv('ROS_DISTRO', raising=False)
    monkeypatch.setattr(metadata, 'version', lambda _: version)
    assert ros_distribution() == name


def test_without_ros_there_is_no_distribution(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.delenv('ROS_DISTRO', raising=False)
    monkeypatch.setattr(metadata, 'version', missing)
    assert ros_distribution() == ''


def test_profiles_of_ros_are_translated_by_name():
    profile = QoSProfile(
        history=HistoryPolicy.KEEP_ALL,
        reliability=ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )
    written = bag_qos(profile)
    assert written.history.name == 'KEEP_ALL'
    assert written.reliability == QosReliability.BEST_EFFORT
    assert written.durability == QosDurability.TRANSIENT_LOCAL


def test_the_recorder_sees_what_publishers_offer(operator, embodiment):
    node = operator.node
    node.create_publisher(GripperState, 'gripper/state', STATUS_QOS)
    node.create_publisher(
        GripperState, 'gripper/state', QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    )
    watch = StreamWatch(node, embodiment, lambda *_: None, lambda *_: None)

    def both() -> bool:
        watch.follow_publishers()
        return len(watch.offered.get('gripper/state', [])) == 2

    assert operator.until(both)
    offered = {
        (profile.reliability.name, profile.durability.name) for profile in watch.offered['gripper/state']
    }
    assert offered == {('RELIABLE', 'TRANSIENT_LOCAL'), ('BEST_EFFORT', 'VOLATILE')}
    assert all(profile.deadline == DEFAULT_QOS.deadline for profile in watch.offered['gripper/state'])
    watch.close()
