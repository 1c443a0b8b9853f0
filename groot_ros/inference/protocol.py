# SPDX-License-Identifier: Apache-2.0
"""GR00T's inference protocol: a request and a reply are one msgpack map each. No pickle, no object arrays.

The form of an array depends on the GR00T version. Requests are written in the form of the server's version.
Replies are read in any form, because a server may answer in another: N1.7 answers N1.5 and N1.6 in its own.
"""

import io
import json
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np

from groot_ros.errors import GrootRosError

GR00T_VERSIONS = ('n1.5', 'n1.6', 'n1.7')
MAX_MESSAGE_BYTES = 64 << 20
# The token of a model server. It is not an option, because every user of a machine can read options.
TOKEN_VARIABLE = 'GROOT_ROS_API_TOKEN'


class ProtocolError(GrootRosError):
    """Bytes that are not a message of this protocol, or a value that it cannot carry."""


@dataclass
class Modality:
    """One modality of a model: `video`, `state`, `action` or `language`.

    `delta_indices` are its steps relative to the present one, `keys` its names. `actions` says for each
    action key how it is represented, in GR00T's words: rep, type, format and state_key.
    """

    delta_indices: list[int]
    keys: list[str]
    actions: list[dict[str, Any]] = field(default_factory=list)


def pack(message: Any, gr00t_version: str) -> bytes:
    """Encodes a message, with arrays and modalities in the form of a GR00T version.

    Raises ProtocolError for a value that cannot be sent, such as an object array.
    """
    return msgpack.packb(message, default=lambda value: _encode(value, gr00t_version))


def unpack(data: bytes) -> Any:
    """Decodes a message of any GR00T version. Raises ProtocolError if it is not one or has object arrays."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(
            f'the message has {len(data) / 1e6:.0f} MB, the maximum is {MAX_MESSAGE_BYTES / 1e6:.0f} MB'
        )
    try:
        return msgpack.unpackb(data, object_hook=_decode, strict_map_key=False)
    except ProtocolError:
        raise
    except Exception as error:  # msgpack has many exceptions for bytes that are not a message
        reason = str(error) or type(error).__name__
        raise ProtocolError(f'the received bytes are not a message of this protocol ({reason})') from error


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
        try:
            return np.load(io.BytesIO(content['as_npy']), allow_pickle=False)
        except (ValueError, OSError, KeyError, TypeError, EOFError) as error:
            raise ProtocolError(f'an array cannot be read ({error})') from error
    if content.get('__ModalityConfig__') or content.get('__ModalityConfig_class__'):
        return _decode_modality(content.get('as_json'))
    return content


def _decode_array(content: dict[Any, Any], is_array: bool) -> Any:
    """An array or number in the form of msgpack-numpy, whose keys are bytes or text."""

    def entry(name: str) -> Any:
        return content.get(name.encode(), content.get(name))

    try:
        type_code = entry('type')
        dtype = np.dtype(type_code if isinstance(type_code, str) else type_code.decode())
        if dtype.hasobject:
            raise ProtocolError('the message has an array of objects, which is refused')
        values = np.frombuffer(entry('data'), dtype)
        return values.reshape(entry('shape')).copy() if is_array else values[0]
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise ProtocolError(f'an array cannot be read ({error})') from error


def _decode_modality(content: Any) -> Modality:
    try:
        values = json.loads(content) if isinstance(content, str) else content
        return Modality(
            list(values['delta_indices']),
            list(values['modality_keys']),
            list(values.get('action_configs') or []),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f'a modality cannot be read ({error})') from error
