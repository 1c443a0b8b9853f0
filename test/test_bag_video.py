# SPDX-License-Identifier: Apache-2.0
"""Video in a recorded bag, as Foxglove and Rerun ask for it, and its name for viewers and for ROS."""

import shutil
from pathlib import Path

import pytest
import yaml
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader

from groot_ros.bags.message_types import VIDEO_SCHEMA, VIDEO_TYPE
from groot_ros.bags.reader import EpisodeBag, read_access_unit
from groot_ros.bags.recover import recover_bag

TOPIC = '/video/zed_camera'
SLICE = 1
IDR_SLICE = 5
SPS = 7
PPS = 8
FRAME_ID = 'zed_left_optical_frame'


@pytest.fixture
def bag(tmp_path, synthetic):
    """A second and a half with a pause in the middle."""
    episode = synthetic(seconds=1.5)
    entries = episode.entries()
    for _, _, message in entries:
        if hasattr(message, 'encoding'):
            message.header.frame_id = FRAME_ID
    half = len(entries) // 2
    pause_ns = entries[half][0]
    entries.insert(half, [pause_ns, '', lambda recording: recording.pause(True, pause_ns)])
    entries.insert(half + 20, [pause_ns, '', lambda recording: recording.pause(False, pause_ns)])
    episode.record(tmp_path / 'episode', entries=entries)
    return tmp_path / 'episode'


@pytest.fixture
def access_units(bag):
    with EpisodeBag(bag) as opened:
        return [read_access_unit(message) for message in opened.messages_of_topic(TOPIC)]


def nal_units(access_unit: bytes) -> list[bytes]:
    """The NAL units of an access unit in Annex B form: each after a start code of three or four bytes."""
    assert access_unit.startswith((b'\0\0\1', b'\0\0\0\1'))
    return [unit.rstrip(b'\0') for unit in access_unit.split(b'\0\0\1')[1:]]


def nal_types(access_unit: bytes) -> list[int]:
    return [unit[0] & 0x1F for unit in nal_units(access_unit)]


def read_exp_golomb(bits: str) -> tuple[int, str]:
    """The number at the beginning of `bits`, and the bits after it (H.264, 9.1)."""
    zeros = bits.index('1')
    end = 2 * zeros + 1
    return int(bits[zeros:end], 2) - 1, bits[end:]


def slice_kind(unit: bytes) -> str:
    """Whether a slice is I, P or B: the second number of its header (H.264, 7.3.3 and table 7-6)."""
    bits = ''.join(f'{byte:08b}' for byte in unit[1:12])
    _, rest = read_exp_golomb(bits)
    kind, _ = read_exp_golomb(rest)
    return 'PBI'[kind % 5]


def slices_of(access_unit: bytes) -> list[bytes]:
    return [unit for unit in nal_units(access_unit) if unit[0] & 0x1F in (SLICE, IDR_SLICE)]


def is_key(access_unit: bytes) -> bool:
    return IDR_SLICE in nal_types(access_unit)


def test_each_message_is_one_image_and_no_image_refers_to_a_later_one(access_units):
    assert len(access_units) > 20
    for unit in access_units:
        first_of_picture = [part for part in slices_of(unit) if part[1] & 0x80]  # first_mb_in_slice is 0
        assert len(first_of_picture) == 1
        assert {slice_kind(part) for part in slices_of(unit)} <= {'I', 'P'}


def test_each_keyframe_comes_with_its_parameters(access_units):
    keys = [nal_types(unit) for unit in access_units if is_key(unit)]
    assert len(keys) > 2
    for types in keys:
        assert types.index(SPS) < types.index(PPS) < types.index(IDR_SLICE)
        assert SLICE not in types


def test_each_segment_begins_with_a_keyframe(bag, access_units):
    with EpisodeBag(bag) as opened:
        rows = [message.decode() for message in opened.messages_of_topic('/row')]
    assert {row.segment for row in rows} == {0, 1}
    starts = [index for index, row in enumerate(rows) if index == 0 or row.segment != rows[index - 1].segment]
    assert all(is_key(access_units[index]) for index in starts)


def test_the_file_has_the_schema_that_foxglove_and_rerun_decode(bag):
    with (bag / 'episode.mcap').open('rb') as stream:
        summary = make_reader(stream).get_summary()
    channel = next(channel for channel in summary.channels.values() if channel.topic == TOPIC)
    schema = summary.schemas[channel.schema_id]
    assert schema.name == VIDEO_SCHEMA == 'foxglove.CompressedVideo'
    assert schema.encoding == 'ros2msg'
    assert channel.message_encoding == 'cdr'
    fields = schema.data.decode().splitlines()[:4]
    assert fields == ['builtin_interfaces/Time timestamp', 'string frame_id', 'uint8[] data', 'string format']


def test_ros_is_told_the_ros_type(bag):
    information = yaml.safe_load((bag / 'metadata.yaml').read_text())['rosbag2_bagfile_information']
    topics = [entry['topic_metadata'] for entry in information['topics_with_message_count']]
    assert {topic['name']: topic['type'] for topic in topics}[TOPIC] == VIDEO_TYPE
    with EpisodeBag(bag) as opened:
        assert opened.types[TOPIC] == VIDEO_TYPE


def test_other_readers_open_the_bag(bag):
    with AnyReader([bag]) as reader:
        rows = [connection for connection in reader.connections if connection.topic == '/tcp_pose']
        assert len(list(reader.messages(rows))) == rows[0].msgcount


def test_video_has_the_frame_of_its_images(bag):
    with EpisodeBag(bag) as opened:
        frames = {message.decode().frame_id for message in opened.messages_of_topic(TOPIC)}
    assert frames == {FRAME_ID}


def test_a_recovered_bag_keeps_its_video(bag, access_units, tmp_path):
    torn = Path(shutil.copytree(bag, tmp_path / 'torn'))
    (torn / 'metadata.yaml').unlink()
    recover_bag(torn)
    with EpisodeBag(torn) as opened:
        units = [read_access_unit(message) for message in opened.messages_of_topic(TOPIC)]
    assert units == access_units
