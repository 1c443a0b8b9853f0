# SPDX-License-Identifier: Apache-2.0
"""Videos whose stream declares another size than its images have, or that are damaged."""

import io
import sys
from pathlib import Path

import av
import numpy as np

from fuzz.damage import damage_bytes
from fuzz.target import Target
from groot_ros.errors import GrootRosError
from groot_ros.video.frame import VideoFrame
from groot_ros.video.h264 import H264Decoder, H264Encoder
from groot_ros.video.mp4 import Mp4Copier, encode_mp4, read_frames
from groot_ros.video.span import VideoSpan

_START_CODE = b'\x00\x00\x01'
_H264_SPS = 7
_HEVC_SPS = 33
_SIZES = (16, 2048, 4096, 8192, 16_000, 16_384, 65_536)
_CODECS = ('h264', 'hevc')


def with_declared_size(stream: bytes, codec: str, width: int, height: int) -> bytes:
    """The stream (Annex B) with another size, a multiple of 16, in each of its sequence parameter sets."""
    units = stream.split(_START_CODE)
    return _START_CODE.join(_changed_unit(unit, codec, width, height) for unit in units)


def _changed_unit(unit: bytes, codec: str, width: int, height: int) -> bytes:
    if (
        not unit
        or (unit[0] & 0x1F if codec == 'h264' else unit[0] >> 1)
        != {
            'h264': _H264_SPS,
            'hevc': _HEVC_SPS,
        }[codec]
    ):
        return unit
    bits = _Bits(unit.replace(b'\x00\x00\x03', b'\x00\x00'))
    if codec == 'h264':
        bits.skip(8 + 24)  # of the unit, profile and level
        bits.golomb()
        bits.golomb()
        if bits.golomb() == 0:  # how pictures are ordered
            bits.golomb()
        bits.golomb()
        bits.skip(1)
        bits.replace(width // 16 - 1, height // 16 - 1)
    else:
        bits.skip(16 + 8 + 96)  # of the unit, its layers, profile and level
        bits.golomb()
        bits.golomb()
        bits.replace(width, height)
    return _escaped(bits.bytes())


def _escaped(unit: bytes) -> bytes:
    """The unit with the bytes that keep start codes out of it."""
    escaped = bytearray()
    zeros = 0
    for byte in unit:
        if zeros >= 2 and byte <= 3:
            escaped.append(3)
            zeros = 0
        escaped.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(escaped)


class _Bits:
    """Bits with numbers of variable length (Exp-Golomb, ITU-T H.264, 9.1)."""

    def __init__(self, data: bytes) -> None:
        self._text = ''.join(f'{byte:08b}' for byte in data)
        self._at = 0

    def skip(self, count: int) -> None:
        self._at += count

    def golomb(self) -> int:
        zeros = self._text.index('1', self._at) - self._at
        start = self._at + zeros
        self._at = start + zeros + 1
        return int(self._text[start : self._at], 2) - 1

    def replace(self, *numbers: int) -> None:
        """Puts these in the place of the next numbers."""
        start = self._at
        for _ in numbers:
            self.golomb()
        coded = ''.join('0' * ((number + 1).bit_length() - 1) + f'{number + 1:b}' for number in numbers)
        self._text = self._text[:start] + coded + self._text[self._at :]
        self._at = start + len(coded)

    def bytes(self) -> bytes:
        """The data until the last 1, which ends a unit."""
        text = self._text[: self._text.rindex('1') + 1]
        text += '0' * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, 'big')


def access_units(count: int = 4) -> list[bytes]:
    """H.264 as the recorder writes it, of 64 x 48 pixels."""
    encoder = H264Encoder(64, 48, 10.0)
    return [encoder.encode(frame) for frame in _frames(count)]


def _frames(count: int) -> list[VideoFrame]:
    return [VideoFrame(0, np.full((48, 64, 3), 40 * number, np.uint8), 'rgb24') for number in range(count)]


def annex_b(folder: Path, codec: str, count: int = 4) -> bytes:
    """A stream without a container, as a demuxer of FFmpeg reads it."""
    encode_mp4(_frames(count), folder / 'seed.mp4', (64, 48), 10.0, codec)
    output = io.BytesIO()
    with av.open(str(folder / 'seed.mp4')) as source, av.open(output, 'w', format=codec) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return output.getvalue()


class Videos(Target):
    """Videos as access units of bags and as files."""

    name = 'video'
    modules = ('groot_ros.video.span',)

    def prepare(self, seeds: Path) -> None:
        """Writes a stream of each codec, and one as MP4."""
        for codec in _CODECS:
            (seeds / codec).write_bytes(annex_b(seeds, codec))
            (seeds / f'{codec}.mp4').write_bytes((seeds / 'seed.mp4').read_bytes())

    def run_case(self, random: np.random.Generator, seeds: Path, folder: Path) -> int:
        """Changes the size that a stream declares, or its bytes, and reads it in one of the ways."""
        codec = _CODECS[random.integers(2)]
        width, height = (int(_SIZES[number]) for number in random.integers(len(_SIZES), size=2))
        changes_size = random.random() < 0.6
        file = folder / f'x.{codec}'
        file.write_bytes((seeds / codec).read_bytes())
        if changes_size:
            file.write_bytes(with_declared_size(file.read_bytes(), codec, width, height))
        elif random.random() < 0.5:
            file = folder / 'x.mp4'
            file.write_bytes(damage_bytes(random, (seeds / f'{codec}.mp4').read_bytes()))
        else:
            file.write_bytes(damage_bytes(random, file.read_bytes()))
        try:
            if codec == 'h264' and random.random() < 0.5:
                _read_units(random, folder, (width, height) if changes_size else None)
            elif random.random() < 0.5:
                print(len(list(read_frames(file, range(3)))))
            else:
                print(VideoSpan(file, 0.0, 3, 10.0).write(folder / 'new.mp4', (64, 48), 'h264'))
        except GrootRosError as error:
            print(str(error)[:500], file=sys.stderr)
            return 1
        return 0


def _read_units(random: np.random.Generator, folder: Path, size: tuple[int, int] | None) -> None:
    """As a conversion reads the messages of a bag: some are copied, some are decoded."""
    units = access_units()
    damaged = int(random.integers(2))
    if size is None:
        units[damaged] = damage_bytes(random, units[damaged])
    else:
        units[0] = with_declared_size(units[0], 'h264', *size)
    if random.random() < 0.5:
        copier = Mp4Copier(folder / 'copy.mp4', 10.0)
        for unit in units:
            copier.add(unit)
        copier.close()
        return
    decoder = H264Decoder()
    for unit in units:
        decoder.decode(0, unit)
