# SPDX-License-Identifier: Apache-2.0
"""Embodiment files as plain YAML: where they are, and what their `base` gives them. Nothing is checked here.

`ros2 launch` reads the cameras with this module: it runs with the system's Python, which has no pydantic 2.
"""

from pathlib import Path
from typing import Any

from groot_ros.config_files import read_yaml
from groot_ros.errors import GrootRosError, choose
from groot_ros.resources import share_directory


def camera_sizes(name_or_path: str) -> dict[str, tuple[int, int]]:
    """Width and height in pixels of an embodiment's cameras, by their image topics.

    Raises GrootRosError where a camera has none.
    """
    path = embodiment_path(name_or_path)
    what = f'The embodiment {path}'
    values = with_bases(read_yaml(path, 'The embodiment'), what)
    try:
        return {
            str(camera['topic']): (int(camera['width']), int(camera['height']))
            for camera in values['cameras']
        }
    except (KeyError, TypeError, ValueError) as error:
        raise GrootRosError(
            f'{what} is wrong at cameras: give each of them a topic, a width and a height.'
        ) from error


def embodiment_path(name_or_path: str) -> Path:
    """The YAML file of an embodiment, which is given by its path or by its name in config/embodiments."""
    path = Path(name_or_path)
    if path.suffix in ('.yaml', '.yml'):
        return path
    folder = share_directory() / 'config' / 'embodiments'
    names = sorted(file.stem for file in folder.glob('*.yaml'))
    choose('embodiment', name_or_path, names, 'or give the path of a YAML file')
    return folder / f'{name_or_path}.yaml'


def with_bases(values: Any, what: str) -> Any:
    """The content of an embodiment file, merged into that of its `base`, if it has one."""
    bases: list[str] = []
    while isinstance(values, dict) and 'base' in values:
        base = values.pop('base')
        if not isinstance(base, str):
            raise GrootRosError(f'{what} is wrong at base: give the name or the file of an embodiment.')
        if base in bases:
            raise GrootRosError(f'{what} is its own base, through {base}: remove one of the `base` keys.')
        bases.append(base)
        values = _merged(read_yaml(embodiment_path(base), 'The embodiment'), values)
    return values


def _merged(base: Any, changes: Any) -> Any:
    """`base` with the values of `changes`.

    Mappings are merged, entries of lists by their `name`; anything else is replaced.
    """
    if isinstance(base, dict) and isinstance(changes, dict):
        changed = {key: _merged(base.get(key), value) for key, value in changes.items()}
        return {**base, **changed}
    if _has_named_entries(base) and _has_named_entries(changes):
        merged = {entry['name']: entry for entry in base}
        for entry in changes:
            merged[entry['name']] = _merged(merged.get(entry['name']), entry)
        return list(merged.values())
    return changes


def _has_named_entries(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(entry, dict) and isinstance(entry.get('name'), str) for entry in value)
