# SPDX-License-Identifier: Apache-2.0
"""Bulk decoding of the numbers of one field from many serialized messages.

CDR messages with the same strings and array lengths have every number at the same byte offset. So one
message is decoded to find the offsets (`_find_layout`), and numpy reads the field from all others. Messages
whose strings or lengths differ are decoded one by one. The results are equal to the bit to those of
`deserialize_cdr`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype

from groot_ros.bags.message_types import deserialized, serialized, typestore
from groot_ros.embodiment import TopicField
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.message_fields import header_stamp_ns
from groot_ros.sampling.rows import apply_scale, extract_field, matches_source

_STAMP_OFFSET = 4  # after the encapsulation
_LITTLE_ENDIAN = 1
_DOUBLE = np.dtype('<f8')
_TEXT = ('string', 'wstring')
_NUMPY_NAMES = {'byte': 'uint8', 'char': 'uint8', 'octet': 'uint8'}
# Two bytes that differ in every number type; as bool the first is False, the second True.
_LOW_FILL = 0x11
_HIGH_FILL = 0xEE


@dataclass
class _Layout:
    """Byte offsets of a field's numbers, and which bytes (length,) are strings, lengths or padding."""

    offsets: list[int]
    is_structure: np.ndarray


def decode_columns(cdrs: list[bytes], msgtype: str, topic_field: TopicField) -> tuple[np.ndarray, Array]:
    """Stamps (n,) in ns and values (n, size) of a field, without the messages that name none of its joints.

    Raises GrootRosError if a message does not have the field as the embodiment says.
    """
    stamps_ns = np.zeros(len(cdrs), np.int64)
    values = np.zeros((len(cdrs), topic_field.size))
    matches = np.ones(len(cdrs), bool)
    lengths = np.array([len(cdr) for cdr in cdrs])
    for length in np.unique(lengths):
        indices = np.flatnonzero(lengths == length)
        joined = b''.join(cdrs[index] for index in indices)
        table = np.frombuffer(joined, np.uint8).reshape(len(indices), length)
        alike = np.zeros(len(indices), bool)
        layout = _find_layout(cdrs[indices[0]], msgtype, topic_field)
        if layout is not None:
            alike = (table[:, layout.is_structure] == table[0, layout.is_structure]).all(axis=1)
            stamps_ns[indices[alike]] = _read_stamps(table[alike])
            values[indices[alike]] = apply_scale(_read_doubles(table[alike], layout), topic_field)
        for index in indices[~alike]:
            message = deserialized(cdrs[index], msgtype, topic_field.topic)
            matches[index] = matches_source(message, topic_field)
            if matches[index]:
                stamps_ns[index] = header_stamp_ns(message)
                values[index] = extract_field(message, topic_field)
    return stamps_ns[matches], values[matches]


def _find_layout(cdr: bytes, msgtype: str, topic_field: TopicField) -> _Layout | None:
    """The layout of a message, or None where it cannot be found.

    It cannot for numbers that are not doubles, big-endian messages, and messages that name none of the
    joints. Offsets are found by writing markers into the field and searching for their bytes; the structure
    by filling all numbers with one byte and then with another: bytes that stay the same are not numbers.
    """
    message = deserialized(cdr, msgtype, topic_field.topic)
    if cdr[1] != _LITTLE_ENDIAN or not matches_source(message, topic_field):
        return None
    low = serialized(_filled(message, msgtype, _LOW_FILL), msgtype)
    high = serialized(_filled(message, msgtype, _HIGH_FILL), msgtype)
    markers = np.random.default_rng(0).random(topic_field.size) + 1e6
    try:
        _write_field(message, topic_field, markers)
        marked = serialized(message, msgtype)
        unscaled = topic_field.model_copy(update={'scale': 1.0, 'offset': 0.0})
        read_back = extract_field(typestore().deserialize_cdr(marked, msgtype), unscaled)
    except (AttributeError, TypeError, ValueError, IndexError, AssertionError, GrootRosError):
        return None
    offsets = [marked.find(marker.tobytes()) for marker in markers]
    same_length = len(low) == len(high) == len(marked) == len(cdr)
    if not same_length or min(offsets) < 0 or not np.array_equal(read_back, markers):
        return None
    return _Layout(offsets, np.frombuffer(low, np.uint8) == np.frombuffer(high, np.uint8))


def _filled(message: Any, msgtype: str, fill: int) -> Any:
    """A message with the same strings and lengths, whose numbers consist of the byte `fill`."""
    fields = typestore().fielddefs[msgtype][1]
    return type(message)(**{name: _filled_field(getattr(message, name), node, fill) for name, node in fields})


def _filled_field(value: Any, node: Any, fill: int) -> Any:
    nodetype, content = node
    if nodetype == Nodetype.NAME:
        return _filled(value, content, fill)
    if nodetype == Nodetype.BASE:
        return _filled_number(value, content[0], fill)
    inner, _ = content
    if inner[0] == Nodetype.BASE and inner[1][0] not in _TEXT:
        number = _filled_number(0, inner[1][0], fill)
        return np.full(len(value), number, np.asarray(value).dtype)
    return [_filled_field(item, inner, fill) for item in value]


def _filled_number(value: Any, name: str, fill: int) -> Any:
    if name in _TEXT:
        return value
    if name == 'bool':
        return fill == _HIGH_FILL
    return np.frombuffer(bytes([fill]) * 8, _NUMPY_NAMES.get(name, name))[0].item()


def _write_field(message: Any, topic_field: TopicField, numbers: Array) -> None:
    """Writes the numbers that `extract_field` would read without scaling."""
    if topic_field.joints:
        values = np.array(getattr(message, topic_field.field), float)
        for joint, number in zip(topic_field.joints, numbers, strict=True):
            values[list(message.name).index(joint)] = number
        setattr(message, topic_field.field, values)
    elif topic_field.field == 'pose':
        _write_pose(message.pose, numbers)
    else:
        *path, last = topic_field.field.split('.')
        for name in path:
            message = getattr(message, name)
        if topic_field.indices or topic_field.declared_size:
            values = np.array(getattr(message, last), float)
            values[list(topic_field.indices) or slice(None)] = numbers
            setattr(message, last, values)
        else:
            setattr(message, last, float(numbers[0]))


def _write_pose(pose: Any, numbers: Array) -> None:
    for axis, number in zip('xyz', numbers[:3], strict=True):
        setattr(pose.position, axis, float(number))
    for axis, number in zip('xyzw', numbers[3:], strict=True):
        setattr(pose.orientation, axis, float(number))


def _read_doubles(table: np.ndarray, layout: _Layout) -> Array:
    columns = [_read_column(table, offset, _DOUBLE) for offset in layout.offsets]
    return np.column_stack(columns)


def _read_stamps(table: np.ndarray) -> np.ndarray:
    seconds = _read_column(table, _STAMP_OFFSET, np.dtype('<i4')).astype(np.int64)
    nanoseconds = _read_column(table, _STAMP_OFFSET + 4, np.dtype('<u4')).astype(np.int64)
    return seconds * 1_000_000_000 + nanoseconds


def _read_column(table: np.ndarray, offset: int, dtype: np.dtype) -> np.ndarray:
    """The number at one byte offset of every message (n, length)."""
    return np.ascontiguousarray(table[:, offset : offset + dtype.itemsize]).view(dtype)[:, 0]
