# SPDX-License-Identifier: Apache-2.0
"""Files and features of a LeRobot v2.1 dataset in GR00T's flavour: where things lie and what info.json says of them."""

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

CODEBASE_VERSION = 'v2.1'
CHUNK_SIZE = 1000
_NAMES_9D = ['x', 'y', 'z', *(f'r{row}{column}' for row in (1, 2) for column in (1, 2, 3))]
DATA_PATH = 'data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet'
VIDEO_PATH = 'videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4'
VALID, INVALID = VALIDITIES = ('valid', 'invalid')


def data_file(root: Path, episode: int) -> Path:
    """Parquet file of an episode."""
    return root / DATA_PATH.format(episode_chunk=episode // CHUNK_SIZE, episode_index=episode)


def video_file(root: Path, feature: str, episode: int) -> Path:
    """Video file of an episode and a camera, whose feature is such as observation.images.zed_camera."""
    return root / VIDEO_PATH.format(
        episode_chunk=episode // CHUNK_SIZE, episode_index=episode, video_key=feature
    )


def inside(root: Path, file: str) -> Path:
    """A file that a dataset names. Raises ValueError where it lies elsewhere."""
    path = (root / file).resolve()
    if not path.is_relative_to(root.resolve()):
        raise ValueError(f'{file} lies outside of the dataset')
    return path


def modality(embodiment: Embodiment) -> dict[str, Any]:
    """modality.json: where each named part lies in the vectors, and what the videos and annotations are called."""
    annotation, whole = embodiment.annotation, {'start': 0, 'end': 9}
    return {
        'state': {
            **{
                name: {'start': part.start, 'end': part.stop}
                for name, part in embodiment.state_slices.items()
            },
            **({EEF_9D: {**whole, 'original_key': STATE_9D}} if embodiment.eef_9d else {}),
        },
        'action': {
            **{
                field.name: {'start': part.start, 'end': part.stop, 'absolute': field.absolute}
                for field, part in zip(embodiment.action, embodiment.action_slices.values(), strict=True)
            },
            **({EEF_9D: {**whole, 'absolute': True, 'original_key': ACTION_9D}} if embodiment.eef_9d else {}),
        },
        'video': {camera.name: {'original_key': camera.feature} for camera in embodiment.cameras},
        'annotation': {annotation.task: {}, annotation.validity: {}},
    }


def features(embodiment: Embodiment, codec: str = 'h264') -> dict[str, Any]:
    """The `features` of info.json, with the names and video info that LeRobot and GR00T N1.5 read."""
    scalar = {'shape': [1], 'names': None}
    annotation, nine = embodiment.annotation, {'dtype': 'float64', 'shape': [9], 'names': _NAMES_9D}
    return {
        **{
            camera.feature: _video_feature(camera.width, camera.height, embodiment.fps, codec)
            for camera in embodiment.cameras
        },
        STATE_COLUMN: {
            'dtype': 'float64',
            'shape': [embodiment.state_size],
            'names': _names(embodiment.state),
        },
        ACTION_COLUMN: {
            'dtype': 'float64',
            'shape': [embodiment.action_size],
            'names': _names(embodiment.action),
        },
        **({STATE_9D: nine, ACTION_9D: nine} if embodiment.eef_9d else {}),
        **(
            {REWARD: {'dtype': 'float64', **scalar}, DONE: {'dtype': 'bool', **scalar}}
            if embodiment.reward
            else {}
        ),
        'timestamp': {'dtype': 'float64', **scalar},
        **{
            f'annotation.{key}': {'dtype': 'int64', **scalar}
            for key in (annotation.task, annotation.validity)
        },
        **{
            key: {'dtype': 'int64', **scalar}
            for key in ('frame_index', 'episode_index', 'index', 'task_index')
        },
    }


def info(embodiment: Embodiment, codec: str, episodes: int, rows: int, tasks: int) -> dict[str, Any]:
    """info.json of LeRobot v2.1."""
    return {
        'codebase_version': CODEBASE_VERSION,
        'robot_type': embodiment.robot_type,
        'total_episodes': episodes,
        'total_frames': rows,
        'total_tasks': tasks,
        'total_videos': episodes * len(embodiment.cameras),
        'total_chunks': -(-episodes // CHUNK_SIZE),
        'chunks_size': CHUNK_SIZE,
        'fps': embodiment.fps,
        'splits': {'train': f'0:{episodes}'},
        'data_path': DATA_PATH,
        'video_path': VIDEO_PATH,
        'features': features(embodiment, codec),
    }


def write_json(path: Path, content: Any) -> None:
    """Writes one JSON file, indented."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + '\n')


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    """Writes one record a line; GR00T's loader stops at a blank one."""
    path.write_text(''.join(json.dumps(record, ensure_ascii=False) + '\n' for record in records))


def _video_feature(width: int, height: int, fps: float, codec: str) -> dict[str, Any]:
    description = {
        'video.fps': fps, 'video.height': height, 'video.width': width, 'video.channels': 3, 'video.codec': codec,
        'video.pix_fmt': 'yuv420p', 'video.is_depth_map': False, 'has_audio': False,
    }  # fmt: skip
    return {
        'dtype': 'video',
        'shape': [height, width, 3],
        'names': ['height', 'width', 'channel'],
        'info': description,
    }


def _names(fields: Iterable[TopicField]) -> list[str]:
    return [f'{field.name}_{suffix}'.rstrip('_') for field in fields for suffix in _suffixes(field)]


def _suffixes(field: TopicField) -> Iterable[Any]:
    if field.field in ('pose', 'quaternion'):
        return ('x', 'y', 'z', 'qx', 'qy', 'qz', 'qw')[-field.size :]
    return {3: ('x', 'y', 'z'), 1: ('',)}.get(field.size, range(1, field.size + 1))
