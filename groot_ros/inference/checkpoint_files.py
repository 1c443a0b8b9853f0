# SPDX-License-Identifier: Apache-2.0
"""Where a checkpoint has its files, and which backend it is for. Needs no library but PyYAML.

So `ros2 launch` and the inspection of a bag can ask without the libraries of models.
"""

from pathlib import Path
from typing import Any

from groot_ros.config_files import parse_json, read_text
from groot_ros.errors import GrootRosError
from groot_ros.inference.backends import GR00T, LEROBOT, SMALL

# groot_ros.small_policy.spec has it too, which needs pydantic.
_SMALL_SPEC_FILE = 'small_policy.json'
_MAX_JSON_BYTES = 64 << 20
_CONFIG_FILES = (
    'processor_config.json',
    'policy_preprocessor.json',
    'experiment_cfg/metadata.json',
    'config.json',
    _SMALL_SPEC_FILE,
)


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder has the configuration of a model."""
    return any(find_file(folder, name) for name in _CONFIG_FILES)


def find_file(folder: Path, name: str) -> Path | None:
    """The file in the checkpoint, in its folder `processor`, or where LeRobot puts it in a run's folder."""
    places = ('', 'processor', 'pretrained_model', 'checkpoints/last/pretrained_model')
    files = (folder / place / name for place in places)
    return next((file for file in files if file.is_file()), None)


def backend_of(folder: Path) -> str:
    """The backend that a checkpoint is for; empty if the folder is no checkpoint that is known.

    Raises GrootRosError if its config.json cannot be read.
    """
    if find_file(folder, _SMALL_SPEC_FILE):
        return SMALL
    config_file = find_file(folder, 'config.json')
    config = read_json_object(config_file) if config_file else {}
    if isinstance(config.get('type'), str) and 'input_features' in config:
        return LEROBOT
    if find_file(folder, 'processor_config.json') or find_file(folder, 'experiment_cfg/metadata.json'):
        return GR00T
    return ''


def read_json_object(path: Path) -> dict[str, Any]:
    """The content of a JSON file of a checkpoint. Raises GrootRosError if it is no object."""
    try:
        content = parse_json(read_text(path, _MAX_JSON_BYTES))
    except (OSError, ValueError) as error:
        raise GrootRosError(f'{path} cannot be read ({error}).') from error
    if not isinstance(content, dict):
        raise GrootRosError(f'{path} is not a JSON object.')
    return content
