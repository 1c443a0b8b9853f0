# SPDX-License-Identifier: Apache-2.0
"""`features` of info.json, and modality.json. The Python file for GR00T is made by modality_config.py."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from groot_ros.embodiment import (
    ACTION_9D,
    ACTION_COLUMN,
    DONE,
    EEF_9D,
    REWARD,
    STATE_9D,
    STATE_COLUMN,
    Embodiment,
    TopicField,
)

CHUNK_SIZE = 1000
_NAMES_9D = ['x', 'y', 'z', *(f'r{row}{column}' for row in (1, 2) for column in (1, 2, 3))]
VALID = 'valid'
INVALID = 'invalid'
VALIDITIES = (VALID, INVALID)


def modality(embodiment: Embodiment) -> dict[str, Any]:
    """Returns modality.json: the slice of each field in its vector, and names of videos and annotations."""
    state: dict[str, Any] = {}
    for name, part in embodiment.state_slices.items():
        state[name] = {'start': part.start, 'end': part.stop}
    action: dict[str, Any] = {}
    for field, part in zip(embodiment.action, embodiment.action_slices.values(), strict=True):
        action[field.name] = {'start': part.start, 'end': part.stop, 'absolute': field.absolute}
    if embodiment.eef_9d:
        whole = {'start': 0, 'end': 9}
        state[EEF_9D] = {**whole, 'original_key': STATE_9D}
        action[EEF_9D] = {**whole, 'absolute': True, 'original_key': ACTION_9D}
    annotation = embodiment.annotation
    return {
        'state': state,
        'action': action,
        'video': {camera.name: {'original_key': camera.feature} for camera in embodiment.cameras},
        'annotation': {annotation.task: {}, annotation.validity: {}},
    }


def features(embodiment: Embodiment, codec: str = 'h264') -> dict[str, Any]:
    """Returns the `features` of info.json, with the names and video info that LeRobot and GR00T N1.5 read."""
    found: dict[str, Any] = {}
    for camera in embodiment.cameras:
        found[camera.feature] = _video_feature(camera.width, camera.height, embodiment.fps, codec)
    found[STATE_COLUMN] = _vector(_names(embodiment.state))
    found[ACTION_COLUMN] = _vector(_names(embodiment.action))
    if embodiment.eef_9d:
        found[STATE_9D] = _vector(_NAMES_9D)
        found[ACTION_9D] = _vector(_NAMES_9D)
    if embodiment.reward:
        found[REWARD] = _scalar('float64')
        found[DONE] = _scalar('bool')
    found['timestamp'] = _scalar('float64')
    annotation = embodiment.annotation
    for key in (annotation.task, annotation.validity):
        found[f'annotation.{key}'] = _scalar('int64')
    for key in ('frame_index', 'episode_index', 'index', 'task_index'):
        found[key] = _scalar('int64')
    return found


def shared_info(embodiment: Embodiment, codec: str, episodes: int, rows: int, tasks: int) -> dict[str, Any]:
    """Returns the entries of info.json that all versions of LeRobot have."""
    return {
        'robot_type': embodiment.robot_type,
        'total_episodes': episodes,
        'total_frames': rows,
        'total_tasks': tasks,
        'chunks_size': CHUNK_SIZE,
        'fps': embodiment.fps,
        'splits': {'train': f'0:{episodes}'},
        'features': features(embodiment, codec),
    }


def write_json(path: Path, content: Any) -> None:
    """Writes an indented JSON file, and the folder it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + '\n')


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    """Writes one record a line and no blank line, at which GR00T's loader stops."""
    path.write_text(''.join(json.dumps(record, ensure_ascii=False) + '\n' for record in records))


def _scalar(dtype: str) -> dict[str, Any]:
    return {'dtype': dtype, 'shape': [1], 'names': None}


def _vector(names: list[str]) -> dict[str, Any]:
    return {'dtype': 'float64', 'shape': [len(names)], 'names': names}


def _video_feature(width: int, height: int, fps: float, codec: str) -> dict[str, Any]:
    info = {
        'video.fps': fps,
        'video.height': height,
        'video.width': width,
        'video.channels': 3,
        'video.codec': codec,
        'video.pix_fmt': 'yuv420p',
        'video.is_depth_map': False,
        'has_audio': False,
    }
    names = ['height', 'width', 'channel']
    return {'dtype': 'video', 'shape': [height, width, 3], 'names': names, 'info': info}


def _names(fields: Iterable[TopicField]) -> list[str]:
    return [f'{field.name}_{suffix}'.rstrip('_') for field in fields for suffix in _suffixes(field)]


def _suffixes(field: TopicField) -> Iterable[Any]:
    """The names of a field's numbers: axes for poses, quaternions and positions, and else counted from 1."""
    if field.field in ('pose', 'quaternion'):
        return ('x', 'y', 'z', 'qx', 'qy', 'qz', 'qw')[-field.size :]
    if field.size == 3:
        return ('x', 'y', 'z')
    return ('',) if field.size == 1 else range(1, field.size + 1)
