# SPDX-License-Identifier: Apache-2.0
"""Where a checkpoint has its files. Imports no library, so that a bag can be inspected without zmq."""

from pathlib import Path

_CONFIG_FILES = (
    'processor_config.json',
    'policy_preprocessor.json',
    'experiment_cfg/metadata.json',
    'config.json',
    'small_policy.json',
)


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder has the configuration of a model."""
    return any(find_file(folder, name) for name in _CONFIG_FILES)


def find_file(folder: Path, name: str) -> Path | None:
    """The file in the checkpoint, in its folder `processor`, or where LeRobot puts it in a run's folder."""
    places = ('', 'processor', 'pretrained_model', 'checkpoints/last/pretrained_model')
    files = (folder / place / name for place in places)
    return next((file for file in files if file.is_file()), None)
