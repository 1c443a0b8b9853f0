# SPDX-License-Identifier: Apache-2.0
"""What a recording holds besides H.264: JPEG, raw, depth, pauses; and what ends an episode early."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rosbags.rosbag2 import StoragePlugin, Writer

from groot_ros.bags.message_types import ROW_TOPIC, serialized, time_message, typestore
from groot_ros.bags.reader import EpisodeBag
from groot_ros.bags.topic_types import check_types
from groot_ros.config_files import checked
from groot_ros.dataset.convert import convert
from groot_ros.dataset.options import ConversionOptions
from groot_ros.dataset.sources.bag_recorded import read_segments
from groot_ros.dataset.validation.validate import validate
from groot_ros.dataset.writers.lerobot_v2 import video_file
from groot_ros.embodiment import Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.message_fields import cdr_stamp_ns, stamp_to_ns
from groot_ros.recording.episode_recorder import RecordingSettings
from groot_ros.video.frame import VideoFrame, decode_frame, depth_png
from groot_ros.video.mp4 import count_frames, read_frames

TYPES = typestore().types
T0_NS = 1_700_000_000_000_000_000
IMAGE = 'sensor_msgs/msg/Image'


def image(stamp_ns, pixels, encoding, padding=0):
    header = TYPES['std_msgs/msg/Header'](time_message(stamp_ns), 'camera')
    rows = pixels.reshape(pixels.shape[0], -1).view(np.uint8)
    rows = np.hstack([rows, np.zeros((len(rows), padding), np.uint8)])
    return TYPES[IMAGE](
        header,
        pixels.shape[0],
        pixels.shape[1],
        encoding,
        0,
        rows.shape[1],
        np.ascontiguousarray(rows).ravel(),
    )


@pytest.mark.parametrize('video', ['jpeg', 'raw'])
def test_other_formats_keep_every_frame_and_convert_to_the_same_rows(tmp_path, synthetic, embodiment, video):
    synthetic(seconds=1.5).record(tmp_path / 'h264' / 'bag')
    synthetic(seconds=1.5).record(tmp_path / video / 'bag', settings=RecordingSettings(video=video))
    for name in ('h264', video):
        report = convert([tmp_path / name], tmp_path / f'{name}_set', embodiment)
        assert (report.episodes, report.rows) == (1, 29)
    names = ['data/chunk-000/episode_000000.parquet', 'meta/stats.json']
    assert (tmp_path / 'h264_set' / names[0]).read_bytes() == (
        tmp_path / f'{video}_set' / names[0]
    ).read_bytes()
    shown = [
        list(
            read_frames(video_file(tmp_path / f'{name}_set', 'observation.images.zed_camera', 0), [0, 14, 28])
        )
        for name in ('h264', video)
    ]
    for one, other in zip(*shown, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 4


def test_a_pause_makes_two_episodes_whose_videos_begin_with_a_keyframe(tmp_path, synthetic, embodiment):
    source = synthetic(seconds=4.0)
    entries = source.entries()
    begin, end = (next(k for k, e in enumerate(entries) if e[0] > t * 1e9) for t in (1.5, 2.5))
    pause, resume = (
        [entries[k][0], '', lambda recording, on=on, k=k: recording.pause(on, T0_NS + entries[k][0])]
        for k, on in ((begin, True), (end, False))
    )
    source.record(
        tmp_path / 'bag', entries=[*entries[:begin], pause, *entries[begin:end], resume, *entries[end:]]
    )
    with EpisodeBag(tmp_path / 'bag') as bag:
        segments = list(read_segments(bag, embodiment))
        rows = [
            message.decode() for message in bag.messages({ROW_TOPIC: bag.connections(embodiment)[ROW_TOPIC]})
        ]
    assert [len(segment) for segment in segments] == [sum(row.segment == k for row in rows) for k in (0, 1)]
    np.testing.assert_array_equal(
        [row.state for row in rows], [sample.state for segment in segments for sample in segment]
    )
    report = convert([tmp_path / 'bag'], tmp_path / 'set', embodiment)
    assert (report.episodes, report.rows) == (2, len(rows) - 2)
    first = segments[1][0].tick_ns
    second = video_file(tmp_path / 'set', 'observation.images.zed_camera', 1)
    assert count_frames(second) == len(segments[1]) - 1
    shown = next(read_frames(second, [0]))
    assert abs(shown.mean() - int((first - T0_NS) / 1e6) % 200) < 3
    entries = [json.loads(line) for line in (tmp_path / 'set/meta/episodes.jsonl').read_text().splitlines()]
    assert [entry['length'] for entry in entries] == [len(segment) - 1 for segment in segments]


def resized(entries):
    for entry in entries:
        if entry[1] == 'zed/image' and entry[0] > 1e9:
            entry[2] = image(T0_NS + entry[0], np.zeros((240, 320, 3), np.uint8), 'rgb8')
    return entries


def set_back(entries):
    for entry in entries:
        if entry[0] > 1e9:
            stamp = entry[2].header.stamp
            entry[2].header.stamp = time_message(stamp_to_ns(stamp) - 60 * 10**9)
    return entries


def gone(entries):
    return [entry for entry in entries if entry[1] != 'zed/image' or not 1e9 < entry[0] < 7e9]


def turned_by_nothing(entries):
    for entry in entries:
        if entry[1] == 'tcp_pose' and entry[0] > 1e9:
            entry[2].pose.orientation = TYPES['geometry_msgs/msg/Quaternion'](0.0, 0.0, 0.0, 0.0)
    return entries


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (turned_by_nothing, 'zero norm'),
        (resized, '320x240 came where'),
        (set_back, 'clock was set'),
        (gone, 'no frame for 6'),
    ],
)
def test_what_cannot_go_on_ends_the_episode_and_keeps_what_is_good(
    tmp_path, synthetic, embodiment, change, reason
):
    source = synthetic(seconds=8.0)
    with pytest.raises(GrootRosError, match=reason):
        source.record(tmp_path / 'bag', entries=change(source.entries()))
    with EpisodeBag(tmp_path / 'bag') as bag:
        assert reason in bag.info['failure']
        assert 15 <= sum(len(segment) for segment in list(read_segments(bag, embodiment))) <= 20


def test_depth_is_kept_to_the_millimetre(tmp_path, synthetic, embodiment):
    depth_m = np.linspace(0.3, 9.0, 24 * 32, dtype=np.float32).reshape(24, 32)
    depth_m[0, :3] = np.nan, np.inf, 70.0
    message = image(5, depth_m, '32FC1')
    source = synthetic(seconds=1.0)
    entries = [*source.entries(), [2 * 10**9, 'zed/depth', message]]
    source.record(tmp_path / 'bag', entries=entries, more_types={'zed/depth': IMAGE})
    import cv2

    with EpisodeBag(tmp_path / 'bag') as bag:
        (kept,) = [m.decode() for m in bag.all_messages() if m.topic == '/zed/depth/compressed']
    shown = cv2.imdecode(kept.data, cv2.IMREAD_UNCHANGED)
    assert kept.format.startswith('32FC1; png')
    assert shown.dtype == np.uint16
    assert shown[0, :3].tolist() == [0, 0, 65535]
    np.testing.assert_allclose(shown[1:] / 1e3, depth_m[1:], atol=1e-3)
    np.testing.assert_array_equal(
        depth_png(image(5, shown, '16UC1')), depth_png(image(5, shown, '16UC1', padding=6))
    )


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from(['rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8']),
    st.integers(0, 5),
)
def test_pixels_are_read_whatever_padding_follows_a_line(height, width, encoding, padding):
    channels = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1}[encoding]
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, channels), dtype=np.uint8)
    frame = decode_frame(image(7, pixels, encoding, padding))
    np.testing.assert_array_equal(frame.pixels, pixels)
    assert frame.stamp_ns == 7
    order = {
        'rgb8': [2, 1, 0],
        'bgr8': [0, 1, 2],
        'rgba8': [2, 1, 0],
        'bgra8': [0, 1, 2],
        'mono8': [0, 0, 0],
    }[encoding]
    np.testing.assert_array_equal(frame.bgr(), pixels[:, :, order])


def test_a_jpeg_shows_what_it_was_made_of():
    ramp = np.repeat(np.linspace(0, 250, 64, dtype=np.uint8)[None, :, None], 48, axis=0).repeat(3, axis=2)
    header = TYPES['std_msgs/msg/Header'](time_message(9), '')
    message = TYPES['sensor_msgs/msg/CompressedImage'](
        header, 'jpeg', VideoFrame(9, ramp, 'rgb24').jpeg(95).ravel()
    )
    assert np.abs(decode_frame(message).pixels.astype(int) - ramp).mean() < 2
    message.data = np.zeros(10, np.uint8)
    with pytest.raises(GrootRosError, match='cannot be decoded'):
        decode_frame(message)


def test_an_image_with_too_few_bytes_is_named():
    message = image(0, np.zeros((4, 4, 3), np.uint8), 'rgb8')
    message.data = message.data[:20]
    with pytest.raises(GrootRosError, match='20 bytes'):
        decode_frame(message)


def test_the_stamp_is_read_without_decoding():
    message = image(1_234_567_890_123, np.zeros((2, 2, 3), np.uint8), 'rgb8')
    assert cdr_stamp_ns(serialized(message, IMAGE)) == 1_234_567_890_123


def test_types_that_cannot_be_recorded_are_named(embodiment):
    good = {
        'joint_states': 'sensor_msgs/msg/JointState',
        'zed/image': 'sensor_msgs/msg/CompressedImage',
        'tcp_pose': 'geometry_msgs/msg/PoseStamped',
    }
    assert check_types(embodiment, {**good, 'gripper/state': 'groot_ros/msg/GripperState'}) == []
    assert 'a camera must be' in check_types(embodiment, {**good, 'zed/image': 'std_msgs/msg/String'})[0]
    assert 'which has no pose' in check_types(embodiment, {**good, 'tcp_pose': 'geometry_msgs/msg/Pose'})[0]
    assert 'does not know' in check_types(embodiment, {**good, 'other': 'foo_msgs/msg/Bar'})[0]


def test_a_bag_of_another_recorder_converts_to_the_rows_that_ours_gives(tmp_path, synthetic, embodiment):
    source = synthetic(seconds=1.5)
    source.record(tmp_path / 'ours' / 'bag', task='put it there')
    types = {'joint_states': 'sensor_msgs/msg/JointState', 'gripper/state': 'groot_ros/msg/GripperState'}
    types |= {'tcp_pose': 'geometry_msgs/msg/PoseStamped', 'zed/image': IMAGE}
    with Writer(tmp_path / 'theirs', version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connections = {
            topic: writer.add_connection(f'/cell/{topic}', kind, typestore=typestore())
            for topic, kind in types.items()
        }
        for arrival_ns, topic, message in source.entries():
            writer.write(connections[topic], T0_NS + arrival_ns, serialized(message, types[topic]))
    convert([tmp_path / 'ours'], tmp_path / 'our_set', embodiment)
    report = convert(
        [tmp_path / 'theirs'], tmp_path / 'their_set', embodiment, ConversionOptions(task='put it there')
    )
    assert (report.episodes, report.rows) == (1, 29)
    data = 'data/chunk-000/episode_000000.parquet'
    assert (tmp_path / 'our_set' / data).read_bytes() == (tmp_path / 'their_set' / data).read_bytes()
    assert validate(tmp_path / 'their_set').errors == 0


def write_bag_with_two_joint_states(path, source, names):
    """A bag in which the first of `names` has the joints of the arm, and the other that of a gripper."""
    types = {
        'joint_states': 'sensor_msgs/msg/JointState',
        'gripper/state': 'groot_ros/msg/GripperState',
        'tcp_pose': 'geometry_msgs/msg/PoseStamped',
        'zed/image': IMAGE,
    }
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for topic, kind in types.items():
            name = names[0] if topic == 'joint_states' else f'/cell/{topic}'
            connections[topic] = writer.add_connection(name, kind, typestore=typestore())
        other = writer.add_connection(names[1], types['joint_states'], typestore=typestore())
        header = TYPES['std_msgs/msg/Header'](time_message(T0_NS), '')
        joint = TYPES[types['joint_states']](header, ['finger_joint'], np.ones(1), np.ones(1), np.ones(1))
        writer.write(other, T0_NS, serialized(joint, types['joint_states']))
        for arrival_ns, topic, message in source.entries():
            writer.write(connections[topic], T0_NS + arrival_ns, serialized(message, types[topic]))
    return path


def test_a_topic_is_matched_by_its_whole_name_before_its_end(tmp_path, synthetic, embodiment):
    names = ('/joint_states', '/gripper/joint_states')
    bag = write_bag_with_two_joint_states(tmp_path / 'bag', synthetic(), names)
    assert convert([bag], tmp_path / 'set', embodiment, ConversionOptions(task='lift')).rows == 29


def test_a_topic_in_two_namespaces_must_be_named_wholly(tmp_path, synthetic, embodiment):
    names = ('/arm/joint_states', '/gripper/joint_states')
    bag = write_bag_with_two_joint_states(tmp_path / 'bag', synthetic(), names)
    with pytest.raises(GrootRosError, match=r'has several joint_states \(/arm/joint_states, /gripper/'):
        convert([bag], tmp_path / 'set', embodiment, ConversionOptions(task='lift'))
    values = embodiment.values()
    for field in values['state']:
        if field['topic'] == 'joint_states':
            field['topic'] = '/arm/joint_states'
    named = checked(Embodiment, values, 'The embodiment')
    assert convert([bag], tmp_path / 'set', named, ConversionOptions(task='lift')).rows == 29


@pytest.mark.parametrize('video', ['h264', 'jpeg'])
def test_another_rate_is_sampled_on_the_grid_from_the_native_topics(
    tmp_path, synthetic, embodiment, known, video
):
    synthetic(seconds=4.0).record(tmp_path / 'bag', settings=RecordingSettings(video=video))
    report = convert([tmp_path / 'bag'], tmp_path / 'set', embodiment.at_fps(10.0))
    assert 36 <= report.rows <= 40
    assert validate(tmp_path / 'set').errors == 0
    table = pq.read_table(tmp_path / 'set/data/chunk-000/episode_000000.parquet')
    actions = np.array(table['action'].to_pylist())
    np.testing.assert_allclose(
        actions[:, :3], np.tile([0.05 / 10, 0.02 / 10, 0], (len(actions), 1)), atol=1e-4
    )
    states = np.array(table['observation.state'].to_pylist())
    first_s = (states[0, 13] + 0.1) / 0.05
    assert first_s * 10 == pytest.approx(round(first_s * 10), abs=1e-3)
    np.testing.assert_allclose(
        states[:, :6], [known.motion.joints(first_s + k / 10) for k in range(len(states))], atol=1e-4
    )


def test_an_image_of_another_size_is_letterboxed():
    frame = VideoFrame(3, np.full((10, 20, 3), 200, np.uint8), 'bgr24').letterboxed(40, 40)
    assert frame.size == (40, 40)
    assert frame.pixels[20, 20].tolist() == [200, 200, 200]
    assert frame.pixels[2, 20].tolist() == [0, 0, 0]
    assert frame.letterboxed(40, 40) is frame
