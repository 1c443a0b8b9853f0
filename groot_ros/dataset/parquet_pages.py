# SPDX-License-Identifier: Apache-2.0
"""Sizes of the pages of a parquet file, from their headers: the footer of a damaged file may say other ones.

A reader takes as much memory for a page as its header says, before it decompresses it. A header is a struct
of Thrift's compact protocol: github.com/apache/thrift, doc/specs/thrift-compact-protocol.md.
"""

from pathlib import Path
from typing import BinaryIO

import pyarrow.parquet as pq

# What writers may count otherwise in a chunk, such as the headers themselves.
_SLACK_BYTES = 1 << 16
# Statistics in a header may have long texts.
_HEADER_BYTES = 1 << 20
_FIRST_BYTES = 1 << 12
_UNCOMPRESSED, _COMPRESSED = 2, 3
_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(13)
_MAX_DEPTH = 8
_MAX_VARINT_BYTES = 10


def check_pages(path: Path, columns: dict[str, list[pq.ColumnChunkMetaData]]) -> None:
    """Raises ValueError if pages of these columns have more bytes than the footer says, or are not there."""
    size = path.stat().st_size
    with path.open('rb') as file:
        for name, chunks in columns.items():
            for chunk in chunks:
                _check_chunk(file, size, name, chunk)


def _check_chunk(file: BinaryIO, size: int, name: str, chunk: pq.ColumnChunkMetaData) -> None:
    at = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < at:
        at = chunk.dictionary_page_offset
    end = at + chunk.total_compressed_size
    if not 0 <= at <= end <= size:
        raise ValueError(f'its column {name} is not within the file')
    allowed = chunk.total_uncompressed_size + _SLACK_BYTES
    total = 0
    while at < end:
        length, fields = _read_header(file, at, end)
        uncompressed = fields.get(_UNCOMPRESSED, -1)
        compressed = fields.get(_COMPRESSED, -1)
        at += length + compressed
        total += uncompressed
        if uncompressed < 0 or compressed < 0 or at > end:
            raise ValueError(f'a page of its column {name} is damaged')
        if total > allowed:
            raise ValueError(
                f'the pages of its column {name} have {total} bytes or more, and it says that they have '
                f'{chunk.total_uncompressed_size}'
            )


def _read_header(file: BinaryIO, at: int, end: int) -> tuple[int, dict[int, int]]:
    """The length of a page's header, and its whole numbers by the number of their field."""
    for size in (_FIRST_BYTES, _HEADER_BYTES):
        file.seek(at)
        reader = _Reader(file.read(min(size, end - at)))
        try:
            return reader.struct()
        except IndexError:
            continue
    raise ValueError('the header of a page is damaged')


class _Reader:
    """Reads values of Thrift's compact protocol. Raises IndexError where the bytes end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self, depth: int = 0) -> tuple[int, dict[int, int]]:
        """The bytes of the struct, and its whole numbers by field."""
        if depth > _MAX_DEPTH:
            raise ValueError('the header of a page is damaged')
        start = self._at
        numbers: dict[int, int] = {}
        number = 0
        while kind := self._byte():
            number = number + (kind >> 4) if kind >> 4 else self._whole()
            value = self._value(kind & 0x0F, depth)
            if value is not None:
                numbers[number] = value
        return self._at - start, numbers

    def _value(self, kind: int, depth: int) -> int | None:
        """A whole number, or None for what is skipped."""
        if kind in (_TRUE, _FALSE):
            return None
        if kind in (_I16, _I32, _I64):
            return self._whole()
        if kind == _STRUCT:
            self.struct(depth + 1)
        elif kind in (_BYTE, _DOUBLE):
            self._skip(1 if kind == _BYTE else 8)
        elif kind == _BINARY:
            self._skip(self._varint())
        else:  # no header of a page has a list or a map
            raise ValueError('the header of a page is damaged')
        return None

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _skip(self, count: int) -> None:
        if count > len(self._data) - self._at:
            raise IndexError
        self._at += count

    def _varint(self) -> int:
        value = 0
        for place in range(_MAX_VARINT_BYTES):
            byte = self._byte()
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                return value
        raise ValueError('the header of a page is damaged')

    def _whole(self) -> int:
        """A signed number in zigzag form."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
