# SPDX-License-Identifier: Apache-2.0
"""Refuses observations as NVIDIA's servers do: what is accepted here must not fail there.

It needs only numpy, because it runs in a model's own Python.
"""

from typing import Any

import numpy as np

from groot_ros.inference.protocol import Modality, ProtocolError

# How an array begins in a message; the keys of N1.7 are bytes, or texts from a client that is not Python.
_NPY_MARKER = b'__ndarray_class__'
_ND_MARKERS = (b'\xc4\x02nd\xc3\xc4\x04type', b'\xa2nd\xc3\xa4type')


def check_observation(observation: Any, modalities: dict[str, Modality]) -> None:
    """Checks an observation in the form of N1.6 and N1.7; keys that the model does not want are ignored.

    Raises ProtocolError for a modality or key that is missing, images that are not uint8 (batch, steps,
    height, width, 3), states that are not float32 (batch, steps, size), and language that is not [[text]].
    """
    batches = set()
    for kind, check in (('video', _check_images), ('state', _check_state), ('language', _check_language)):
        wanted = modalities[kind]
        given = observation.get(kind) if isinstance(observation, dict) else None
        if not isinstance(given, dict):
            raise ProtocolError(f'the observation has no map {kind}')
        for key in wanted.keys:
            if key not in given:
                raise ProtocolError(f'the observation has no {kind} {key}')
            check(key, given[key], len(wanted.delta_indices))
            batches.add(len(given[key]))
    if len(batches) > 1:
        raise ProtocolError(f'the observation has batches of different sizes: {sorted(batches)}')


def check_form(request: bytes, gr00t_version: str) -> None:
    """Raises ProtocolError if the arrays of a request have a form that shows a client of another version.

    Such a client could not decode the reply.
    """
    if gr00t_version == 'n1.7' and _NPY_MARKER in request:
        raise ProtocolError(wrong_version(gr00t_version, 'N1.5 or N1.6'))
    if gr00t_version != 'n1.7' and any(marker in request for marker in _ND_MARKERS):
        raise ProtocolError(wrong_version(gr00t_version, 'N1.7'))


def wrong_version(gr00t_version: str, client: str) -> str:
    """What a client of another GR00T version is told."""
    return (
        f'this server answers as GR00T {gr00t_version.upper()}, and the request has the form of {client}: '
        'use a client of its version, or start the server with another --gr00t-version'
    )


def _check_images(key: str, images: Any, steps: int) -> None:
    _check_array(f'video {key}', images, np.uint8, 5, steps, 'batch, steps, height, width, 3')
    if images.shape[-1] != 3:
        raise ProtocolError(f'video {key} has {images.shape[-1]} channels, and 3 are needed')


def _check_state(key: str, state: Any, steps: int) -> None:
    _check_array(f'state {key}', state, np.float32, 3, steps, 'batch, steps, size')


def _check_array(what: str, values: Any, dtype: type, axes: int, steps: int, shape: str) -> None:
    if not isinstance(values, np.ndarray) or values.dtype != dtype:
        found = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise ProtocolError(f'{what} is {found}, and an array of {np.dtype(dtype)} is needed')
    if values.ndim != axes or values.shape[1] != steps:
        raise ProtocolError(
            f'{what} has the shape {values.shape}, and ({shape}) with {steps} steps is needed'
        )


def _check_language(key: str, texts: Any, steps: int) -> None:
    is_nested = isinstance(texts, list) and all(isinstance(entry, list) for entry in texts)
    if not is_nested or not all(len(entry) == steps for entry in texts):
        raise ProtocolError(f'language {key} is no list of lists with {steps} texts')
    if not all(isinstance(text, str) for entry in texts for text in entry):
        raise ProtocolError(f'language {key} has something that is no text')
