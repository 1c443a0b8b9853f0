# SPDX-License-Identifier: Apache-2.0
"""All message types and topics of our bags, and the messages that we write, for the library rosbags."""

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from groot_ros.errors import GrootRosError
from groot_ros.resources import interface_files

if TYPE_CHECKING:
    from groot_ros.sampling.row_builder import SampledRow

TIME_TYPE = 'builtin_interfaces/msg/Time'
HEADER_TYPE = 'std_msgs/msg/Header'
STRING_TYPE = 'std_msgs/msg/String'
IMAGE_TYPE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE_TYPE = 'sensor_msgs/msg/CompressedImage'
VIDEO_TYPE = 'foxglove_msgs/msg/CompressedVideo'
ROW_TYPE = 'groot_ros/msg/Row'
EPISODE_EVENT_TYPE = 'groot_ros/msg/EpisodeEvent'
EPISODE_STATUS_TYPE = 'groot_ros/msg/EpisodeStatus'
ROBOT_STATUS_TYPE = 'groot_ros/msg/RobotStatus'

# Relative to the namespace of the recorder.
ROW_TOPIC = 'row'
EPISODE_INFO_TOPIC = 'episode_info'
EPISODE_EVENT_TOPIC = 'episode_event'
# Values of EpisodeEvent.kind.
EVENT_PAUSED = 'paused'
EVENT_RESUMED = 'resumed'
EVENT_SOURCE = 'source'
# Below the topic of a camera: its images as JPEG or PNG, or the stamps of images that are written as video.
COMPRESSED_TOPIC = 'compressed'
FRAME_STAMP_TOPIC = 'frame_stamp'

# The schema of video in MCAP files. Foxglove knows both names, Rerun decodes this one only; its protobuf form
# would be of another serialization, which makes rosbag2 refuse the whole bag.
# https://docs.foxglove.dev/docs/visualization/message-schemas/compressed-video
VIDEO_SCHEMA = 'foxglove.CompressedVideo'
_VIDEO_DEFINITION = 'builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n'


@cache
def typestore() -> Typestore:
    """The types of ROS 2 Jazzy, of this package and of CompressedVideo.

    There is one store for the process; topic_types.py adds types of installed packages to it.
    """
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg(_VIDEO_DEFINITION, VIDEO_TYPE))
    for name, text in interface_files().items():
        store.register(get_types_from_msg(text, name))
    return store


def absolute_topic(namespace: str, topic: str) -> str:
    """The absolute name of a topic; `namespace` ends with a slash. /tf and the like are absolute already."""
    return topic if topic.startswith('/') else namespace + topic


def schema_name(msgtype: str) -> str:
    """The name of a message type's schema in our MCAP files."""
    return VIDEO_SCHEMA if msgtype == VIDEO_TYPE else msgtype


def type_of_schema(name: str) -> str:
    """The message type of a schema in an MCAP file."""
    return VIDEO_TYPE if name == VIDEO_SCHEMA else name


@cache
def definition(msgtype: str) -> tuple[str, str]:
    """Message definition and RIHS01 hash of a type. Cached, because an episode must start quickly."""
    text, _ = typestore().generate_msgdef(msgtype, ros_version=2)
    return text, typestore().hash_rihs01(msgtype)


def serialized(message: Any, msgtype: str) -> bytes:
    """The CDR bytes of a message of the type `msgtype`, with the four bytes of encapsulation."""
    return bytes(typestore().serialize_cdr(message, msgtype))


def deserialized(cdr: bytes, msgtype: str, what: str) -> Any:
    """The message of CDR bytes. Raises GrootRosError, which begins with `what`, for damaged bytes."""
    try:
        return typestore().deserialize_cdr(cdr, msgtype)
    except Exception as error:  # rosbags raises errors of many types
        reason = str(error).rstrip('.') or type(error).__name__
        raise GrootRosError(f'{what} is no {msgtype} ({reason}).') from error


def time_message(stamp_ns: int) -> Any:
    """The builtin_interfaces/Time of a time in nanoseconds."""
    return typestore().types[TIME_TYPE](stamp_ns // 1_000_000_000, stamp_ns % 1_000_000_000)


def video_message(stamp_ns: int, frame_id: str, access_unit: bytes) -> bytes:
    """CDR of one H.264 access unit; the stamp is that of its image, and `frame_id` that of its camera."""
    data = np.frombuffer(access_unit, np.uint8)
    message = typestore().types[VIDEO_TYPE](time_message(stamp_ns), frame_id, data, 'h264')
    return serialized(message, VIDEO_TYPE)


def compressed_message(header: Any, image_format: str, data: np.ndarray) -> bytes:
    """CDR of a sensor_msgs/CompressedImage.

    `image_format` is written as image_transport writes it, such as "rgb8; jpeg compressed bgr8".
    """
    message = typestore().types[COMPRESSED_IMAGE_TYPE](header, image_format, data.ravel())
    return serialized(message, COMPRESSED_IMAGE_TYPE)


def event_message(stamp_ns: int, kind: str, text: str) -> bytes:
    """CDR of an EpisodeEvent; `kind` is one of the EVENT constants."""
    header = typestore().types[HEADER_TYPE](time_message(stamp_ns), '')
    return serialized(typestore().types[EPISODE_EVENT_TYPE](header, kind, text), EPISODE_EVENT_TYPE)


def row_message(row: 'SampledRow', brightness: list[float], repeated: list[bool]) -> Any:
    """The Row message of a sampled row.

    `brightness` (0 to 255) and `repeated` (equal to the image of the row before) have one
    entry for each camera.
    """
    header = typestore().types[HEADER_TYPE](time_message(row.tick.stamp_ns), '')
    return typestore().types[ROW_TYPE](
        header,
        row.index,
        row.segment,
        row.tick.filled,
        row.late,
        row.state,
        row.commands,
        row.ages_s,
        row.frame_ages_s,
        np.array(brightness, np.float32),
        np.array(repeated, bool),
    )
