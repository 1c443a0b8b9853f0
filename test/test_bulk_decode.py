# SPDX-License-Identifier: Apache-2.0
"""Numbers of many messages at once are those of each message decoded, to the bit."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from groot_ros.bags import bulk_decode
from groot_ros.bags.bulk_decode import decode_columns
from groot_ros.bags.message_types import serialized, time_message, typestore
from groot_ros.embodiment import TopicField
from groot_ros.message_fields import header_stamp_ns
from groot_ros.sampling.rows import extract_field
from groot_ros.sampling.stream import Stream

TYPES = typestore().types
JOINTS, POSE, GRIPPER = (
    'sensor_msgs/msg/JointState',
    'geometry_msgs/msg/PoseStamped',
    'groot_ros/msg/GripperState',
)
numbers = st.one_of(st.floats(-1e100, 1e100), st.sampled_from([float('nan'), float('inf')]))


def header(stamp_ns, frame='base'):
    return TYPES['std_msgs/msg/Header'](time_message(stamp_ns), frame)


def joint_state(stamp_ns, names, values):
    return TYPES[JOINTS](
        header(stamp_ns), names, np.array(values, float), np.array(values, float) * 2, np.zeros(0)
    )


def gripper(stamp_ns, position, text=''):
    return TYPES[GRIPPER](header(stamp_ns), position, -position, position > 0.5, True, float('nan'), 3, text)


def expected(messages, source):
    return [header_stamp_ns(m) for m in messages], np.array(
        [extract_field(m, source) for m in messages]
    ).reshape(len(messages), -1)


def check(messages, kind, source):
    stamps_ns, values = decode_columns([serialized(m, kind) for m in messages], kind, source)
    stamps, known = expected(messages, source)
    assert stamps_ns.tolist() == stamps
    np.testing.assert_array_equal(values.view(np.int64), np.ascontiguousarray(known).view(np.int64))


@given(
    st.lists(
        st.tuples(st.integers(0, 2**60), st.permutations('abc'), st.lists(numbers, min_size=3, max_size=3)),
        min_size=1,
        max_size=8,
    )
)
def test_joints_by_name_whatever_their_order(entries):
    messages = [joint_state(stamp_ns, names, values) for stamp_ns, names, values in entries]
    for field in ('position', 'velocity'):
        check(
            messages, JOINTS, TopicField(topic='j', field=field, joints=('c', 'a'), scale=-1.25, offset=1.0)
        )


@given(
    st.lists(
        st.tuples(st.integers(0, 2**60), st.floats(0, 1), st.text('xyz', max_size=9)), min_size=1, max_size=8
    )
)
def test_one_number_next_to_flags_and_texts(entries):
    check([gripper(*entry) for entry in entries], GRIPPER, TopicField(topic='g', field='target'))


@given(st.lists(st.lists(st.floats(-9, 9), min_size=7, max_size=7), min_size=1, max_size=8))
def test_poses(entries):
    messages = []
    for k, (x, y, z, *turn) in enumerate(entries):
        pose = TYPES['geometry_msgs/msg/Pose'](
            TYPES['geometry_msgs/msg/Point'](x, y, z), TYPES['geometry_msgs/msg/Quaternion'](*turn)
        )
        messages.append(TYPES[POSE](header(k), pose))
    check(messages, POSE, TopicField(topic='p', field='pose'))


def test_messages_of_one_layout_are_not_decoded(monkeypatch):
    cdrs = [serialized(joint_state(k, ['a', 'b'], [k, k + 0.5]), JOINTS) for k in range(500)]
    decoded = []
    monkeypatch.setattr(
        bulk_decode,
        'extract_field',
        lambda message, source: decoded.append(message) or extract_field(message, source),
    )
    decode_columns(cdrs, JOINTS, TopicField(topic='j', field='position', joints=('b',)))
    assert len(decoded) == 1


def test_messages_of_other_joints_are_left_out():
    messages = [joint_state(k, ['a', 'b'] if k % 2 else ['x', 'y'], [k, -k]) for k in range(10)]
    stamps_ns, values = decode_columns(
        [serialized(m, JOINTS) for m in messages],
        JOINTS,
        TopicField(topic='j', field='position', joints=('b',)),
    )
    assert stamps_ns.tolist() == [1, 3, 5, 7, 9]
    assert values[:, 0].tolist() == [-1, -3, -5, -7, -9]


def test_a_number_that_is_no_double_is_decoded():
    cdr = serialized(gripper(3, 0.2), GRIPPER)
    assert bulk_decode._find_layout(cdr, GRIPPER, TopicField(topic='g', field='moving')) is None
    check([gripper(k, k / 10) for k in range(9)], GRIPPER, TopicField(topic='g', field='moving'))


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(0, 10))
def test_a_stream_filled_at_once_is_the_stream_filled_one_by_one(stamps, split):
    one, many = Stream('linear', latency_ns=3), Stream('linear', latency_ns=3)
    values = np.arange(2.0 * len(stamps)).reshape(-1, 2)
    for stamp, value in zip(stamps, values, strict=True):
        one.append(stamp, value)
    for part in (slice(0, split), slice(split, None)):
        many.extend(np.array(stamps[part], np.int64), values[part])
    assert (one.regressions, one._stamps_ns) == (many.regressions, many._stamps_ns)
    for tick in range(-3, 55):
        first, second = one.sample(tick), many.sample(tick)
        assert (first is None) == (second is None)
        assert first is None or (
            first.age_ns == second.age_ns and first.value.tolist() == second.value.tolist()
        )
