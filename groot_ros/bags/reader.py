# SPDX-License-Identifier: Apache-2.0
"""Reads episodes back from bag folders: what they are, their state messages, their ticks and their video."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.errors import ReaderError

from groot_ros.bags.message_types import (
    COMPRESSED_TOPIC,
    EPISODE_EVENT_TOPIC,
    EPISODE_INFO_TOPIC,
    ROW_TOPIC,
    VIDEO_TYPE,
    typestore,
)
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError

_BODY, _STAMP_SIZE = 4, 8  # behind the encapsulation of CDR


@dataclass
class BagMessage:
    """One message: relative topic, log time and CDR bytes."""

    topic: str
    log_ns: int
    cdr: bytes
    msgtype: str

    def decode(self) -> Any:
        """The message as an object."""
        return typestore().deserialize_cdr(self.cdr, self.msgtype)


class EpisodeBag:
    """One episode on disk. Raises GrootRosError, with the mending, for a folder that is not a whole bag of ours."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = _open(path)
        if self._reader.message_count == 0:
            self.close()
            raise GrootRosError(f'The bag {path} is empty: nothing was recorded, delete the folder.')
        self.info = self._read_info()

    @property
    def message_count(self) -> int:
        """Messages in the bag."""
        return self._reader.message_count

    def __enter__(self) -> 'EpisodeBag':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the files."""
        self._reader.close()

    def connections(self, embodiment: Embodiment) -> dict[str, Connection]:
        """Relative topic -> connection of everything that rows and videos need. Raises GrootRosError naming what is missing.

        The events of the episode are among them where it has any; a camera stands under `video/NAME`, however it was recorded.
        """
        found = {topic: self._find(topic) for topic in [*embodiment.sampled_topics, ROW_TOPIC]}
        found |= {camera.video_topic: self.video_connection(camera) for camera in embodiment.cameras}
        missing = [topic for topic, connection in found.items() if connection is None]
        found[EPISODE_EVENT_TOPIC] = self._find(EPISODE_EVENT_TOPIC)
        if missing:
            present = ', '.join(sorted(connection.topic for connection in self._reader.connections)) or 'none'
            raise GrootRosError(
                f'The bag {self.path} lacks {", ".join(missing)}, which the embodiment {embodiment.name} needs; it has {present}: '
                'choose the embodiment it was recorded with, or record it again.'
            )
        return {topic: connection for topic, connection in found.items() if connection is not None}

    def source_connections(self, embodiment: Embodiment) -> dict[str, Connection]:
        """Relative topic -> connection of what rows are made from, for a bag of any recorder. Raises GrootRosError naming what is missing."""
        found = {topic: self._find(topic) for topic in embodiment.sampled_topics}
        for camera in embodiment.cameras:
            topics = (camera.topic, f'{camera.topic}/{COMPRESSED_TOPIC}', camera.video_topic)
            found[camera.topic] = next(filter(None, map(self._find, topics)), None)
        if missing := [topic for topic, connection in found.items() if connection is None]:
            raise GrootRosError(
                f'The bag {self.path} lacks {", ".join(missing)}, which the embodiment {embodiment.name} needs; it has '
                f'{", ".join(sorted(self.types))}: choose the embodiment of its topics.'
            )
        found[EPISODE_EVENT_TOPIC] = self._find(EPISODE_EVENT_TOPIC)
        return {topic: connection for topic, connection in found.items() if connection is not None}

    def video_connection(self, camera: CameraField) -> Connection | None:
        """Where a camera is recorded: as video a row, as JPEG or as it came."""
        for topic in (camera.video_topic, f'{camera.topic}/{COMPRESSED_TOPIC}', camera.topic):
            if (connection := self._find(topic)) is not None:
                return connection
        return None

    @property
    def has_rows(self) -> bool:
        """Whether our recorder sampled rows while it recorded."""
        return self._find(ROW_TOPIC) is not None

    @property
    def types(self) -> dict[str, str]:
        """Absolute topic -> type of everything in the bag."""
        return {connection.topic: connection.msgtype for connection in self._reader.connections}

    @property
    def duration_s(self) -> float:
        """From the first to the last log time."""
        return self._reader.duration / 1e9

    @property
    def start_ns(self) -> int:
        """Log time of the first message."""
        return self._reader.start_time

    @property
    def end_ns(self) -> int:
        """Just after the log time of the last message."""
        return self._reader.end_time

    def messages_of_topic(self, topic: str) -> Iterator[BagMessage]:
        """The messages of one absolute topic."""
        return self.messages({c.topic: c for c in self._reader.connections if c.topic == topic})

    def messages(self, connections: dict[str, Connection]) -> Iterator[BagMessage]:
        """The messages of some connections in the order of their log times."""
        names = {connection.id: topic for topic, connection in connections.items()}
        try:
            for connection, log_ns, cdr in self._reader.messages(list(connections.values())):
                yield BagMessage(names[connection.id], log_ns, cdr, connection.msgtype)
        except ReaderError as error:
            raise GrootRosError(
                f'The bag {self.path} is damaged ({error}): try `groot-ros recover {self.path}`.'
            ) from error

    def all_messages(self) -> Iterator[BagMessage]:
        """Every message, by absolute topic."""
        return self.messages({connection.topic: connection for connection in self._reader.connections})

    def _read_info(self) -> dict[str, Any]:
        """What the recorder said of the episode when it began and when it ended; empty for bags of other recorders."""
        connection = self._find(EPISODE_INFO_TOPIC)
        info: dict[str, Any] = {}
        for message in self.messages({EPISODE_INFO_TOPIC: connection}) if connection else ():
            info.update(json.loads(message.decode().data))
        return info

    def _find(self, topic: str) -> Connection | None:
        matches = [
            c for c in self._reader.connections if c.topic == f'/{topic}' or c.topic.endswith(f'/{topic}')
        ]
        return matches[0] if len(matches) == 1 else None


def read_access_unit(message: BagMessage) -> bytes:
    """H.264 bytes of a CompressedVideo message."""
    assert message.msgtype == VIDEO_TYPE
    cdr, order = message.cdr, '<I' if message.cdr[1] & 1 else '>I'
    # Time stamp, then frame_id, data and format, each behind its length and at a multiple of four.
    at = _BODY + _STAMP_SIZE
    at = _aligned(at + 4 + _length(cdr, at, order))
    size = _length(cdr, at, order)
    behind = _aligned(at + 4 + size)
    form = cdr[behind + 4 : behind + 4 + _length(cdr, behind, order)].rstrip(b'\0').decode()
    if form != 'h264':
        raise GrootRosError(f'{message.topic} is {form}: only h264 video is copied into datasets.')
    return bytes(cdr[at + 4 : at + 4 + size])


def _length(cdr: bytes, at: int, order: str) -> int:
    return struct.unpack_from(order, cdr, at)[0]


def _aligned(at: int) -> int:
    return _BODY + (at - _BODY + 3) // 4 * 4


def _open(path: Path) -> Reader:
    if not path.is_dir():
        raise GrootRosError(f'{path} is no folder: give the folder of a bag.')
    if not (path / 'metadata.yaml').is_file():
        raise GrootRosError(
            f'The bag {path} has no metadata.yaml: its recording was cut off; run `groot-ros recover {path}`.'
        )
    for database in path.glob('*.db3'):
        if journal := [
            file
            for suffix in ('-journal', '-wal')
            if (file := database.with_name(database.name + suffix)).is_file() and file.stat().st_size
        ]:
            raise GrootRosError(
                f'The bag {path} was not closed: {database.name} has a journal ({journal[0].name}); run '
                f'`sqlite3 {database} "pragma integrity_check"`, which finishes or undoes what was cut off.'
            )
    reader = Reader(path)
    try:
        reader.open()
    except (ReaderError, AssertionError, ValueError, OSError) as error:
        raise GrootRosError(
            f'The bag {path} cannot be read ({error}): try `groot-ros recover {path}`.'
        ) from error
    return reader
