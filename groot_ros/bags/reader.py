# SPDX-License-Identifier: Apache-2.0
"""Reads bags of our recorder and of others: messages, rows, video and what is known of the episode."""

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader

from groot_ros.bags import decompress
from groot_ros.bags.episode_info import parse_info
from groot_ros.bags.label import read_label
from groot_ros.bags.mcap_file import check_file
from groot_ros.bags.message_types import (
    COMPRESSED_TOPIC,
    EPISODE_EVENT_TOPIC,
    EPISODE_INFO_TOPIC,
    ROW_TOPIC,
    deserialized,
    type_of_schema,
)
from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.path_kind import describe_path, is_bag, is_torn_bag

# A CDR message begins with 4 bytes of encapsulation; alignment counts from their end.
_CDR_BODY = 4
_STAMP_BYTES = 8
_MAX_REASON_LENGTH = 200
decompress.limit_library()


@dataclass
class BagMessage:
    """One message: topic, log time in ns, CDR bytes and message type."""

    topic: str
    log_ns: int
    cdr: bytes
    msgtype: str

    def decode(self) -> Any:
        """Returns the message deserialized with the types of `typestore`.

        Raises GrootRosError, which names topic and time, for damaged bytes.
        """
        return deserialized(self.cdr, self.msgtype, f'{self.topic} at {self.log_ns / 1e9:.3f} s')


class EpisodeBag:
    """A bag folder, opened for reading; use it as a context manager.

    `info` is what our recorder wrote of the episode, empty for bags of other recorders. Raises GrootRosError
    if the folder is not a complete bag, or has no message.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = _open(path)
        self._unpack = _message_decompression(self._reader)
        self.info: dict[str, Any] = {}
        try:
            if self._reader.message_count == 0:
                raise GrootRosError(f'The bag {path} is empty: nothing was recorded, delete the folder.')
            self.info = self._read_info()
        except GrootRosError:
            self.close()
            raise

    @property
    def message_count(self) -> int:
        """The number of messages in the bag."""
        return self._reader.message_count

    def __enter__(self) -> 'EpisodeBag':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files of the bag."""
        self._reader.close()

    def connections(self, embodiment: Embodiment) -> dict[str, Connection]:
        """Connections by relative topic of what our rows need. Raises GrootRosError for missing ones.

        They include the events of the episode if it has any. The key of a camera is `video/NAME` in any case.
        """
        found = {topic: self._find(topic) for topic in [*embodiment.sampled_topics, ROW_TOPIC]}
        found |= {camera.video_topic: self.video_connection(camera) for camera in embodiment.cameras}
        missing = [topic for topic, connection in found.items() if connection is None]
        found[EPISODE_EVENT_TOPIC] = self._find(EPISODE_EVENT_TOPIC)
        if missing:
            raise self._missing_topics(
                missing, embodiment, 'choose the embodiment that it was recorded with, or record it again'
            )
        return {topic: connection for topic, connection in found.items() if connection is not None}

    def source_connections(self, embodiment: Embodiment) -> dict[str, Connection]:
        """Connections by relative topic of what rows are made from, in a bag of any recorder.

        They include the events of the episode if it has any. Raises GrootRosError for missing topics.
        """
        found = {topic: self._find(topic) for topic in embodiment.sampled_topics}
        for camera in embodiment.cameras:
            topics = (camera.topic, f'{camera.topic}/{COMPRESSED_TOPIC}', camera.video_topic)
            found[camera.topic] = next(filter(None, map(self._find, topics)), None)
        missing = [topic for topic, connection in found.items() if connection is None]
        if missing:
            raise self._missing_topics(missing, embodiment, 'choose the embodiment of its topics')
        found[EPISODE_EVENT_TOPIC] = self._find(EPISODE_EVENT_TOPIC)
        return {topic: connection for topic, connection in found.items() if connection is not None}

    def video_connection(self, camera: CameraField) -> Connection | None:
        """The connection of a camera: its video, JPEG images or original images; None if it has none."""
        for topic in (camera.video_topic, f'{camera.topic}/{COMPRESSED_TOPIC}', camera.topic):
            if (connection := self._find(topic)) is not None:
                return connection
        return None

    @property
    def has_rows(self) -> bool:
        """Whether the bag has the rows of our recorder."""
        return self._find(ROW_TOPIC) is not None

    @property
    def types(self) -> dict[str, str]:
        """Message types by absolute topic."""
        return {connection.topic: connection.msgtype for connection in self._reader.connections}

    @property
    def duration_s(self) -> float:
        """Time from the first to the last log time, s."""
        return self._reader.duration / 1e9

    @property
    def start_ns(self) -> int:
        """Log time of the first message, ns."""
        return self._reader.start_time

    @property
    def end_ns(self) -> int:
        """Just after the log time of the last message, ns."""
        return self._reader.end_time

    def messages_of_topic(self, topic: str) -> Iterator[BagMessage]:
        """The messages of one absolute topic, in the order of their log times; none for an unknown topic.

        Raises GrootRosError for a damaged bag.
        """
        return self.messages({c.topic: c for c in self._reader.connections if c.topic == topic})

    def messages(self, connections: dict[str, Connection]) -> Iterator[BagMessage]:
        """Messages in the order of their log times, with the keys of `connections` as their topics.

        Raises GrootRosError, when it gets there, for a damaged bag.
        """
        names = {connection.id: topic for topic, connection in connections.items()}
        counts: Counter[int] = Counter()
        log_ns = self.start_ns
        try:
            for connection, log_ns, cdr in self._reader.messages(list(connections.values())):
                counts[connection.id] += 1
                yield BagMessage(names[connection.id], log_ns, self._unpack(cdr), connection.msgtype)
        except Exception as error:  # of any library that reads the file
            place = f'{(log_ns - self.start_ns) / 1e9:.2f} s after its beginning'
            raise _refusal(self.path, place, error) from error
        for connection in connections.values():
            if counts[connection.id] != connection.msgcount:
                raise GrootRosError(
                    f'The bag {self.path} is damaged: it has {counts[connection.id]} messages of '
                    f'{connection.topic}, and its index says {connection.msgcount}. '
                    f'{_advice(self.path)}'
                )

    def all_messages(self) -> Iterator[BagMessage]:
        """All messages in the order of their log times, with absolute topics.

        Raises GrootRosError for a damaged bag.
        """
        return self.messages({connection.topic: connection for connection in self._reader.connections})

    def _read_info(self) -> dict[str, Any]:
        """What our recorder wrote of the episode, and what was changed later; empty for other recorders."""
        info: dict[str, Any] = {}
        connection = self._find(EPISODE_INFO_TOPIC)
        if connection is not None:
            with naming_bag(self.path):
                for message in self.messages({EPISODE_INFO_TOPIC: connection}):
                    info.update(parse_info(message.decode().data))
        return {**info, **read_label(self.path)}

    def _find(self, topic: str) -> Connection | None:
        """The connection of a topic; None if there is none, or if it is not clear which."""
        matches = self._matches(topic)
        return matches[0] if len(matches) == 1 else None

    def _matches(self, topic: str) -> list[Connection]:
        """The connections that a topic may be: those of its whole name, or else of any namespace.

        A relative topic is in the namespace that our recorder noted, or in none.
        """
        if topic.startswith('/'):
            return self._named(topic)
        namespace = str(self.info.get('namespace', '')).strip('/')
        noted = self._named(f'/{namespace}/{topic}') if namespace else []
        suffix = f'/{topic}'
        return (
            noted
            or self._named(suffix)
            or [connection for connection in self._reader.connections if connection.topic.endswith(suffix)]
        )

    def _named(self, name: str) -> list[Connection]:
        return [connection for connection in self._reader.connections if connection.topic == name]

    def _missing_topics(self, missing: list[str], embodiment: Embodiment, remedy: str) -> GrootRosError:
        for topic in missing:
            several = sorted({connection.topic for connection in self._matches(topic)})
            if len(several) > 1:
                return GrootRosError(
                    f'The bag {self.path} has several {topic} ({", ".join(several)}): name the one that the '
                    f'embodiment {embodiment.name} means with its whole name, such as topic: {several[0]}.'
                )
        present = ', '.join(sorted(self.types)) or 'none'
        return GrootRosError(
            f'The bag {self.path} has no {", ".join(missing)}, which the embodiment {embodiment.name} needs; '
            f'it has {present}: {remedy}.'
        )


@contextmanager
def naming_bag(path: Path) -> Iterator[None]:
    """Raises every error within as a GrootRosError that names the bag.

    What a bag holds reaches many libraries, and each raises errors of its own for damaged bytes.
    """
    try:
        yield
    except GrootRosError as error:
        if str(path) in str(error):
            raise
        raise GrootRosError(f'The bag {path} cannot be read: {str(error).rstrip(".")}.') from error
    except OSError:  # of a disk, perhaps of the one that is written to
        raise
    except Exception as error:
        raise _refusal(path, '', error) from error


def read_access_unit(message: BagMessage) -> bytes:
    """The H.264 access unit (Annex B) of a CompressedVideo message, read without decoding the message.

    Raises GrootRosError for another video format, and for damaged bytes.
    """
    try:
        name, access_unit = _split_video(message.cdr)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        place = f'{message.topic} at {message.log_ns / 1e9:.3f} s'
        raise GrootRosError(f'{place} is no {message.msgtype} ({error}).') from error
    if name != 'h264':
        raise GrootRosError(f'{message.topic} is {name}: only h264 video can be copied into datasets.')
    return access_unit


def _split_video(cdr: bytes) -> tuple[str, bytes]:
    """Format and data of a serialized CompressedVideo."""
    order = '<I' if cdr[1] & 1 else '>I'
    # Time stamp, then frame_id, data and format, each after its length and at a multiple of four.
    frame_id = _CDR_BODY + _STAMP_BYTES
    data = _aligned(frame_id + 4 + _length(cdr, frame_id, order))
    data_end = data + 4 + _length(cdr, data, order)
    video_format = _aligned(data_end)
    format_end = video_format + 4 + _length(cdr, video_format, order)
    if format_end > len(cdr):
        raise IndexError(f'{format_end} bytes are declared and there are {len(cdr)}')
    return cdr[video_format + 4 : format_end].rstrip(b'\0').decode(), bytes(cdr[data + 4 : data_end])


def _length(cdr: bytes, at: int, order: str) -> int:
    return struct.unpack_from(order, cdr, at)[0]


def _aligned(at: int) -> int:
    return _CDR_BODY + (at - _CDR_BODY + 3) // 4 * 4


def _open(path: Path) -> Reader:
    if not path.is_dir():
        raise GrootRosError(f'{path} {describe_path(path)}: give the folder of a bag.')
    if is_torn_bag(path):
        raise GrootRosError(
            f'The bag {path} has no metadata.yaml, because its recording was cut off: '
            f'run `groot-ros recover {path}`.'
        )
    if not is_bag(path):
        raise GrootRosError(f'{path} {describe_path(path)}: give the folder of one bag.')
    for database in path.glob('*.db3'):
        _check_closed(path, database)
    try:
        _check_files(path)
        reader = Reader(path)
        reader.open()
    except Exception as error:  # of any library that reads the file
        raise _refusal(path, '', error) from error
    _name_types(reader.storage.connections)
    for storage in reader.storage.storages:
        _name_types(storage.connections)
    return reader


def _name_types(connections: list[Connection]) -> None:
    """Gives connections the ROS types of their schemas, in place: rosbags matches them by name."""
    for index, connection in enumerate(connections):
        connections[index] = connection._replace(msgtype=type_of_schema(connection.msgtype))


def _check_files(bag: Path) -> None:
    """Raises ValueError for a file whose lengths or checksums are wrong, before a library reads it."""
    for file in bag.iterdir():
        if file.suffix in ('.mcap', '.db3', '.zstd') and not file.is_file():
            raise ValueError(f'{file.name} is not a file')
        if file.suffix == '.mcap':
            check_file(file)
        elif file.suffix == '.zstd':
            with file.open('rb') as stream:
                decompress.check_zstd_file(stream, file.stat().st_size)


def _message_decompression(reader: Reader) -> Callable[[bytes], bytes]:
    """What unpacks a message. The reader of rosbags would do it itself, without a limit."""
    metadata = reader.storage.metadata
    if metadata.compression_mode != 'message':
        return bytes
    reader.storage.metadata = metadata._replace(compression_mode=None)
    return decompress.unpack_message


def _refusal(path: Path, place: str, error: Exception) -> GrootRosError:
    """The sentence for an error of a library: the bag, the place, the reason, and what to do."""
    if isinstance(error, OSError):
        reason = error.strerror or error
        return GrootRosError(f'The bag {path} cannot be read ({reason}): check the disk and permissions.')
    text = ' '.join(str(error).split())[:_MAX_REASON_LENGTH].rstrip('.') or type(error).__name__
    where = f' {place}' if place else ''
    return GrootRosError(f'The bag {path} is damaged{where} ({text}). {_advice(path)}')


def _advice(path: Path) -> str:
    return f'Copy it again if you have another copy, or save what is whole: `groot-ros recover {path}`.'


def _check_closed(bag: Path, database: Path) -> None:
    """Raises GrootRosError if SQLite left a journal: the database was not closed."""
    for suffix in ('-journal', '-wal'):
        journal = database.with_name(database.name + suffix)
        if journal.is_file() and journal.stat().st_size:
            raise GrootRosError(
                f'The bag {bag} was not closed: {database.name} has a journal ({journal.name}); run '
                f'`sqlite3 {database} "pragma integrity_check"`, which completes or undoes what was cut off.'
            )
