# SPDX-License-Identifier: Apache-2.0
"""The user's YAML files: read and checked, with errors that name the file and the key that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from groot_ros.errors import GrootRosError

if TYPE_CHECKING:
    from pydantic import BaseModel

Model = TypeVar('Model', bound='BaseModel')


def read_yaml(path: Path, what: str) -> Any:
    """The content of a YAML file.

    Raises GrootRosError, which begins with `what` and the path, if it cannot be read.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise GrootRosError(f'{what} {path} cannot be read: {error.strerror or error}.') from error
    except UnicodeDecodeError as error:
        raise GrootRosError(f'{what} {path} cannot be read: it is not a text file.') from error
    return parse_yaml(text, f'{what} {path}')


def parse_yaml(text: str, what: str) -> Any:
    """The content of a YAML text. Raises GrootRosError, which begins with `what`, if it is not YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        place = f' at line {mark.line + 1}: {getattr(error, "problem", "")}' if mark is not None else ''
        raise GrootRosError(f'{what} is not YAML{place}.') from error


def checked(model: type[Model], values: Any, what: str) -> Model:
    """The values as a model. Raises GrootRosError with `what` and the first key that is wrong."""
    from pydantic import ValidationError  # `ros2 launch` imports this module where there is no pydantic 2

    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = '.'.join(map(str, first['loc'])) or 'file'
        raise GrootRosError(f'{what} is wrong at {key}: {first["msg"]}.') from error
