# SPDX-License-Identifier: Apache-2.0
"""Decompression that never makes more bytes than it was told, whatever the data say of themselves."""

import sys
from typing import Any

from lz4.frame import LZ4FrameDecompressor
from rosbags.rosbag2 import storage_mcap

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# Far above what recorders write, 1 to 4 MiB or one large image. A reader holds some copies of a chunk.
MAX_CHUNK_BYTES = 128 << 20
# Of files as a whole: numbers and video hardly shrink, images of one colour do.
_MAX_FILE_RATIO = 100
_SMALL_FILE_BYTES = 1 << 30
_BLOCK = 1 << 20


def unpack_zstd(data: bytes, size: int) -> bytes:
    """The bytes of a zstd frame, at most `size` and one more. Raises ZstdError for damaged ones."""
    return _unpack(zstd.ZstdDecompressor(), data, size)


def unpack_lz4(data: bytes, size: int) -> bytes:
    """The bytes of an lz4 frame, at most `size` and one more. Raises RuntimeError for damaged ones."""
    return _unpack(LZ4FrameDecompressor(), data, size)


def unpack_message(data: bytes) -> bytes:
    """A message that was compressed on its own. Raises ValueError if it is larger than a chunk may be."""
    unpacked = unpack_zstd(data, MAX_CHUNK_BYTES)
    if len(unpacked) > MAX_CHUNK_BYTES:
        raise ValueError(f'a compressed message has more than {MAX_CHUNK_BYTES >> 20} MiB')
    return unpacked


def check_zstd_file(stream: Any, packed_bytes: int) -> None:
    """Raises ValueError if a zstd file would fill the disk: it is unpacked here without being kept."""
    most = max(_MAX_FILE_RATIO * packed_bytes, _SMALL_FILE_BYTES)
    count = 0
    with zstd.open(stream, 'rb') as unpacked:
        while block := unpacked.read(_BLOCK):
            count += len(block)
            if count > most:
                raise ValueError(f'{packed_bytes} compressed bytes hold more than {most} bytes')


def limit_library() -> None:
    """Makes the MCAP reader of rosbags use these functions: its own take no notice of the declared size."""
    storage_mcap.DECOMPRESSORS.update(zstd=unpack_zstd, lz4=unpack_lz4)


def _unpack(decompressor: Any, data: bytes, size: int) -> bytes:
    # One byte more than declared, so that a longer content is seen and refused.
    unpacked = decompressor.decompress(data, max_length=size + 1)
    if not decompressor.eof and len(unpacked) <= size:
        raise ValueError('compressed data break off')
    return unpacked
