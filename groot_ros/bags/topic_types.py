# SPDX-License-Identifier: Apache-2.0
"""Which message types can be recorded and sampled, and types of installed ROS packages."""

from collections.abc import Iterator
from functools import cache
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import get_types_from_msg

from groot_ros.bags.message_types import COMPRESSED_IMAGE_TYPE, IMAGE_TYPE, typestore
from groot_ros.embodiment import Embodiment
from groot_ros.resources import prefixes


def check_types(embodiment: Embodiment, topic_types: dict[str, str]) -> list[str]:
    """Why topics of these types cannot be recorded or converted, a sentence each; empty where all can."""
    problems = [
        f'{topic} is of type {msgtype}, which groot_ros does not know'
        for topic, msgtype in topic_types.items()
        if not _is_known(msgtype)
    ]
    for camera in embodiment.cameras:
        msgtype = topic_types.get(camera.topic, IMAGE_TYPE)
        if msgtype not in (IMAGE_TYPE, COMPRESSED_IMAGE_TYPE):
            allowed = f'{IMAGE_TYPE} or {COMPRESSED_IMAGE_TYPE}'
            problems.append(f'{camera.topic} is of type {msgtype}, and a camera must be {allowed}')
    for field in embodiment.sampled_fields:
        msgtype = topic_types.get(field.topic, '')
        if _is_known(msgtype) and not _has_field(msgtype, field.field):
            problems.append(f'{field.topic} is of type {msgtype}, which has no {field.field} with a stamp')
    return list(dict.fromkeys(problems))


def has_header(msgtype: str) -> bool:
    """Whether messages of a type begin with a std_msgs/Header; False for an unknown type."""
    fields = typestore().fielddefs[msgtype][1] if msgtype in typestore().fielddefs else []
    return bool(fields) and fields[0][0] == 'header'


@cache
def learn_type(msgtype: str) -> bool:
    """Whether the store knows a type; one of an installed ROS package is read from there first."""
    if msgtype in typestore().fielddefs:
        return True
    if msgtype.count('/') != 2:
        return False
    package, _, name = msgtype.split('/')
    for prefix in prefixes():
        file = prefix / 'share' / package / 'msg' / f'{name}.msg'
        if file.is_file():
            return _register(get_types_from_msg(file.read_text(), msgtype))
    return False


def _register(types: dict[str, Any]) -> bool:
    """Puts types into the store, unless a type that they consist of is unknown."""
    fields = [node for _, named_nodes in types.values() for _, node in named_nodes]
    known = all(learn_type(inner) for node in fields for inner in _message_types_in(node))
    if known:
        typestore().register(types)
    return known


def _message_types_in(node: Any) -> Iterator[str]:
    """Message types that a field consists of."""
    nodetype, content = node
    if nodetype == Nodetype.NAME:
        yield content
    elif nodetype in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        yield from _message_types_in(content[0])


def _is_known(msgtype: str) -> bool:
    return bool(msgtype) and learn_type(msgtype)


def _has_field(msgtype: str, path: str) -> bool:
    if not has_header(msgtype):
        return False
    first = path.split('.')[0]
    return first in dict(typestore().fielddefs[msgtype][1])
