# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of the small policy: its spec as JSON, and its weights as safetensors in half precision."""

import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from groot_ros.config_files import checked, parse_json, read_text
from groot_ros.errors import GrootRosError
from groot_ros.small_policy.network import SmallNetwork
from groot_ros.small_policy.spec import SPEC_FILE, PolicySpec

WEIGHTS_FILE = 'small_policy.safetensors'
_MAX_SPEC_BYTES = 4 << 20


def save_checkpoint(folder: Path, spec: PolicySpec, weights: dict[str, Tensor]) -> None:
    """Writes a checkpoint; each file is there whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS_FILE, {name: value.half() for name, value in weights.items()})
    part = folder / f'{SPEC_FILE}.part'
    part.write_text(spec.model_dump_json(indent=1) + '\n')
    part.replace(folder / SPEC_FILE)


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes a safetensors file, whole or not at all: also after a loss of power."""
    part = path.with_name(f'{path.name}.part')
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, part)
    with part.open('rb') as file:
        os.fsync(file.fileno())
    part.replace(path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file. Raises GrootRosError if it is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise GrootRosError(f'{path} cannot be read ({error}): use another checkpoint.') from error


def load_checkpoint(folder: Path) -> tuple[PolicySpec, SmallNetwork]:
    """The spec and the network of a checkpoint, in single precision.

    Raises GrootRosError if a file is missing or damaged, or if the weights are not those of the spec.
    """
    path = folder / SPEC_FILE
    try:
        content = parse_json(read_text(path, _MAX_SPEC_BYTES))
    except (OSError, ValueError) as error:
        raise GrootRosError(f'{path} cannot be read ({error}): give the folder of a training run.') from error
    spec = checked(PolicySpec, content, str(path))
    network = SmallNetwork(spec)
    weights = {name: value.float() for name, value in load_tensors(folder / WEIGHTS_FILE).items()}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise GrootRosError(
            f'{folder / WEIGHTS_FILE} does not have the weights that {SPEC_FILE} describes: '
            'the files are of different checkpoints.'
        ) from error
    return spec, network.eval()
