# SPDX-License-Identifier: Apache-2.0
"""rosbags' writer of MCAP bags, with the checksums that it leaves out.

Without them a flipped bit on the disk changes a row or an image, and nobody sees it.
https://mcap.dev/spec: the CRC of a chunk is that of its uncompressed records, the CRC of the summary that of
all bytes from its beginning to the CRC itself.
"""

import struct
from zlib import crc32

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter

# From the beginning of a chunk: opcode and length, then start time, end time and size, 8 bytes each.
_CHUNK_CRC = 9 + 3 * 8
# From the end of the file: the magic bytes, and before them the CRC of the summary.
_MAGIC_SIZE = 8
_CRC_SIZE = 4
# From the end of the file: offset of the summary, offset of its groups, CRC, magic bytes.
_SUMMARY_START = -(8 + 8 + _CRC_SIZE + _MAGIC_SIZE)


class ChecksummedMcap(McapWriter):
    """Writes the CRC of each chunk and of the summary; zero, which rosbags writes, means none."""

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
        super().close(version, metadata)
        with self.path.open('r+b') as file:
            end = file.seek(_SUMMARY_START, 2) - _SUMMARY_START
            (summary_start,) = struct.unpack('<Q', file.read(8))
            file.seek(summary_start)
            summary = file.read(end - _MAGIC_SIZE - _CRC_SIZE - summary_start)
            file.write(struct.pack('<I', crc32(summary)))


class ChecksummedWriter(Writer):
    """The bag writer of rosbags, with checksums in its MCAP files."""

    STORAGE_PLUGINS = {StoragePlugin.MCAP: ChecksummedMcap}  # noqa: RUF012 (as in rosbags)
