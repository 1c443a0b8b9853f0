# SPDX-License-Identifier: Apache-2.0
"""The options of a profile: read from text, and checked before the first process starts."""

from dataclasses import Field
from pathlib import Path
from typing import Any

from groot_ros.config_files import read_yaml
from groot_ros.errors import GrootRosError

_TRUE = ('true', '1', 'yes', 'on')
_FALSE = ('false', '0', 'no', 'off')
_MAX_PORT = 65_535


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
