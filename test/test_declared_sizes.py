# SPDX-License-Identifier: Apache-2.0
"""Sizes that files and messages declare are checked before memory is taken for them."""

import contextlib
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fuzz.video import access_units, annex_b, with_declared_size
from groot_ros.dataset import meta
from groot_ros.dataset.meta import read_parquet
from groot_ros.errors import GrootRosError
from groot_ros.video.frame import decode_frame
from groot_ros.video.h264 import H264Decoder
from groot_ros.video.mp4 import Mp4Copier, read_frames

STAMP = SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=0))


def compressed(data: bytes) -> SimpleNamespace:
    return SimpleNamespace(header=STAMP, format='jpeg', data=np.frombuffer(data, np.uint8))


def raw(width: int, height: int, step: int, size: int) -> SimpleNamespace:
    content = {'width': width, 'height': height, 'step': step, 'data': bytes(size)}
    return SimpleNamespace(header=STAMP, encoding='rgb8', **content)


def resident_mb() -> float:
    """The largest resident memory of this test so far."""
    status = Path('/proc/self/status').read_text()
    return int(status.split('VmHWM:')[1].split()[0]) / 1024


@pytest.fixture(autouse=True)
def own_memory():
    """Each test has a peak of its own, and leaves no free memory of Arrow to the next one."""
    Path('/proc/self/clear_refs').write_text('5')
    yield
    pa.default_memory_pool().release_unused()


@pytest.mark.parametrize(
    ('width', 'height', 'step'),
    [(2**31, 2**31, 2**31), (4, 2**32 - 1, 12), (2**32 - 1, 1, 12), (4, 4, 2**32 - 1), (4, 5, 12)],
)
def test_an_image_that_declares_more_than_it_has_is_refused(width, height, step):
    with pytest.raises(GrootRosError, match='came with 48 bytes, which is too few'):
        decode_frame(raw(width, height, step, 48))


def png_bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body))

    head = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    lines = zlib.compress(bytes(1 << 16))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', lines) + chunk(b'IEND', b'')


def jpeg_with_size(width: int, height: int) -> bytes:
    data = bytearray(cv2.imencode('.jpg', np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    place = data.index(b'\xff\xc0')
    data[place + 5 : place + 9] = struct.pack('>HH', height, width)
    return bytes(data)


@pytest.mark.parametrize('data', [png_bomb(30_000, 30_000), jpeg_with_size(32_000, 32_000)])
def test_a_compressed_image_that_asks_for_gigabytes_is_refused_before_it_is_decoded(data):
    before_mb = resident_mb()
    with pytest.raises(GrootRosError, match=r'says that it has 3\d000x3\d000 pixels'):
        decode_frame(compressed(data))
    assert resident_mb() - before_mb < 50


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('options', [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]])
def test_compressed_images_of_cameras_are_decoded(suffix, options):
    pixels = np.full((48, 64, 3), 90, np.uint8)
    data = cv2.imencode(suffix, pixels, options if suffix == '.jpg' else [])[1].tobytes()
    assert decode_frame(compressed(data)).size == (64, 48)
    if suffix == '.jpg':  # a comment and padding before the size
        filled = data[:2] + b'\xff\xfe\x00\x06text' + b'\xff' + data[2:]
        assert decode_frame(compressed(filled)).size == (64, 48)


@pytest.mark.parametrize(
    'data', [b'', b'\xff\xd8', b'\xff\xd8\xff\xc0', b'BM' + bytes(60), b'\x89PNG\r\n\x1a\n']
)
def test_what_is_no_jpeg_or_png_is_refused(data):
    with pytest.raises(GrootRosError, match='cannot be decoded as JPEG or PNG'):
        decode_frame(compressed(data))


TEXT = 'x' * (1 << 20)


@pytest.mark.parametrize(
    'column',
    [
        pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array([TEXT])),
        pa.ListArray.from_arrays(
            pa.array([0, 20_000], pa.int32()),
            pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array([TEXT])),
        ),
    ],
)
def test_a_text_that_a_million_rows_repeat_is_refused_before_it_is_written_out(tmp_path, column):
    """20 GB of text in a file of some kilobytes."""
    file = tmp_path / 'bomb.parquet'
    pq.write_table(pa.table({'task': column}), file, compression='zstd', dictionary_pagesize_limit=4 << 20)
    assert file.stat().st_size < 2 << 20
    before_mb = resident_mb()
    with pytest.raises(ValueError, match=r'its column task.* has more than 256 MB of text'):
        read_parquet(file)
    assert resident_mb() - before_mb < 400


def test_text_that_fits_is_read_as_it_is(tmp_path):
    file = tmp_path / 'tasks.parquet'
    texts = [None, 'größer', *(['a' * 5000] * 100_000)]
    nested = pa.array([[text] if text else None for text in texts])
    table = pa.table({'task': texts, 'tasks': nested, 'index': range(len(texts))})
    with pytest.raises(ValueError, match='more than 256 MB of text'):
        pq.write_table(table, file)
        read_parquet(file)
    pq.write_table(table.slice(0, 40_000), file)
    assert read_parquet(file).equals(table.slice(0, 40_000))


def test_images_of_a_file_that_is_large_itself_are_read(tmp_path):
    """LeRobot writes PNG images into parquet: a long episode has more than 256 MB of them."""
    file = tmp_path / 'images.parquet'
    images = [bytes([number]) * (40 << 20) for number in range(7)]
    table = pa.table({'image': images, 'index': range(7)})
    pq.write_table(table, file, compression='none', use_dictionary=False)
    assert read_parquet(file).equals(table)


def test_only_the_columns_that_are_read_are_checked(tmp_path):
    file = tmp_path / 'bomb.parquet'
    bomb = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array([TEXT]))
    table = pa.table({'task': bomb, 'index': range(20_000)})
    pq.write_table(table, file, compression='zstd', dictionary_pagesize_limit=4 << 20)
    assert read_parquet(file, ['index']).num_rows == 20_000


@pytest.mark.parametrize('side', [8192, 16_000, 16_384])
def test_a_video_that_declares_an_absurd_size_takes_no_memory(tmp_path, side):
    """A few hundred bytes of H.264 or HEVC asked for 2 GB: an image of the size, several times."""
    first = with_declared_size(access_units(1)[0], 'h264', side, side)
    before_mb = resident_mb()
    with pytest.raises(GrootRosError, match='the recording is damaged'):
        H264Decoder().decode(0, first)
    with pytest.raises(GrootRosError, match='damaged'):
        Mp4Copier(tmp_path / 'copy.mp4', 10.0).add(first)
    for codec in ('h264', 'hevc'):
        file = tmp_path / f'x.{codec}'
        file.write_bytes(with_declared_size(annex_b(tmp_path, codec), codec, side, side))
        with pytest.raises(GrootRosError, match=r'says that it has|cannot be decoded'):
            list(read_frames(file, [0]))
    assert resident_mb() - before_mb < 250


@pytest.mark.parametrize('codec', ['h264', 'hevc'])
def test_a_video_of_another_size_is_read(tmp_path, codec):
    """The changed parameter sets are what a decoder takes."""
    file = tmp_path / f'x.{codec}'
    file.write_bytes(with_declared_size(annex_b(tmp_path, codec), codec, 64, 64))
    assert next(read_frames(file, [0])).shape == (64, 64, 3)


def test_a_stream_that_becomes_larger_than_its_file_says_is_refused(tmp_path):
    """The file says 64x48, and a parameter set in the middle of it 8192x8192."""
    copier = Mp4Copier(tmp_path / 'x.mp4', 10.0)
    unit = access_units(1)[0]
    copier.add(unit)
    copier.add(with_declared_size(unit, 'h264', 8192, 8192))
    copier.close()
    before_mb = resident_mb()
    with pytest.raises(GrootRosError, match='cannot be decoded'):
        list(read_frames(tmp_path / 'x.mp4', [0, 1]))
    assert resident_mb() - before_mb < 150


@pytest.mark.parametrize(
    ('damage', 'reason'),
    [
        ((b'avc1', b'zzz1'), 'has a codec that FFmpeg does not know'),
        ((b'VideoHandler', b'V\xffdeoHandler'), ''),
    ],
)
def test_a_video_of_no_codec_is_refused_and_one_with_a_broken_title_is_read(tmp_path, damage, reason):
    annex_b(tmp_path, 'h264')
    file = tmp_path / 'seed.mp4'
    data = file.read_bytes()
    assert damage[0] in data
    file.write_bytes(data.replace(*damage))
    if not reason:
        assert next(read_frames(file, [0])).shape == (48, 64, 3)
        return
    with pytest.raises(GrootRosError, match=reason):
        list(read_frames(file, [0]))


def varint(number: int, length: int = 0) -> bytes:
    """A whole number of Thrift's compact protocol, in the shortest form or with a length."""
    number *= 2
    data = bytearray()
    while number > 0x7F or len(data) + 1 < length:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*data, number])


def parquet_of_text(file, **options):
    texts = [bytes([65 + row % 26]) * (1 << 20) for row in range(32)]
    pq.write_table(pa.table({'task': texts}), file, compression='zstd', use_dictionary=False, **options)
    return pq.ParquetFile(file).metadata.row_group(0).column(0)


@pytest.mark.parametrize('options', [{}, {'data_page_version': '2.0'}, {'write_page_index': True}])
def test_a_footer_that_says_less_than_the_pages_have_is_refused(tmp_path, monkeypatch, options):
    """The text of a file of 10 kB came in whole, since the footer said that it has one byte."""
    file = tmp_path / 'x.parquet'
    chunk = parquet_of_text(file, **options)
    monkeypatch.setattr(meta, '_MAX_TEXT_BYTES', 64 << 20)
    assert read_parquet(file).num_rows == 32
    said = varint(chunk.total_uncompressed_size)
    data = file.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], 'little')
    lie = data[:footer] + data[footer:].replace(said, varint(1, len(said)))
    assert lie != data
    file.write_bytes(lie)
    monkeypatch.setattr(meta, '_MAX_TEXT_BYTES', 8 << 20)
    with pytest.raises(ValueError, match=r'pages of its column task have \d+ bytes or more'):
        read_parquet(file)


@pytest.mark.parametrize('size', [b'\xfe\xff\xff\x7f', b'\x89\x80\x80\x00'])  # 134 MB, -5
def test_the_header_of_a_page_that_lies_about_its_size_is_refused(tmp_path, size):
    file = tmp_path / 'x.parquet'
    chunk = parquet_of_text(file)
    data = file.read_bytes()
    place = chunk.data_page_offset + 3  # after two fields of whole numbers and the kind of the page
    length = next(count for count in range(1, 6) if data[place + count - 1] < 0x80)
    assert length == len(size)
    file.write_bytes(data[:place] + size + data[place + length :])
    with pytest.raises(ValueError, match=r'(pages?|page of) .*its column task'):
        read_parquet(file)


def test_pages_that_are_damaged_are_refused_in_a_sentence(tmp_path):
    """Any byte of a header, and any place of the chunk, gives a ValueError or the same table."""
    file = tmp_path / 'x.parquet'
    pq.write_table(pa.table({'task': ['a', 'b', None] * 50, 'index': range(150)}), file)
    data = file.read_bytes()
    for place in range(4, min(len(data) - 8, 400)):
        for value in (0x00, 0x1C, 0x7F, 0xFF):
            file.write_bytes(data[:place] + bytes([value]) + data[place + 1 :])
            with contextlib.suppress(ValueError):
                assert read_parquet(file).num_rows == 150
