# SPDX-License-Identifier: Apache-2.0
"""YAML files of the user: read and checked, with errors that name the file and the place in it."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from groot_ros.errors import GrootRosError

Model = TypeVar('Model', bound=BaseModel)


def read_yaml(path: Path, what: str) -> Any:
    """What stands in a file. Raises GrootRosError, with `what` naming its kind, where it cannot be read."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise GrootRosError(
            f'{what} {path} cannot be read: {getattr(error, "strerror", None) or "it is no text"}.'
        ) from error
    return parse_yaml(text, f'{what} {path}')


def parse_yaml(text: str, what: str) -> Any:
    """What a text says; raises GrootRosError where it is not YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        place = f' at line {mark.line + 1}: {getattr(error, "problem", "")}' if mark is not None else ''
        raise GrootRosError(f'{what} is not YAML{place}.') from error


def checked(model: type[Model], values: Any, what: str) -> Model:
    """The values as a model; raises GrootRosError with the first place that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = '.'.join(map(str, first['loc'])) or 'file'
        raise GrootRosError(f'{what} is wrong at {place}: {first["msg"]}.') from error
