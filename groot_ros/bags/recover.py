# SPDX-License-Identifier: Apache-2.0
"""Rebuilds a bag whose recorder was killed or lost its power: every whole chunk is read, the torn rest is left."""

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

# Endings of what `recover_bag` leaves next to the bag: the damaged folder, or one that it was rebuilding when it was stopped.
LEFT_BY_RECOVERY = ('.torn', '.recovering')


@dataclass
class Recovered:
    """What was saved: the new bag, its messages, and the log time of the last one."""

    path: Path
    messages: int
    last_ns: int


def recover_bag(path: Path) -> Recovered:
    """Rewrites the bag folder in place; the torn file stays beside it as NAME.torn. Raises GrootRosError where nothing can be saved."""
    path = path.resolve()
    if is_being_recorded(path.parent):
        raise GrootRosError(
            f'A recorder still writes to {path.parent}: stop it before a bag in there is recovered.'
        )
    files = sorted(path.glob('*.mcap'))
    if len(files) != 1:
        raise GrootRosError(f'{path} holds {len(files)} .mcap files: give the folder of one torn bag.')
    if (path / 'metadata.yaml').exists():
        raise GrootRosError(f'The bag {path} is whole: there is nothing to recover.')
    rebuilt = path.with_name(f'{path.name}.recovering')
    shutil.rmtree(rebuilt, ignore_errors=True)
    try:
        recovered = _rewrite(files[0], rebuilt)
    except BaseException:
        shutil.rmtree(rebuilt, ignore_errors=True)
        raise
    path.rename(path.with_name(f'{path.name}.torn'))
    rebuilt.rename(path)
    (path / f'{rebuilt.name}.mcap').rename(path / f'{path.name}.mcap')
    metadata = path / 'metadata.yaml'
    metadata.write_text(metadata.read_text().replace(f'{rebuilt.name}.mcap', f'{path.name}.mcap'))
    return Recovered(path, recovered.messages, recovered.last_ns)


def whole_messages(file: Path) -> Iterator[tuple[str, str, Message]]:
    """Topic, type and record of each message that can still be read."""
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
    writer, count, last_ns = None, 0, 0
    for topic, kind, message in whole_messages(file):
        if writer is None:
            writer = EpisodeWriter(
                target, _info(topic, kind, message), topic.removesuffix(EPISODE_INFO_TOPIC)
            )
            continue
        writer.write(topic, kind, message.log_time, message.data)
        count, last_ns = count + 1, max(last_ns, message.log_time)
    if writer is None:
        raise GrootRosError(f'{file} holds no whole chunk: nothing can be recovered, delete the folder.')
    writer.close({'outcome': 'unknown', 'recovered': True})
    return Recovered(target, count, last_ns)


def _info(topic: str, kind: str, message: Message) -> dict:
    if not topic.endswith(f'/{EPISODE_INFO_TOPIC}'):
        raise GrootRosError(
            f'{topic} stands first where {EPISODE_INFO_TOPIC} should: this bag is not of groot_ros, use `ros2 bag reindex`.'
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
