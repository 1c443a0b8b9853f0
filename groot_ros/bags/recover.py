# SPDX-License-Identifier: Apache-2.0
"""Rebuilds a bag whose recorder was killed or lost power, or whose file is damaged, from its whole chunks."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from mcap.records import Channel, Chunk, McapRecord, Message, Schema
from mcap.stream_reader import breakup_chunk

from groot_ros.bags import mcap_file
from groot_ros.bags.decompress import unpack_lz4, unpack_zstd
from groot_ros.bags.episode_info import parse_info
from groot_ros.bags.folder_lock import is_being_recorded
from groot_ros.bags.message_types import EPISODE_INFO_TOPIC, STRING_TYPE, deserialized, type_of_schema
from groot_ros.bags.reader import EpisodeBag
from groot_ros.bags.rosbag2_metadata import parse_profiles
from groot_ros.bags.topic_types import learn_type
from groot_ros.bags.writer import EpisodeWriter
from groot_ros.errors import GrootRosError

# Endings of the folders that `recover_bag` leaves next to the bag: the damaged one, and an unfinished one.
LEFT_BY_RECOVERY = ('.torn', '.recovering')
_UNPACK = {'zstd': unpack_zstd, 'lz4': unpack_lz4, '': lambda data, size: data}


@dataclass
class Recovered:
    """What was saved: the new bag, the number of its messages, and the last log time in ns."""

    path: Path
    messages: int
    last_ns: int


def recover_bag(path: Path) -> Recovered:
    """Rewrites a bag folder in place; the damaged one is kept next to it as NAME.torn.

    All chunks before the first damaged one are saved. What follows it is not: video cannot be decoded
    without the packets before. Raises GrootRosError if the folder is not a damaged bag, or if nothing can be
    saved.
    """
    path = path.resolve()
    file = _damaged_file(path)
    torn = path.with_name(f'{path.name}.torn')
    if torn.exists():
        raise GrootRosError(f'{torn} exists already, from an earlier recovery: move it away.')
    rebuilt = path.with_name(f'{path.name}.recovering')
    shutil.rmtree(rebuilt, ignore_errors=True)
    try:
        recovered = _rewrite(file, rebuilt)
    except BaseException:
        shutil.rmtree(rebuilt, ignore_errors=True)
        raise
    path.rename(torn)
    _move_bag(rebuilt, path)
    return Recovered(path, recovered.messages, recovered.last_ns)


def _damaged_file(path: Path) -> Path:
    """The file of a damaged bag. Raises GrootRosError if there is not one, or if the bag is whole."""
    if is_being_recorded(path.parent):
        raise GrootRosError(
            f'A recorder still writes to {path.parent}: stop it before you recover a bag in there.'
        )
    files = sorted(path.glob('*.mcap'))
    if len(files) != 1 or not files[0].is_file():
        raise GrootRosError(
            f'{path} has {len(files)} .mcap files: give the folder of one damaged bag, which has one.'
        )
    if _is_whole(path):
        raise GrootRosError(f'The bag {path} is complete: there is nothing to recover.')
    return files[0]


def _is_whole(path: Path) -> bool:
    """Whether every message of a bag can be read."""
    try:
        with EpisodeBag(path) as bag:
            for _ in bag.all_messages():
                pass
    except GrootRosError:
        return False
    return True


def _move_bag(source: Path, target: Path) -> None:
    """Renames a bag folder, its file, and the name of the file in metadata.yaml."""
    source.rename(target)
    (target / f'{source.name}.mcap').rename(target / f'{target.name}.mcap')
    metadata = target / 'metadata.yaml'
    metadata.write_text(metadata.read_text().replace(f'{source.name}.mcap', f'{target.name}.mcap'))


def whole_messages(file: Path) -> Iterator[tuple[Channel, str, Message]]:
    """Channel, message type and record of each message of an MCAP file before the first damage.

    Reading ends without an error where the file was cut off, and at a chunk that is damaged.
    """
    channels: dict[int, Channel] = {}
    schemas: dict[int, Schema] = {}
    for record in _whole_records(file):
        if isinstance(record, Schema):
            schemas[record.id] = record
        elif isinstance(record, Channel):
            channels[record.id] = record
        elif isinstance(record, Message):
            channel = channels.get(record.channel_id)
            if channel is None or channel.schema_id not in schemas:
                return
            yield channel, type_of_schema(schemas[channel.schema_id].name), record


def _whole_records(file: Path) -> Iterator[McapRecord]:
    with file.open('rb') as stream:
        for record in mcap_file.whole_records(stream, file.stat().st_size):
            if record.opcode == mcap_file.DATA_END:
                return
            if record.opcode != mcap_file.CHUNK:
                continue
            try:
                records = _chunk_records(stream, record)
            except Exception:  # of any library: a damaged chunk has whatever content
                return
            yield from records


def _chunk_records(stream: BinaryIO, record: mcap_file.Record) -> list[McapRecord]:
    """The records of a chunk. Raises errors of many types for a damaged one."""
    header = mcap_file.read_chunk_header(stream, record)
    content = _UNPACK[header.compression](stream.read(header.packed_size), header.size)
    if len(content) != header.size or header.crc not in (0, crc32(content)):
        raise ValueError('the size or checksum is wrong')
    chunk = Chunk('', content, header.end_ns, header.start_ns, 0, header.size)
    return breakup_chunk(chunk)


def _rewrite(file: Path, target: Path) -> Recovered:
    writer: EpisodeWriter | None = None
    count = 0
    last_ns = 0
    for channel, msgtype, message in whole_messages(file):
        topic = channel.topic
        if writer is None:
            namespace = topic.removesuffix(EPISODE_INFO_TOPIC)
            last_ns = message.log_time
            writer = EpisodeWriter(target, _info(topic, message), namespace, began_ns=last_ns)
            continue
        if not learn_type(msgtype):
            break
        if topic not in writer.topics:
            writer.add_topic(topic, msgtype, parse_profiles(channel.metadata.get('offered_qos_profiles', '')))
        writer.write(topic, msgtype, message.log_time, message.data)
        count += 1
        last_ns = max(last_ns, message.log_time)
    if writer is None:
        raise GrootRosError(f'{file} has no complete chunk, so nothing can be recovered: delete the folder.')
    writer.close({'outcome': 'interrupted', 'recovered': True}, ended_ns=last_ns)
    return Recovered(target, count, last_ns)


def _info(topic: str, message: Message) -> dict:
    if not topic.endswith(f'/{EPISODE_INFO_TOPIC}'):
        raise GrootRosError(
            f'The first topic is {topic}, not {EPISODE_INFO_TOPIC}, so this bag is not from groot_ros: '
            'use `ros2 bag reindex`.'
        )
    return parse_info(deserialized(message.data, STRING_TYPE, topic).data)
