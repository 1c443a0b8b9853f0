# SPDX-License-Identifier: Apache-2.0
"""Drafts an embodiment for a LeRobot dataset from its meta/info.json, to be completed by a person."""

import re
from typing import Any

import yaml

from groot_ros.embodiment import ACTION_COLUMN, STATE_COLUMN, Embodiment, parse_embodiment
from groot_ros.errors import GrootRosError

_HEAD = """# Drafted from {where}.
# Check the groups, and whether an action is a commanded value (kind: command) or a difference that the
# dataset holds (kind: delta).
"""
_SIDES = ('left', 'right')
_ARM = 'arm'
_GRIPPER = 'gripper'
_MAX_COMMENT = 200
_MAX_ASPECT_DIFFERENCE = 0.01
_DEPTH_KEYS = ('video.is_depth_map', 'is_depth_map')


def draft_embodiment(info: dict[str, Any], name: str, where: str) -> tuple[Embodiment, str]:
    """Returns an embodiment and its YAML, with the names of the dataset in comments.

    `name` is that of the dataset, `where` says in errors which one it is. Raises GrootRosError for a dataset
    without a rate, numbers of a state or an action, or a video.
    """
    features = info.get('features', {})
    columns = {
        'state': _columns(features, STATE_COLUMN, 'observation.'),
        'action': _columns(features, ACTION_COLUMN, 'action'),
    }
    cameras, notes = _cameras(features)
    needed = {
        'numbers of a state': columns['state'],
        'numbers of an action': columns['action'],
        'video or images': cameras,
        'fps': info.get('fps'),
    }
    for what, found in needed.items():
        if not found:
            raise GrootRosError(f'{where} has no {what} in its meta/info.json: no embodiment can be drafted.')
    lines = [
        _HEAD.format(where=_printable(where)),
        _entry('name', _identifier(name, 'robot')),
        _entry('robot_type', _printable(str(info.get('robot_type') or '')) or _identifier(name, 'robot')),
        _entry('fps', info['fps']),
        '\nstate:',
        *_field_lines(features, columns['state'], {}),
        '\naction:',
        *_field_lines(features, columns['action'], {'kind': 'command'}),
        '\ncameras:',
        *(f'  - {_flow(camera)}' for camera in cameras),
        *(f'# {note}' for note in notes),
    ]
    text = '\n'.join(lines) + '\n'
    return parse_embodiment(text, f'drafted from {where}'), text


def _columns(features: dict[str, Any], usual: str, prefix: str) -> list[str]:
    """The columns of numbers: the usual one, else all that begin like it."""
    numeric = [name for name, feature in features.items() if _is_vector(feature)]
    return [usual] if usual in numeric else [name for name in numeric if name.startswith(prefix)]


def _is_vector(feature: dict[str, Any]) -> bool:
    is_number = str(feature.get('dtype', '')).startswith(('float', 'int'))
    return is_number and len(feature['shape']) == 1 and feature['shape'][0] > 0


def _field_lines(features: dict[str, Any], columns: list[str], more: dict[str, Any]) -> list[str]:
    lines = []
    taken: set[str] = set()
    for column in columns:
        size = features[column]['shape'][0]
        names = _names(features[column].get('names'), size)
        for label, indices in _groups(names, size, column).items():
            place = {'size': size} if len(indices) == size else {'indices': indices}
            field = {'name': _unique(label, taken), **more, 'column': column, **place}
            lines.append(
                f'  - {_flow(field)}{_comment([names[index] for index in indices] if names else [])}'
            )
    return lines


def _names(names: Any, size: int) -> list[str]:
    """The name of each number; empty if the dataset does not name as many. Some name them by a group."""
    if isinstance(names, dict):
        names = [name for group in names.values() if isinstance(group, list) for name in group]
    if not isinstance(names, list) or len(names) != size:
        return []
    return [_printable(str(name)) for name in names]


def _groups(names: list[str], size: int, column: str) -> dict[str, list[int]]:
    """The indices of each group: arms and grippers by side where the names say so, else one group."""
    labels = [_label(name) for name in names]
    if not any(label != _ARM for label in labels):
        return {_identifier(column.rpartition('.')[2], 'numbers'): list(range(size))}
    groups: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        groups.setdefault(label, []).append(index)
    return groups


def _label(name: str) -> str:
    lower = name.lower()
    side = next((f'{side}_' for side in _SIDES if side in lower), '')
    return f'{side}{_GRIPPER if _GRIPPER in lower else _ARM}'


def _cameras(features: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """The videos and images as cameras, and what a person should know of them."""
    cameras: list[dict[str, Any]] = []
    notes = []
    taken: set[str] = set()
    for column, feature in features.items():
        if feature.get('dtype') not in ('video', 'image'):
            continue
        about = feature.get('info') or feature.get('video_info') or {}
        if any(about.get(key) for key in _DEPTH_KEYS):
            notes.append(f'{_printable(column)} is a video of depth, which GR00T does not read.')
            continue
        if about.get('video.codec') == 'av1':
            notes.append(f'{_printable(column)} is AV1, and is encoded again as H.264 without --codec av1.')
        width, height = _size(feature)
        name = _unique(_identifier(column.rpartition('.')[2], 'camera'), taken)
        cameras.append({'name': name, 'column': column, 'width': width, 'height': height})
    return cameras, notes + _make_alike(cameras)


def _make_alike(cameras: list[dict[str, Any]]) -> list[str]:
    """Gives all cameras the size of the first where their aspect ratios differ, which GR00T refuses."""
    aspects = [camera['width'] / camera['height'] for camera in cameras]
    if not aspects or max(aspects) / min(aspects) - 1 <= _MAX_ASPECT_DIFFERENCE:
        return []
    for camera in cameras:
        camera |= {'width': cameras[0]['width'], 'height': cameras[0]['height']}
    return ['The cameras have different aspect ratios, so all are letterboxed to the size of the first.']


def _size(feature: dict[str, Any]) -> tuple[int, int]:
    """Width and height, both even as encoders need them."""
    shape = feature['shape']
    names = feature.get('names')
    if isinstance(names, list) and 'height' in names and 'width' in names and len(names) == len(shape):
        height = shape[names.index('height')]
        width = shape[names.index('width')]
    elif len(shape) == 3 and shape[0] in (1, 3, 4):
        _, height, width = shape
    else:
        height, width = [*shape, 0, 0][:2]
    return width // 2 * 2, height // 2 * 2


def _entry(key: str, value: Any) -> str:
    return yaml.safe_dump({key: value}, allow_unicode=True, width=1_000).strip()


def _flow(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, default_flow_style=True, sort_keys=False, width=1_000_000).strip()


def _comment(names: list[str]) -> str:
    listed = ', '.join(names)[:_MAX_COMMENT]
    return f'    # {listed}' if listed else ''


def _identifier(text: str, otherwise: str) -> str:
    """A text as the name of an embodiment, field or camera."""
    name = re.sub(r'[^A-Za-z0-9_]+', '_', text).strip('_')[:100]
    return name if name[:1].isalpha() else f'{otherwise}_{name}'.rstrip('_')[:100]


def _unique(name: str, taken: set[str]) -> str:
    number = 2
    found = name
    while found in taken:
        found = f'{name}_{number}'
        number += 1
    taken.add(found)
    return found


def _printable(text: str) -> str:
    return ''.join(letter for letter in text if letter.isprintable())
