# SPDX-License-Identifier: Apache-2.0
"""Rebuilds a bag whose recorder was killed or lost power, from its complete chunks."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mcap.exceptions import McapError
from mcap.records import Channel, Chunk, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk

from groot_ros.bags.folder_lock import is_being_recorded
from groot_ros.bags.message_types import EPISODE_INFO_TOPIC, STRING_TYPE, typestore
from groot_ros.bags.writer import EpisodeWriter
from groot_ros.errors import GrootRosError

# Endings of the folders that `recover_bag` leaves next to the bag: the damaged one, and an unfinished one.
LEFT_BY_RECOVERY = ('.torn', '.recovering')


@dataclass
class Recovered:
    """What was saved: the new bag, the number of its messages, and the last log time in ns."""

    path: Path
    messages: int
    last_ns: int


def recover_bag(path: Path) -> Recovered:
    """Rewrites a bag folder in place; the damaged one is kept next to it as NAME.torn.

    Raises GrootRosError if the folder is not a damaged bag, or if nothing can be saved.
    """
    path = path.resolve()
    if is_being_recorded(path.parent):
        raise GrootRosError(
            f'A recorder still writes to {path.parent}: stop it before you recover a bag in there.'
        )
    files = sorted(path.glob('*.mcap'))
    if len(files) != 1:
        raise GrootRosError(
            f'{path} has {len(files)} .mcap files: give the folder of one damaged bag, which has one.'
        )
    if (path / 'metadata.yaml').exists():
        raise GrootRosError(f'The bag {path} is complete: there is nothing to recover.')
    rebuilt = path.with_name(f'{path.name}.recovering')
    shutil.rmtree(rebuilt, ignore_errors=True)
    try:
        recovered = _rewrite(files[0], rebuilt)
    except BaseException:
        shutil.rmtree(rebuilt, ignore_errors=True)
        raise
    path.rename(path.with_name(f'{path.name}.torn'))
    _move_bag(rebuilt, path)
    return Recovered(path, recovered.messages, recovered.last_ns)


def _move_bag(source: Path, target: Path) -> None:
    """Renames a bag folder, its file, and the name of the file in metadata.yaml."""
    source.rename(target)
    (target / f'{source.name}.mcap').rename(target / f'{target.name}.mcap')
    metadata = target / 'metadata.yaml'
    metadata.write_text(metadata.read_text().replace(f'{source.name}.mcap', f'{target.name}.mcap'))


def whole_messages(file: Path) -> Iterator[tuple[str, str, Message]]:
    """Topic, message type and record of each message of an MCAP file that can be read.

    Reading ends without an error where the file was cut off.
    """
    channels: dict[int, Channel] = {}
    schemas: dict[int, Schema] = {}
    for record in _records(file):
        if isinstance(record, Schema):
            schemas[record.id] = record
        elif isinstance(record, Channel):
            channels[record.id] = record
        elif isinstance(record, Message):
            channel = channels[record.channel_id]
            yield channel.topic, schemas[channel.schema_id].name, record


def _rewrite(file: Path, target: Path) -> Recovered:
    writer: EpisodeWriter | None = None
    count = 0
    last_ns = 0
    for topic, msgtype, message in whole_messages(file):
        if writer is None:
            writer = EpisodeWriter(
                target, _info(topic, msgtype, message), topic.removesuffix(EPISODE_INFO_TOPIC)
            )
            continue
        writer.write(topic, msgtype, message.log_time, message.data)
        count += 1
        last_ns = max(last_ns, message.log_time)
    if writer is None:
        raise GrootRosError(f'{file} has no complete chunk, so nothing can be recovered: delete the folder.')
    writer.close({'outcome': 'unknown', 'recovered': True})
    return Recovered(target, count, last_ns)


def _info(topic: str, msgtype: str, message: Message) -> dict:
    if not topic.endswith(f'/{EPISODE_INFO_TOPIC}'):
        raise GrootRosError(
            f'The first topic is {topic}, not {EPISODE_INFO_TOPIC}, so this bag is not from groot_ros: '
            'use `ros2 bag reindex`.'
        )
    return json.loads(typestore().deserialize_cdr(message.data, STRING_TYPE).data)


def _records(file: Path) -> Iterator[object]:
    with file.open('rb') as stream:
        records = StreamReader(stream, emit_chunks=True, record_size_limit=None).records
        while True:
            try:
                record = next(records)
            except (StopIteration, McapError, EOFError, ValueError):
                return  # the torn end
            if isinstance(record, Chunk):
                yield from breakup_chunk(record)
            else:
                yield record
