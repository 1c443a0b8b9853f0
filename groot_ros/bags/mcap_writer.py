# SPDX-License-Identifier: Apache-2.0
"""rosbags' writer of MCAP bags, with what it leaves out and rosbag2 writes: checksums, distribution, hashes.

Without checksums a flipped bit on the disk changes a row or an image, and nobody sees it.
https://mcap.dev/spec: the CRC of a chunk is that of its uncompressed records, the CRC of the summary that of
all bytes from its beginning to the CRC itself.
"""

import re
import struct
from io import BytesIO
from zlib import crc32

from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import Channel, McapWriter, write_channel, write_string

from groot_ros.bags.message_types import schema_name
from groot_ros.bags.rosbag2_metadata import ros_distribution

# From the beginning of a chunk: opcode and length, then start time, end time and size, 8 bytes each.
_CHUNK_CRC = 9 + 3 * 8
# From the end of the file: the magic bytes, and before them the CRC of the summary.
_MAGIC_SIZE = 8
_CRC_SIZE = 4
# From the end of the file: offset of the summary, offset of its groups, CRC, magic bytes.
_SUMMARY_START = -(8 + 8 + _CRC_SIZE + _MAGIC_SIZE)
_DISTRIBUTION_OF_ROSBAGS = re.compile(r'^( *ros_distro:) rosbags$', re.MULTILINE)


class ChecksummedMcap(McapWriter):
    """Writes the CRC of each chunk and of the summary; zero, which rosbags writes, means none.

    Channels have the metadata that rosbag2 writes, and video has the name of its schema that viewers know.
    """

    def add_msgtype(self, connection: Connection) -> None:
        """Writes the schema of a message type."""
        super().add_msgtype(connection._replace(msgtype=schema_name(connection.msgtype)))

    def add_connection(self, connection: Connection, offered_qos_profiles: str) -> None:
        """Writes the channel of a topic, with its quality of service (YAML) and the hash of its type."""
        metadata = BytesIO()
        entries = {'offered_qos_profiles': offered_qos_profiles, 'topic_type_hash': connection.digest}
        for key, value in entries.items():
            write_string(metadata, key)
            write_string(metadata, value)
        schema = schema_name(connection.msgtype)
        channel = Channel(connection.id, schema, connection.topic, 'cdr', metadata.getvalue())
        self.channels.append(channel)
        self.channel_stats[connection.id] = 0
        write_channel(self.chunk.bio, channel, self.schemas)

    def close_chunk(self) -> None:
        """Writes the messages that wait, then their checksum into the place that it has."""
        checksum = crc32(self.chunk.bio.getbuffer())
        start = self.bio.tell()
        super().close_chunk()
        end = self.bio.tell()
        self.bio.seek(start + _CHUNK_CRC)
        self.bio.write(struct.pack('<I', checksum))
        self.bio.seek(end)

    def close(self, version: int, metadata: str) -> None:
        """Writes what follows the messages, and its checksum."""
        super().close(version, _with_distribution(metadata))
        with self.path.open('r+b') as file:
            end = file.seek(_SUMMARY_START, 2) - _SUMMARY_START
            (summary_start,) = struct.unpack('<Q', file.read(8))
            file.seek(summary_start)
            summary = file.read(end - _MAGIC_SIZE - _CRC_SIZE - summary_start)
            file.write(struct.pack('<I', crc32(summary)))


class ChecksummedWriter(Writer):
    """The bag writer of rosbags, with checksums in its MCAP files and the distribution in metadata.yaml."""

    STORAGE_PLUGINS = {StoragePlugin.MCAP: ChecksummedMcap}  # noqa: RUF012 (as in rosbags)

    def close(self) -> None:
        """Writes the index and metadata.yaml."""
        super().close()
        rewritten = self.metapath.with_suffix('.yaml.tmp')
        rewritten.write_text(_with_distribution(self.metapath.read_text()))
        rewritten.replace(self.metapath)


def _with_distribution(metadata: str) -> str:
    """The YAML of a bag's metadata with the running ROS distribution, in place of the name of rosbags."""
    name = ros_distribution() or "''"
    return _DISTRIBUTION_OF_ROSBAGS.sub(rf'\1 {name}', metadata)
