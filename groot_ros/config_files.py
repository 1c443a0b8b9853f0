# SPDX-License-Identifier: Apache-2.0
"""The user's YAML and JSON: read and checked, with errors that name the file and the key that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from groot_ros.errors import GrootRosError, nearest

if TYPE_CHECKING:
    from pydantic import BaseModel

Model = TypeVar('Model', bound='BaseModel')


# Files that people write have some hundred nodes; an alias bomb has more than memory can hold.
_MAX_NODES = 200_000
# JSON can write half of a character, such as \\ud800, which can be neither printed nor written to a file.
_HALF_CHARACTER = '\\ud'
_MAX_YAML_BYTES = 2 << 20


class _BoundedLoader(yaml.SafeLoader):
    """Refuses a text whose aliases repeat its content too often, before anything is built of it.

    It also refuses half of a character, as parse_json does.
    """

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _count_nodes(node, {}) > _MAX_NODES:
            raise yaml.YAMLError(f'its aliases make more than {_MAX_NODES} entries of it')
        return node

    def construct_scalar(self, node: yaml.Node) -> Any:
        value = super().construct_scalar(node)
        value.encode()
        return value


def _count_nodes(node: yaml.Node, counts: dict[int, int]) -> int:
    """How many nodes the text has when each alias is written out. Raises YAMLError for one within itself."""
    if (known := counts.get(id(node))) is not None:
        if not known:
            raise yaml.YAMLError('an alias stands within what it names')
        return known
    counts[id(node)] = 0
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    counts[id(node)] = 1 + sum(_count_nodes(child, counts) for child in children)
    return counts[id(node)]


def read_yaml(path: Path, what: str) -> Any:
    """The content of a YAML file.

    Raises GrootRosError, which begins with `what` and the path, if it cannot be read.
    """
    try:
        text = read_text(path, _MAX_YAML_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise GrootRosError(f'{what} {path} cannot be read: {reason}.') from error
    return parse_yaml(text, f'{what} {path}')


def read_text(path: Path, max_bytes: int) -> str:
    """The text of a file. Raises OSError, or ValueError for a pipe, a huge file, other bytes than UTF-8."""
    if not S_ISREG(path.stat().st_mode):
        raise ValueError('it is not a file')
    with path.open('rb') as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f'it has more than {max_bytes} bytes')
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError('it is not a text file') from error


def parse_yaml(text: str, what: str) -> Any:
    """The content of a YAML text. Raises GrootRosError, which begins with `what`, if it is not YAML."""
    try:
        return yaml.load(text, Loader=_BoundedLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        place = f' at line {mark.line + 1}' if mark is not None else ''
        reason = getattr(error, 'problem', None) or (str(error).splitlines() or ['it is damaged'])[0]
        raise GrootRosError(f'{what} is not YAML{place}: {reason}.') from error
    except RecursionError as error:
        raise GrootRosError(f'{what} is not YAML: it is nested too deeply.') from error
    except Exception as error:  # the library's constructors of numbers and dates raise whatever Python raises
        raise GrootRosError(f'{what} is not YAML: a value cannot be read ({error}).') from error


def parse_json(text: str | bytes) -> Any:
    """The content of a JSON text. Raises ValueError for everything that is none, deep nesting too."""
    try:
        content = json.loads(text)
        if _HALF_CHARACTER in (text if isinstance(text, str) else text.decode()).lower():
            json.dumps(content, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
        return content
    except RecursionError as error:
        raise ValueError('it is nested too deeply') from error
    except TypeError as error:
        raise ValueError('it is not a text') from error


def checked(model: type[Model], values: Any, what: str) -> Model:
    """The values as a model. Raises GrootRosError with `what` and the first key that is wrong."""
    from pydantic import ValidationError  # `ros2 launch` imports this module where there is no pydantic 2

    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise GrootRosError(f'{what} is wrong{_describe_error(error.errors())}.') from error


def _describe_error(errors: list[Any]) -> str:
    """The key that is wrong, and why: first one that is not known, since it explains one that is missing."""
    unknown = [error for error in errors if error['type'] == 'extra_forbidden']
    missing = [str(error['loc'][-1]) for error in errors if error['type'] == 'missing']
    first = [*unknown, *errors][0]
    key = '.'.join(map(str, first['loc']))
    place = f' at {key}' if key else ''
    if unknown:
        return f'{place}: this key is not known{nearest(str(first["loc"][-1]), missing)}'
    if first['type'] == 'missing':
        return f'{place}: this key is missing'
    if first['type'] == 'model_type':
        return f'{place}: give keys with values, not {type(first["input"]).__name__} {first["input"]!r:.40}'
    return f'{place}: {first["msg"].removeprefix("Value error, ")}'
