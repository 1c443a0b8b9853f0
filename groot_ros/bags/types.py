"""Message types of our bags for the library rosbags: ROS 2 Jazzy, this package's own, and Foxglove's CompressedVideo."""

from functools import cache
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from groot_ros.resources import interface_files

VIDEO_TYPE = 'foxglove_msgs/msg/CompressedVideo'
ROW_TYPE = 'groot_ros/msg/Row'
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
def definition(message_type: str) -> tuple[str, str]:
    """Message definition and RIHS01 hash of a type; computing them takes too long for the start of every episode."""
    text, _ = typestore().generate_msgdef(message_type, ros_version=2)
    return text, typestore().hash_rihs01(message_type)


def time_message(stamp_ns: int) -> Any:
    """builtin_interfaces/Time of nanoseconds."""
    return typestore().types['builtin_interfaces/msg/Time'](stamp_ns // 1_000_000_000, stamp_ns % 1_000_000_000)


def video_message(stamp_ns: int, camera: str, access_unit: bytes) -> bytes:
    """CDR of one H.264 access unit."""
    message = typestore().types[VIDEO_TYPE](time_message(stamp_ns), camera, np.frombuffer(access_unit, np.uint8), 'h264')
    return bytes(typestore().serialize_cdr(message, VIDEO_TYPE))


def row_message(stamp_ns: int, index: int, filled: bool, state: np.ndarray, ages_s: np.ndarray) -> bytes:
    """CDR of one Row."""
    header = typestore().types['std_msgs/msg/Header'](time_message(stamp_ns), 'base')
    message = typestore().types[ROW_TYPE](header, index, filled, state, ages_s)
    return bytes(typestore().serialize_cdr(message, ROW_TYPE))
