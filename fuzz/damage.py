# SPDX-License-Identifier: Apache-2.0
"""Ways to damage bytes and texts. All take a random generator, so that a case can be made again."""

import json
import re
import struct
from collections.abc import Callable

import numpy as np

Random = np.random.Generator
_NUMBERS = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?|true|false|null')
_ODD_TOKENS = (
    'null', 'true', '-1', '0', '1e400', 'NaN', 'Infinity', '""', '"\\u0000"', '[]', '{}', '[[[]]]',
    '"../../etc/passwd"', '123456789012345678901234567890', '"\\ud800"', '{"a": {"b": []}}',
)  # fmt: skip


def flip_bit(random: Random, data: bytes) -> bytes:
    """One bit is another one."""
    damaged = bytearray(data)
    damaged[random.integers(len(data))] ^= 1 << random.integers(8)
    return bytes(damaged)


def flip_bits(random: Random, data: bytes) -> bytes:
    """Up to 20 bits are others."""
    for _ in range(random.integers(1, 21)):
        data = flip_bit(random, data)
    return data


def truncate(random: Random, data: bytes) -> bytes:
    """The end is missing."""
    return data[: random.integers(len(data))]


def torn_tail(random: Random, data: bytes) -> bytes:
    """The end is zeros or noise, as after a power cut."""
    kept = truncate(random, data)
    length = int(random.integers(1, 5000))
    return kept + (bytes(length) if random.random() < 0.5 else random.bytes(length))


def overwrite(random: Random, data: bytes) -> bytes:
    """A block is zeros or noise."""
    at = int(random.integers(len(data)))
    length = min(int(random.integers(1, 5000)), len(data) - at)
    block = bytes(length) if random.random() < 0.5 else random.bytes(length)
    return data[:at] + block + data[at + length :]


def odd_number(random: Random, data: bytes) -> bytes:
    """A number somewhere, perhaps a length or an offset, is extreme."""
    number = _NUMBERS[random.integers(len(_NUMBERS))]
    packed = struct.pack('<Q', number) if random.random() < 0.5 else struct.pack('<I', number % 2**32)
    at = int(random.integers(max(len(data) - len(packed), 1)))
    return data[:at] + packed + data[at + len(packed) :]


def missing_block(random: Random, data: bytes) -> bytes:
    """A block is missing in the middle."""
    first, end = sorted(int(at) for at in random.integers(0, len(data), 2))
    return data[:first] + data[end:]


def repeated_block(random: Random, data: bytes) -> bytes:
    """A block comes twice."""
    first, end = sorted(int(at) for at in random.integers(0, len(data), 2))
    return data[:end] + data[first:]


_YAML_TOKEN = re.compile(r'[^\s:,\[\]{}]+')
_ODD_YAML = (
    *_ODD_TOKENS, '.inf', '.nan', '&a [*a]', '*a', '!!python/object/apply:os.system [true]', '2001-99-99',
    '9' * 5000, "'", '"', '\t', '- -', '<<', '../../etc/passwd', '/dev/zero', '[[]]', '0x' + 'f' * 500,
    '\x00',
    '__import__("os")', '"""', '{}', '1e400', '-1', '1000000000', '\u2028', 'é', '~',
)  # fmt: skip
_BOMB = 'a: &a [x, x]\n' + ''.join(
    f'{name}: &{name} [{", ".join(["*" + before] * 9)}]\n'
    for before, name in zip('abcdefgh', 'bcdefghi', strict=True)
)


def damage_yaml(random: Random, text: str) -> str:
    """Up to three words or values are odd ones, or the text is nested or repeated without end."""
    choice = random.random()
    if choice < 0.05:
        return ('[' if random.random() < 0.5 else '{a: ') * 50_000
    if choice < 0.1:
        return f'{_BOMB}\n{text}'
    if choice < 0.25:
        return damage_bytes(random, text.encode()).decode(errors='replace')
    for _ in range(random.integers(1, 4)):
        tokens = list(_YAML_TOKEN.finditer(text))
        if tokens:
            token = tokens[random.integers(len(tokens))]
            odd = _ODD_YAML[random.integers(len(_ODD_YAML))]
            text = text[: token.start()] + odd + text[token.end() :]
    return text


BYTE_DAMAGES: tuple[Callable[[Random, bytes], bytes], ...] = (
    flip_bit,
    flip_bits,
    truncate,
    torn_tail,
    overwrite,
    odd_number,
    missing_block,
    repeated_block,
)


def damage_bytes(random: Random, data: bytes) -> bytes:
    """One kind of damage, chosen at random."""
    return BYTE_DAMAGES[random.integers(len(BYTE_DAMAGES))](random, data)


def damage_json(random: Random, text: str) -> str:
    """Another value in place of one: of a wrong type, extreme, or not JSON at all; or damaged bytes."""
    tokens = list(_TOKEN.finditer(text))
    choice = random.random()
    if choice < 0.6 and tokens:
        token = tokens[random.integers(len(tokens))]
        odd = _ODD_TOKENS[random.integers(len(_ODD_TOKENS))]
        return text[: token.start()] + odd + text[token.end() :]
    if choice < 0.7:
        return '[' * 100_000
    if choice < 0.8:
        return _ODD_TOKENS[random.integers(len(_ODD_TOKENS))]
    return damage_bytes(random, text.encode()).decode(errors='replace')


def without_key(random: Random, text: str) -> str:
    """A JSON object that lacks one of its first keys."""
    content = json.loads(text)
    del content[list(content)[random.integers(len(content))]]
    return json.dumps(content)
