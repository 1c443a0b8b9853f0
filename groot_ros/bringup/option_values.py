# SPDX-License-Identifier: Apache-2.0
"""The options of a profile: read from text, and checked before the first process starts.

`ros2 launch` runs this with the system's Python: it needs no library but PyYAML.
"""

import json
import re
from dataclasses import Field
from pathlib import Path
from typing import Any

from groot_ros.config_files import read_yaml
from groot_ros.errors import GrootRosError
from groot_ros.inference.backends import BACKENDS
from groot_ros.inference.checkpoint_files import backend_of
from groot_ros.path_kind import describe_path, is_dataset
from groot_ros.supervised_process import find_program

_TRUE = ('true', '1', 'yes', 'on')
_FALSE = ('false', '0', 'no', 'off')
_MAX_PORT = 65_535
_NAMESPACE = re.compile(r'/?([A-Za-z_]\w*/)*([A-Za-z_]\w*)?', re.ASCII)
_HOST = re.compile(r'[\w.:%-]+', re.ASCII)


def read_option(option: Field, text: str) -> Any:
    """The text of a launch argument in the type of the option.

    Raises GrootRosError, with the option's name, for a text of another type: `sim:=ture` must not quietly
    start the drivers of the real robot.
    """
    if isinstance(option.default, bool):
        return _read_bool(option.name, text)
    if isinstance(option.default, int):
        return _read_int(option.name, text)
    return text


def check_parameter_file(path: str) -> None:
    """Raises GrootRosError if a ROS parameter file does not exist, cannot be read or is no mapping."""
    content = read_yaml(Path(path), 'The parameter file')
    if not isinstance(content, dict):
        raise GrootRosError(
            f'The parameter file {path} is no mapping: it begins with the name of a node, or with /**.'
        )


def check_number(name: str, value: int, minimum: int, maximum: int | None = None) -> None:
    """Raises GrootRosError if the value of an option is out of its inclusive range."""
    if value < minimum:
        raise GrootRosError(f'The option {name} is {value}: give at least {minimum}.')
    if maximum is not None and value > maximum:
        raise GrootRosError(f'The option {name} is {value}: give at most {maximum}.')


def check_port(name: str, value: int) -> None:
    """Raises GrootRosError if the value of an option is no TCP port."""
    check_number(name, value, 1, _MAX_PORT)


def check_checkpoint(path: str, policy: str) -> None:
    """Raises GrootRosError if a folder is no checkpoint, or one for another backend than the policy's."""
    folder = Path(path).expanduser()
    backend = backend_of(folder) if folder.is_dir() else ''
    if not backend:
        labels = ', '.join(info.label for info in BACKENDS.values())
        raise GrootRosError(
            f'The option checkpoint is {path}, which {describe_path(folder)}: '
            f'give the folder of a checkpoint ({labels}).'
        )
    if policy in BACKENDS and policy != backend:
        raise GrootRosError(
            f'The option checkpoint is {path}, which is for the policy {backend}, '
            f'and the option policy is {policy}: choose the policy {backend}, or another checkpoint.'
        )


def check_dataset(path: str, episode: int) -> None:
    """Raises GrootRosError if a folder is no dataset, or if it does not have an episode."""
    folder = Path(path).expanduser()
    if not is_dataset(folder):
        raise GrootRosError(
            f'The option dataset is {path}, which {describe_path(folder)}: '
            'give the folder of a converted dataset.'
        )
    count = _episodes_of(folder)
    if count is not None and episode >= count:
        raise GrootRosError(f'The option episode is {episode}, and {path} has the episodes 0 to {count - 1}.')


def check_python(path: str) -> None:
    """Raises GrootRosError if there is no program of this path or name that this user may run."""
    given = Path(path).expanduser()
    if find_program(path) is None:
        reason = 'is a file that cannot be executed' if given.is_file() else describe_path(given)
        raise GrootRosError(
            f'The option policy_python is {path}, which {reason}: '
            'give the path of an interpreter, such as /opt/gr00t/.venv/bin/python.'
        )


def check_namespace(name: str) -> None:
    """Raises GrootRosError if a text is no ROS namespace."""
    if not _NAMESPACE.fullmatch(name) or '__' in name:
        raise GrootRosError(
            f'The option namespace is {name!r}: '
            'give letters, digits and single underscores, such as cell_1 or lab/cell_1.'
        )


def check_prefix(prefix: str) -> None:
    """Raises GrootRosError if frame_ids cannot begin with a text."""
    if prefix.startswith('/') or any(letter.isspace() for letter in prefix):
        raise GrootRosError(
            f'The option tf_prefix is {prefix!r}: give it without a slash at its start and spaces.'
        )


def check_host(name: str, host: str) -> None:
    """Raises GrootRosError if the value of an option can be neither an address nor a name of a computer."""
    if not _HOST.fullmatch(host):
        raise GrootRosError(
            f'The option {name} is {host!r}: give an address, such as 192.168.1.100, or a name.'
        )


def check_output_folder(path: str) -> None:
    """Raises GrootRosError if a folder can never be made there, because a file is in its place."""
    folder = Path(path).expanduser()
    for place in (folder, *folder.parents):
        if place.is_dir():
            return
        if place.exists():
            raise GrootRosError(
                f'The option output_dir is {path}, and {place} is a file: choose another folder.'
            )


def check_output_file(name: str, path: str) -> None:
    """Raises GrootRosError if a file cannot be made, because its folder does not exist."""
    file = Path(path).expanduser()
    if file.is_dir():
        raise GrootRosError(f'The option {name} is {path}, which is a folder: give the name of a file in it.')
    if not file.parent.is_dir():
        raise GrootRosError(
            f'The option {name} is {path}, and the folder {file.parent} does not exist: '
            'make it, or choose another.'
        )


def _episodes_of(dataset: Path) -> int | None:
    """The number of episodes that a dataset says it has; None where it does not say so."""
    try:
        count = json.loads((dataset / 'meta' / 'info.json').read_bytes())['total_episodes']
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # the policy server, which reads all of it, says what is wrong
    return count if isinstance(count, int) else None


def _read_bool(name: str, text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise GrootRosError(
        f'The argument {name}:={text} is neither true nor false: write {name}:=true or false.'
    )


def _read_int(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise GrootRosError(f'The argument {name}:={text} is no whole number.') from None
