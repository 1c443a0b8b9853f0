# SPDX-License-Identifier: Apache-2.0
"""The records of an MCAP file, and whether their lengths and checksums are right: https://mcap.dev/spec.

A length is compared with the file before anything is read, so that no number in a file makes a reader
allocate more than the file can hold.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from groot_ros.bags.decompress import MAX_CHUNK_BYTES

MAGIC = b'\x89MCAP0\r\n'
FOOTER, MESSAGE, CHUNK, CHUNK_INDEX, ATTACHMENT, DATA_END = 0x02, 0x05, 0x06, 0x08, 0x09, 0x0F
_HEADER = struct.Struct('<BQ')
_CHUNK_FIELDS = struct.Struct('<QQQII')
_FOOTER_FIELDS = struct.Struct('<QQI')
_FIRST_PRIVATE_OPCODE = 0x80
# A reader keeps all chunks that overlap in time.
_MAX_OVERLAP_BYTES = 2 * MAX_CHUNK_BYTES
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Record:
    """A record that lies in the file as a whole: opcode, and offset and length of its content."""

    opcode: int
    start: int
    length: int

    @property
    def end(self) -> int:
        """The offset of the next record."""
        return self.start + self.length


@dataclass(frozen=True)
class ChunkHeader:
    """What comes before the messages of a chunk: log times in ns, sizes in bytes, checksum (0: none)."""

    start_ns: int
    end_ns: int
    size: int
    crc: int
    compression: str
    packed_size: int


def whole_records(file: BinaryIO, size: int) -> Iterator[Record]:
    """The records of a file of `size` bytes after its magic bytes, up to the first that is not whole."""
    at = len(MAGIC)
    while at + _HEADER.size <= size:
        file.seek(at)
        opcode, length = _HEADER.unpack(file.read(_HEADER.size))
        record = Record(opcode, at + _HEADER.size, length)
        if record.end > size or not (FOOTER - 1 <= opcode <= DATA_END or opcode >= _FIRST_PRIVATE_OPCODE):
            return
        yield record
        at = record.end


def read_chunk_header(file: BinaryIO, record: Record) -> ChunkHeader:
    """The header of a chunk; `file` is at the data afterwards. Raises ValueError for impossible sizes."""
    file.seek(record.start)
    start_ns, end_ns, size, crc, name_length = _CHUNK_FIELDS.unpack(_read(file, _CHUNK_FIELDS.size))
    packed_size = record.length - _CHUNK_FIELDS.size - name_length - 8
    if packed_size < 0:
        raise ValueError(f'the chunk at byte {record.start} has a wrong length')
    name = _read(file, name_length).decode(errors='replace')
    (declared,) = struct.unpack('<Q', _read(file, 8))
    if declared != packed_size or (not name and size != packed_size):
        raise ValueError(f'the chunk at byte {record.start} has a wrong length')
    if size > MAX_CHUNK_BYTES:
        raise ValueError(
            f'the chunk at byte {record.start} declares {size} bytes, and at most {MAX_CHUNK_BYTES} are read'
        )
    return ChunkHeader(start_ns, end_ns, size, crc, name, packed_size)


def check_file(path: Path) -> None:
    """Raises ValueError, which names the place, for wrong lengths, magic bytes or checksums of an MCAP file.

    The checksums of chunks are left to the reader, which needs their content anyway.
    """
    size = path.stat().st_size
    with path.open('rb') as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f'{path.name} does not begin as an MCAP file')
        chunks: dict[int, tuple[Record, ChunkHeader]] = {}
        indexes: list[Record] = []
        end = len(MAGIC)
        for record in whole_records(file, size - len(MAGIC)):
            end = record.end
            if record.opcode == CHUNK:
                chunks[record.start - _HEADER.size] = (record, read_chunk_header(file, record))
            elif record.opcode == CHUNK_INDEX:
                indexes.append(record)
            else:
                _check_record(file, record)
        file.seek(end)
        if end + len(MAGIC) != size or file.read() != MAGIC:
            raise ValueError(f'{path.name} is damaged or ends at byte {end} of {size}')
        _check_index(file, chunks, indexes)
        _check_overlap([header for _, header in chunks.values()])


def _check_record(file: BinaryIO, record: Record) -> None:
    if record.opcode == MESSAGE and record.length > MAX_CHUNK_BYTES:
        raise ValueError(f'the message at byte {record.start} has {record.length} bytes')
    if record.opcode == ATTACHMENT:
        _check_crc(file, record.start, record.end - 4, 'attachment')
    elif record.opcode == DATA_END:
        _check_crc(file, 0, record.start - _HEADER.size, 'data section', at=record.start)
    elif record.opcode == FOOTER:
        _check_footer(file, record)


def _check_footer(file: BinaryIO, record: Record) -> None:
    if record.length != _FOOTER_FIELDS.size:
        raise ValueError('the footer has a wrong length')
    file.seek(record.start)
    summary_start, _, _ = _FOOTER_FIELDS.unpack(file.read(_FOOTER_FIELDS.size))
    if summary_start > record.start:
        raise ValueError('the footer names a summary behind the end of the file')
    if summary_start:
        _check_crc(file, summary_start, record.end - 4, 'summary')


def _check_crc(file: BinaryIO, start: int, end: int, what: str, at: int | None = None) -> None:
    """Compares the checksum at `end`, or `at`, with that of the bytes from start to end; zero means none."""
    file.seek(end if at is None else at)
    (expected,) = struct.unpack('<I', _read(file, 4))
    if not expected:
        return
    file.seek(start)
    crc = 0
    for left in range(end - start, 0, -_BLOCK):
        crc = crc32(_read(file, min(left, _BLOCK)), crc)
    if crc != expected:
        raise ValueError(f'the checksum of the {what} at byte {start} is wrong')


def _check_index(
    file: BinaryIO, chunks: dict[int, tuple[Record, ChunkHeader]], indexes: list[Record]
) -> None:
    """The index, if there is one, must lead to each chunk: a reader passes over those that it lacks."""
    found = set()
    for index in indexes:
        file.seek(index.start)
        start_ns, end_ns, offset, length, channels = struct.unpack('<QQQQI', _read(file, 36))
        if offset not in chunks:
            raise ValueError(f'the index names a chunk at byte {offset}, where there is none')
        record, header = chunks[offset]
        file.seek(channels + 8, 1)
        (name_length,) = struct.unpack('<I', _read(file, 4))
        file.seek(name_length, 1)
        sizes = struct.unpack('<QQ', _read(file, 16))
        same_times = (start_ns, end_ns) == (header.start_ns, header.end_ns)
        same_sizes = sizes == (header.packed_size, header.size) and length == record.end - offset
        if not same_times or not same_sizes:
            raise ValueError(f'the index of the chunk at byte {offset} differs from the chunk')
        found.add(offset)
    if indexes and found != set(chunks):
        raise ValueError(f'the index lacks {len(chunks) - len(found)} of {len(chunks)} chunks')


def _check_overlap(headers: list[ChunkHeader]) -> None:
    """Raises ValueError for chunks that overlap in time and are too large together."""
    changes = [(header.start_ns, header.size) for header in headers]
    changes += [(max(header.start_ns, header.end_ns) + 1, -header.size) for header in headers]
    held = 0
    for _, change in sorted(changes):
        held += change
        if held > _MAX_OVERLAP_BYTES:
            raise ValueError(
                f'chunks of more than {_MAX_OVERLAP_BYTES >> 20} MiB overlap in time: sort the bag first'
            )


def _read(file: BinaryIO, length: int) -> bytes:
    """Exactly `length` bytes of a file. Raises ValueError where it ends before."""
    content = file.read(length)
    if len(content) != length:
        raise ValueError(f'{length} bytes are expected where the file ends')
    return content
