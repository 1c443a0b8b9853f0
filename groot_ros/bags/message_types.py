# SPDX-License-Identifier: Apache-2.0
"""Message types of our bags for the library rosbags: ROS 2 Jazzy, this package's own, and Foxglove's CompressedVideo."""

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from groot_ros.resources import interface_files, prefixes

if TYPE_CHECKING:
    from groot_ros.sampling.row_builder import SampledRow

VIDEO_TYPE = 'foxglove_msgs/msg/CompressedVideo'
ROW_TYPE = 'groot_ros/msg/Row'
EPISODE_EVENT_TYPE = 'groot_ros/msg/EpisodeEvent'
HEADER_TYPE = 'std_msgs/msg/Header'
_COMPRESSED = 'sensor_msgs/msg/CompressedImage'
# https://docs.foxglove.dev/docs/visualization/message-schemas/compressed-video
_VIDEO_DEFINITION = 'builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n'


@cache
def typestore() -> Typestore:
    """The store of every type that we write or read."""
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg(_VIDEO_DEFINITION, VIDEO_TYPE))
    for name, text in interface_files().items():
        store.register(get_types_from_msg(text, name))
    return store


@cache
def learn_type(kind: str) -> bool:
    """Whether the store knows a type; one of an installed ROS package is read from its share folder, with the types in it."""
    if kind in typestore().fielddefs:
        return True
    package, _, name = kind.split('/')
    for prefix in prefixes():
        file = prefix / 'share' / package / 'msg' / f'{name}.msg'
        if file.is_file():
            found = get_types_from_msg(file.read_text(), kind)
            known = all(
                learn_type(other)
                for _, fields in found.values()
                for _, node in fields
                for other in _named(node)
            )
            if known:
                typestore().register(found)
            return known
    return False


def _named(node: Any) -> Iterator[str]:
    """Message types that a field consists of."""
    which, content = node
    if which == Nodetype.NAME:
        yield content
    elif which in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        yield from _named(content[0])


@cache
def definition(message_type: str) -> tuple[str, str]:
    """Message definition and RIHS01 hash of a type; computing them takes too long for the start of every episode."""
    text, _ = typestore().generate_msgdef(message_type, ros_version=2)
    return text, typestore().hash_rihs01(message_type)


def time_message(stamp_ns: int) -> Any:
    """builtin_interfaces/Time of nanoseconds."""
    return typestore().types['builtin_interfaces/msg/Time'](
        stamp_ns // 1_000_000_000, stamp_ns % 1_000_000_000
    )


def has_header(kind: str) -> bool:
    """Whether messages of a type begin with a std_msgs/Header."""
    fields = typestore().fielddefs[kind][1] if kind in typestore().fielddefs else []
    return bool(fields) and fields[0][0] == 'header'


def video_message(stamp_ns: int, camera: str, access_unit: bytes) -> bytes:
    """CDR of one H.264 access unit; the stamp is that of the frame."""
    message = typestore().types[VIDEO_TYPE](
        time_message(stamp_ns), camera, np.frombuffer(access_unit, np.uint8), 'h264'
    )
    return serialized(message, VIDEO_TYPE)


def compressed_message(header: Any, image_format: str, data: np.ndarray) -> bytes:
    """CDR of a sensor_msgs/CompressedImage; `image_format` as image_transport writes it, such as "rgb8; jpeg compressed bgr8"."""
    message = typestore().types[_COMPRESSED](header, image_format, data.ravel())
    return serialized(message, _COMPRESSED)


def event_message(stamp_ns: int, kind: str, text: str) -> bytes:
    """CDR of an EpisodeEvent."""
    header = typestore().types[HEADER_TYPE](time_message(stamp_ns), '')
    return serialized(typestore().types[EPISODE_EVENT_TYPE](header, kind, text), EPISODE_EVENT_TYPE)


def row_message(row: 'SampledRow', brightness: list[float], repeated: list[bool]) -> Any:
    """A Row; brightness and repetition for each of its frames."""
    header = typestore().types[HEADER_TYPE](time_message(row.tick.stamp_ns), 'base')
    return typestore().types[ROW_TYPE](
        header, row.index, row.segment, row.tick.filled, row.late, row.state, row.commands, row.ages_s, row.frame_ages_s,
        np.array(brightness, np.float32), np.array(repeated, bool),
    )  # fmt: skip


def serialized(message: Any, kind: str) -> bytes:
    """CDR of a message."""
    return bytes(typestore().serialize_cdr(message, kind))
