# SPDX-License-Identifier: Apache-2.0
"""The options of a profile, read from the texts of launch arguments."""

from dataclasses import Field
from typing import Any

from groot_ros.errors import GrootRosError

_TRUE = ('true', '1', 'yes', 'on')
_FALSE = ('false', '0', 'no', 'off')


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
