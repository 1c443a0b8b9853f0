# SPDX-License-Identifier: Apache-2.0
"""GR00T's inference protocol: a request and a reply are one msgpack map each. No pickle, no object arrays.

The form of an array depends on the GR00T version. Requests are written in the form of the server's version.
Replies are read in any form, because a server may answer in another: N1.7 answers N1.5 and N1.6 in its own.
"""

import io
import json
import math
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np

from groot_ros.errors import GrootRosError

MAX_MESSAGE_BYTES = 64 << 20
# A chunk of 1000 steps with 132 numbers has 1 MB.
MAX_REPLY_BYTES = 4 << 20
# Empty lists and maps are one byte in a message and hundred in memory. Images and states come as bytes.
_MAX_ITEMS = 100_000
_MAX_LIST = 10_000
_MAX_MAP = 1_000
_MAX_TEXT = 100_000
_MAX_STEPS = 1_000
_MAX_NAME = 200
_ENVELOPE_TEXT = 4096
_ENVELOPE_KEYS = 16
# In the data of get_modality_config, which NVIDIA's servers ignore: our own client asks for extra_info too.
EXTRA_INFO = 'extra_info'
# In the options of get_action, for a server of ours that takes it: the time of the observation.
TICK_NS = 'tick_ns'
# The token of a model server. It is not an option, because every user of a machine can read options.
TOKEN_VARIABLE = 'GROOT_ROS_API_TOKEN'


class ProtocolError(GrootRosError):
    """Bytes that are not a message of this protocol, or a value that it cannot carry."""


@dataclass
class Modality:
    """One modality of a model: `video`, `state`, `action` or `language`.

    `delta_indices` are its steps relative to the present one, `keys` its names. `actions` says for each
    action key how it is represented, in GR00T's words: rep, type, format and state_key. `gr00t_version` is
    that of the form which it came in, empty for one that did not come in a message.
    """

    delta_indices: list[int]
    keys: list[str]
    actions: list[dict[str, Any]] = field(default_factory=list)
    gr00t_version: str = field(default='', compare=False)


def pack(message: Any, gr00t_version: str) -> bytes:
    """Encodes a message, with arrays and modalities in the form of a GR00T version.

    Raises ProtocolError for a value that cannot be sent, such as an object array.
    """
    return msgpack.packb(message, default=lambda value: _encode(value, gr00t_version))


@dataclass
class Envelope:
    """A request whose data are still bytes, empty if it has none."""

    endpoint: str = 'get_action'
    token: str = ''
    data: bytes = b''


def unpack(data: bytes, max_bytes: int = MAX_MESSAGE_BYTES) -> Any:
    """Decodes a message of any GR00T version. Raises ProtocolError if it is not one or has object arrays.

    It takes little more memory than the bytes, whatever they are.
    """
    _check_length(data, max_bytes)
    items = _ItemCount()
    try:
        return msgpack.unpackb(
            data,
            object_hook=items.decode_map,
            list_hook=items.count_list,
            strict_map_key=False,
            max_str_len=_MAX_TEXT,
            max_array_len=_MAX_LIST,
            max_map_len=_MAX_MAP,
            max_ext_len=0,
        )
    except Exception as error:  # msgpack and numpy have many exceptions for bytes that are not a message
        raise _not_a_message(error) from error


def open_envelope(request: bytes) -> Envelope:
    """Reads all of a request but its data, which are skipped: a token is checked before they are decoded.

    Raises ProtocolError if it is not a map with text for its endpoint and token.
    """
    _check_length(request, MAX_MESSAGE_BYTES)
    unpacker = msgpack.Unpacker(
        max_buffer_size=MAX_MESSAGE_BYTES,
        max_str_len=_ENVELOPE_TEXT,
        max_bin_len=_ENVELOPE_TEXT,
        max_array_len=0,
        max_map_len=0,
        max_ext_len=0,
    )
    try:
        unpacker.feed(request)
        return _read_envelope(unpacker, request)
    except Exception as error:  # as in unpack
        raise _not_a_message(error) from error


def _read_envelope(unpacker: msgpack.Unpacker, request: bytes) -> Envelope:
    envelope = Envelope()
    count = unpacker.read_map_header()
    if count > _ENVELOPE_KEYS:
        raise ProtocolError('it has too many keys')
    for _ in range(count):
        key = unpacker.unpack()
        start = unpacker.tell()
        if key == 'endpoint':
            envelope.endpoint = _text(unpacker.unpack(), 'endpoint')
        elif key == 'api_token':
            envelope.token = _text(unpacker.unpack() or '', 'api_token')
        else:
            unpacker.skip()
            if key == 'data':
                envelope.data = request[start : unpacker.tell()]
    return envelope


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ProtocolError(f'{name} is not a text')
    return value


def _check_length(data: bytes, max_bytes: int) -> None:
    if len(data) > max_bytes:
        raise ProtocolError(
            f'the message has {len(data) / 1e6:.0f} MB, the maximum is {max_bytes / 1e6:.0f} MB'
        )


def _not_a_message(error: Exception) -> ProtocolError:
    reason = (str(error) or type(error).__name__)[:_MAX_NAME]
    return ProtocolError(f'the received bytes are not a message of this protocol ({reason})')


class _ItemCount:
    """Counts the items of a message while it is decoded, and refuses one with too many."""

    def __init__(self) -> None:
        self._count = 0

    def count_list(self, content: list[Any]) -> list[Any]:
        """Returns a list as it is."""
        self._add(len(content))
        return content

    def decode_map(self, content: dict[Any, Any]) -> Any:
        """Returns the array, the modality or the map that a map of the message is."""
        self._add(len(content))
        return _decode(content)

    def _add(self, items: int) -> None:
        self._count += 1 + items
        if self._count > _MAX_ITEMS:
            raise ProtocolError(f'it has more than {_MAX_ITEMS} items')


def _encode(value: Any, gr00t_version: str) -> Any:
    if isinstance(value, Modality):
        return _encode_modality(value, gr00t_version)
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if not isinstance(value, np.ndarray) or value.dtype.hasobject:
        raise ProtocolError(f'{type(value).__name__} cannot be sent')
    if gr00t_version == 'n1.7':
        array = np.ascontiguousarray(value)
        return {
            b'nd': True,
            b'type': array.dtype.str,
            b'kind': b'',
            b'shape': list(value.shape),
            b'data': array.tobytes(),
        }
    file = io.BytesIO()
    np.save(file, value, allow_pickle=False)
    return {'__ndarray_class__': True, 'as_npy': file.getvalue()}


def _encode_modality(value: Modality, gr00t_version: str) -> dict[str, Any]:
    content = {'delta_indices': value.delta_indices, 'modality_keys': value.keys}
    if gr00t_version == 'n1.5':
        return {'__ModalityConfig_class__': True, 'as_json': json.dumps(content)}
    content |= {
        'sin_cos_embedding_keys': None,
        'mean_std_embedding_keys': None,
        'action_configs': value.actions or None,
    }
    marker = '__ModalityConfig__' if gr00t_version == 'n1.7' else '__ModalityConfig_class__'
    return {marker: True, 'as_json': content}


def _decode(content: dict[Any, Any]) -> Any:
    nd = content.get(b'nd', content.get('nd'))
    if nd is not None:
        return _decode_array(content, bool(nd))
    if content.get('__ndarray_class__'):
        return _decode_npy(content['as_npy'])
    if content.get('__ModalityConfig__'):
        return _decode_modality(content.get('as_json'), 'n1.7')
    if content.get('__ModalityConfig_class__'):
        text_or_map = content.get('as_json')
        return _decode_modality(text_or_map, 'n1.5' if isinstance(text_or_map, str) else 'n1.6')
    return content


def _decode_array(content: dict[Any, Any], is_array: bool) -> Any:
    """An array or number in the form of msgpack-numpy, whose keys are bytes or text."""

    def entry(name: str) -> Any:
        return content.get(name.encode(), content.get(name))

    type_code = entry('type')
    dtype = np.dtype(type_code if isinstance(type_code, str) else type_code.decode())
    shape = entry('shape') if is_array else [1]
    array = _array_of(entry('data'), dtype, tuple(shape))
    return array.copy() if is_array else array[0]


def _decode_npy(data: bytes) -> np.ndarray:
    """An array in the form of `np.save`. numpy's reader trusts the length in the header."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, is_fortran, dtype = read_header(file)
    values = data[file.tell() :]
    if is_fortran:
        return _array_of(values, dtype, shape[::-1]).T.copy()
    return _array_of(values, dtype, shape).copy()


def _array_of(data: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """The array of some bytes. Raises ProtocolError unless they are as many numbers or texts as it says."""
    if dtype.kind not in 'biufUS' or dtype.itemsize == 0:
        raise ProtocolError(f'an array has the type {dtype}, which is refused')
    if not all(isinstance(length, int) and 0 <= length <= MAX_MESSAGE_BYTES for length in shape):
        raise ProtocolError(f'an array has the shape {shape} and {len(data)} bytes')
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ProtocolError(f'an array has the shape {shape} and {len(data)} bytes')
    return np.frombuffer(data, dtype).reshape(shape)


def _decode_modality(content: Any, gr00t_version: str) -> Modality:
    values = json.loads(content) if isinstance(content, str) else content
    steps = _checked_list(values['delta_indices'], 'delta_indices', int)
    if not all(-_MAX_STEPS <= step <= _MAX_STEPS for step in steps):
        raise ProtocolError(f'delta_indices has a step beyond {_MAX_STEPS}')
    keys = _checked_list(values['modality_keys'], 'modality_keys', str)
    if not all(key.isprintable() and 0 < len(key) <= _MAX_NAME for key in keys):
        raise ProtocolError('modality_keys has a key that is no name')
    if len(set(keys)) < len(keys) or len(set(steps)) < len(steps):
        raise ProtocolError('a modality has a key or a step twice')
    actions = _checked_list(values.get('action_configs') or [], 'action_configs', dict)
    return Modality(steps, keys, actions, gr00t_version)


def _checked_list(values: Any, name: str, kind: type) -> list[Any]:
    if not isinstance(values, list) or len(values) > _MAX_STEPS or {type(value) for value in values} - {kind}:
        raise ProtocolError(f'{name} is not a list of at most {_MAX_STEPS} {kind.__name__}')
    return values
