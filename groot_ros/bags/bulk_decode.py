# SPDX-License-Identifier: Apache-2.0
"""Numbers of many serialized messages at once: messages of one layout differ only in their numbers, so one decoded message tells where those lie."""

from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype

from groot_ros.bags.message_types import typestore
from groot_ros.embodiment import TopicField
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.message_fields import header_stamp_ns
from groot_ros.sampling.rows import apply_scale, extract_field, matches_source

_STAMP_AT = 4  # behind the four bytes of the encapsulation
_LITTLE_ENDIAN, _HALF = 1, 0x80
_DOUBLE = np.dtype('<f8')
_NUMPY = {'byte': 'uint8', 'char': 'uint8', 'octet': 'uint8'}


def decode_columns(cdrs: list[bytes], kind: str, source: TopicField) -> tuple[np.ndarray, Array]:
    """Stamps (n,) in ns and values (n, size) of a source, without the messages that name none of its joints.

    Equal to the bit to decoding each message; one whose strings or lengths differ from the first of its size is decoded.
    """
    stamps_ns, values, known = (
        np.zeros(len(cdrs), np.int64),
        np.zeros((len(cdrs), source.size)),
        np.ones(len(cdrs), bool),
    )
    lengths = np.array([len(cdr) for cdr in cdrs])
    for length in np.unique(lengths):
        where = np.flatnonzero(lengths == length)
        table = np.frombuffer(b''.join(cdrs[index] for index in where), np.uint8).reshape(len(where), length)
        places, structure = _layout(cdrs[where[0]], kind, source)
        alike = (
            (table[:, structure] == table[0, structure]).all(axis=1) if places else np.zeros(len(where), bool)
        )
        if alike.any():
            stamps_ns[where[alike]] = _stamps(table[alike])
            columns = [
                np.ascontiguousarray(table[alike, place : place + 8]).view(_DOUBLE)[:, 0] for place in places
            ]
            values[where[alike]] = apply_scale(np.column_stack(columns), source)
        for index in where[~alike]:
            message = typestore().deserialize_cdr(cdrs[index], kind)
            known[index] = matches_source(message, source)
            if known[index]:
                stamps_ns[index], values[index] = header_stamp_ns(message), extract_field(message, source)
    return stamps_ns[known], values[known]


def _layout(cdr: bytes, kind: str, source: TopicField) -> tuple[list[int], np.ndarray]:
    """Where each number of the source lies in a message, and which of its bytes are strings, lengths and padding.

    No places where they cannot be told: for numbers that are no doubles, other byte orders, or joints that are not named.
    """
    nothing: tuple[list[int], np.ndarray] = [], np.zeros(0, bool)
    message = typestore().deserialize_cdr(cdr, kind)
    if cdr[1] != _LITTLE_ENDIAN or not matches_source(message, source):
        return nothing
    low, high = (_written(_filled(message, kind, pattern), kind) for pattern in (0x11, 0xEE))
    markers = np.random.default_rng(0).random(source.size) + 1e6
    try:
        _put(message, source, markers)
        written = _written(message, kind)
        places = [written.find(marker.tobytes()) for marker in markers]
        read = extract_field(
            typestore().deserialize_cdr(written, kind),
            source.model_copy(update={'scale': 1.0, 'offset': 0.0}),
        )
    except (AttributeError, TypeError, ValueError, IndexError, AssertionError, GrootRosError):
        return nothing
    if (
        not len(low) == len(high) == len(written) == len(cdr)
        or min(places) < 0
        or not np.array_equal(read, markers)
    ):
        return nothing
    return places, np.frombuffer(low, np.uint8) == np.frombuffer(high, np.uint8)


def _filled(message: Any, kind: str, pattern: int) -> Any:
    """A message of the same strings and lengths with every number made of one byte, to see which bytes are numbers."""

    def fill(value: Any, node: Any) -> Any:
        which, content = node
        if which == Nodetype.NAME:
            return _filled(value, content, pattern)
        if which == Nodetype.BASE:
            name = content[0]
            if name in ('string', 'wstring'):
                return value
            return (
                pattern > _HALF
                if name == 'bool'
                else np.frombuffer(bytes([pattern]) * 8, _NUMPY.get(name, name))[0].item()
            )
        inner, _ = content
        if inner[0] == Nodetype.BASE and inner[1][0] not in ('string', 'wstring'):
            return np.full(len(value), fill(0, inner), np.asarray(value).dtype)
        return [fill(item, inner) for item in value]

    return type(message)(
        **{name: fill(getattr(message, name), node) for name, node in typestore().fielddefs[kind][1]}
    )


def _written(message: Any, kind: str) -> bytes:
    return bytes(typestore().serialize_cdr(message, kind))


def _put(message: Any, source: TopicField, numbers: Array) -> None:
    """The opposite of rows.extract_field."""
    if source.joints:
        values = np.array(getattr(message, source.field), float)
        for joint, number in zip(source.joints, numbers, strict=True):
            values[list(message.name).index(joint)] = number
        setattr(message, source.field, values)
    elif source.field == 'pose':
        targets = [(message.pose.position, axis) for axis in 'xyz'] + [
            (message.pose.orientation, axis) for axis in 'xyzw'
        ]
        for (target, axis), number in zip(targets, numbers, strict=True):
            setattr(target, axis, float(number))
    else:
        *path, last = source.field.split('.')
        for part in path:
            message = getattr(message, part)
        if source.indices or source.declared_size:
            values = np.array(getattr(message, last), float)
            values[list(source.indices) or slice(None)] = numbers
            setattr(message, last, values)
        else:
            setattr(message, last, float(numbers[0]))


def _stamps(table: np.ndarray) -> np.ndarray:
    seconds = np.ascontiguousarray(table[:, _STAMP_AT : _STAMP_AT + 4]).view('<i4')[:, 0].astype(np.int64)
    nanoseconds = (
        np.ascontiguousarray(table[:, _STAMP_AT + 4 : _STAMP_AT + 8]).view('<u4')[:, 0].astype(np.int64)
    )
    return seconds * 1_000_000_000 + nanoseconds
