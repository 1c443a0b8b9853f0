# SPDX-License-Identifier: Apache-2.0
"""GR00T's inference protocol: one msgpack map a request and a reply, arrays within in the form of the release. No pickle, no objects.

Requests are written in the gr00t_version of the server; replies of every gr00t_version are read, since a server may answer in another one than it
was asked in (N1.7 answers N1.5 and N1.6 in its own).
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
# The token of a model server. Not an option, since everybody on the machine can read those.
TOKEN_VARIABLE = 'GROOT_ROS_API_TOKEN'


class ProtocolError(GrootRosError):
    """Bytes that are no message of this protocol."""


@dataclass
class Modality:
    """What a model takes or gives of one kind: steps relative to now, keys, and for actions how each is meant."""

    delta_indices: list[int]
    keys: list[str]
    actions: list[dict[str, Any]] = field(default_factory=list)


def pack(message: Any, gr00t_version: str) -> bytes:
    """A message with arrays and modalities in a gr00t_version."""
    return msgpack.packb(message, default=lambda value: _encoded(value, gr00t_version))


def unpack(data: bytes) -> Any:
    """A message of any gr00t_version. Raises ProtocolError for what is none, and for arrays of objects."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(
            f'a message of {len(data) / 1e6:.0f} MB came, and at most {MAX_MESSAGE_BYTES / 1e6:.0f} MB are taken'
        )
    try:
        return msgpack.unpackb(data, object_hook=_decoded, strict_map_key=False)
    except ProtocolError:
        raise
    except Exception as error:  # msgpack raises many kinds for bytes that are no message
        raise ProtocolError(
            f'what came is no message of this protocol ({str(error) or type(error).__name__})'
        ) from error


def _encoded(value: Any, gr00t_version: str) -> Any:
    if isinstance(value, Modality):
        return _encoded_modality(value, gr00t_version)
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


def _encoded_modality(value: Modality, gr00t_version: str) -> dict[str, Any]:
    content = {'delta_indices': value.delta_indices, 'modality_keys': value.keys}
    if gr00t_version == 'n1.5':
        return {'__ModalityConfig_class__': True, 'as_json': json.dumps(content)}
    content |= {
        'sin_cos_embedding_keys': None,
        'mean_std_embedding_keys': None,
        'action_configs': value.actions or None,
    }
    return {
        '__ModalityConfig__' if gr00t_version == 'n1.7' else '__ModalityConfig_class__': True,
        'as_json': content,
    }


def _decoded(content: dict[Any, Any]) -> Any:
    nd = content.get(b'nd', content.get('nd'))
    if nd is not None:
        return _array(content, bool(nd))
    if content.get('__ndarray_class__'):
        try:
            return np.load(io.BytesIO(content['as_npy']), allow_pickle=False)
        except (ValueError, OSError, KeyError, TypeError, EOFError) as error:
            raise ProtocolError(f'an array cannot be read ({error})') from error
    if content.get('__ModalityConfig__') or content.get('__ModalityConfig_class__'):
        return _modality(content.get('as_json'))
    return content


def _array(content: dict[Any, Any], is_array: bool) -> Any:
    def of(name: str) -> Any:
        return content.get(name.encode(), content.get(name))

    try:
        kind = np.dtype(of('type') if isinstance(of('type'), str) else of('type').decode())
        if kind.hasobject:
            raise ProtocolError('an array of objects came')
        values = np.frombuffer(of('data'), kind)
        return values.reshape(of('shape')).copy() if is_array else values[0]
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise ProtocolError(f'an array cannot be read ({error})') from error


def _modality(content: Any) -> Modality:
    try:
        values = json.loads(content) if isinstance(content, str) else content
        return Modality(
            list(values['delta_indices']),
            list(values['modality_keys']),
            list(values.get('action_configs') or []),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f'a modality cannot be read ({error})') from error
