# SPDX-License-Identifier: Apache-2.0
"""A dataset in memory: images as uint8, states and chunks as the network takes them."""

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from groot_ros.config_files import checked
from groot_ros.dataset.meta import DatasetMeta, column_to_array
from groot_ros.embodiment import ACTION_9D, ACTION_COLUMN, STATE_9D, STATE_COLUMN, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.small_policy.spec import POSE_SIZE, CameraSpec, PolicySpec, spec_for
from groot_ros.small_policy.targets import (
    chunks_of,
    is_two_valued,
    normalised,
    range_of,
    relative_chunks,
    sampling_weights,
    text_features,
)
from groot_ros.video.open import open_video


@dataclass
class TrainingData:
    """All rows of a dataset. `images` are (n, height, width, 3) uint8 by camera.

    `states` (n, size) and `chunks` (n, horizon, size) are from -1 to 1; `texts` (n,) are rows of
    `text_table`; `weights` (n,) say how often a row is drawn.
    """

    spec: PolicySpec
    images: dict[str, np.ndarray]
    states: Array
    chunks: Array
    texts: np.ndarray
    text_table: Array
    weights: Array


def load_dataset(root: Path, horizon: int, without: Collection[int] = ()) -> TrainingData:
    """Reads a dataset that groot-ros convert wrote, except the episodes `without`.

    Raises GrootRosError naming what cannot be used.
    """
    meta = DatasetMeta(root)
    embodiment = checked(
        Embodiment, meta.conversion.get('embodiment'), f'The embodiment in {root}/meta/conversion.json'
    )
    features = meta.info['features']
    spec = spec_for(embodiment, horizon, STATE_9D in features and ACTION_9D in features)
    indices = [int(record['episode_index']) for record in meta.episodes]
    indices = [index for index in indices if index not in without]
    if not indices:
        raise GrootRosError(f'{root} has no episodes: convert some first.')
    tables = [meta.rows(index) for index in indices]
    states = np.concatenate([_states(table, embodiment, spec) for table in tables])
    chunks = np.concatenate([_chunks(table, embodiment, spec) for table in tables])
    tasks = np.concatenate([column_to_array(table, 'task_index').astype(int) for table in tables])
    numbers = sorted(meta.tasks)
    spec = with_ranges(spec, states, chunks)
    two_valued = [column for key, part in spec.action_parts() if key.two_valued for column in _columns(part)]
    return TrainingData(
        spec,
        {camera.name: _images(meta, embodiment, camera, indices, tables) for camera in spec.cameras},
        normalised(states[:, None], spec.state_range)[:, 0],
        normalised(chunks, spec.action_range),
        np.searchsorted(numbers, tasks),
        np.array([text_features(meta.tasks[number]) for number in numbers]),
        sampling_weights(chunks[:, :, two_valued]),
    )


def with_ranges(spec: PolicySpec, states: Array, chunks: Array) -> PolicySpec:
    """The spec with the ranges of states (n, size) and chunks (n, horizon, size), and two-valued actions."""
    actions = []
    for key, part in spec.action_parts():
        two_valued = key.size == 1 and is_two_valued(chunks[:, :, part])
        actions.append(key.model_copy(update={'two_valued': two_valued}))
    changes = {
        'action': actions,
        'state_range': range_of(states[:, None]),
        'action_range': range_of(chunks),
    }
    return spec.model_copy(update=changes)


def _columns(part: slice) -> range:
    return range(part.start, part.stop)


def _states(table, embodiment: Embodiment, spec: PolicySpec) -> Array:
    """The state (n, size) in the order of the spec."""
    rows = column_to_array(table, STATE_COLUMN)
    keys = spec.state[1:] if spec.relative else spec.state
    values = [rows[:, embodiment.state_slices[key.name]] for key in keys]
    if spec.relative:
        values.insert(0, column_to_array(table, STATE_9D))
    return np.hstack(values)


def _chunks(table, embodiment: Embodiment, spec: PolicySpec) -> Array:
    """The chunk at each row (n, horizon, size) in the order of the spec."""
    rows = column_to_array(table, ACTION_COLUMN)
    keys = spec.action[1:] if spec.relative else spec.action
    values = [rows[:, embodiment.action_slices[key.name]] for key in keys]
    if not spec.relative:
        return chunks_of(np.hstack(values), spec.horizon)
    chunks = chunks_of(np.hstack([column_to_array(table, ACTION_9D), *values]), spec.horizon)
    return relative_chunks(column_to_array(table, STATE_9D)[:, :POSE_SIZE], chunks)


def _images(
    meta: DatasetMeta, embodiment: Embodiment, camera: CameraSpec, indices: list[int], tables: list
) -> np.ndarray:
    """The images (n, height, width, 3) of a camera in all episodes."""
    feature = next(field.feature for field in embodiment.cameras if field.name == camera.name)
    images = np.empty((sum(map(len, tables)), camera.height, camera.width, 3), np.uint8)
    places = np.split(images, np.cumsum([len(table) for table in tables])[:-1])
    videos = [meta.video_file(feature, index) for index in indices]
    firsts = [meta.first_frame(feature, index) for index in indices]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding and resizing leave Python's lock
        list(pool.map(_decode, videos, firsts, places))
    return images


def _decode(video: Path, first: int, images: np.ndarray) -> None:
    """Fills images (n, height, width, 3) with the frames of a video from number `first` on."""
    height, width = images.shape[1:3]
    count = 0
    try:
        with open_video(video) as container:
            container.streams.video[0].thread_count = 1  # each video has a thread of its own
            for number, frame in enumerate(container.decode(video=0)):
                if number < first:
                    continue
                if count == len(images):
                    break
                pixels = frame.to_ndarray(format='rgb24')
                # The method of the policy's client, so that the network is served what it was trained with.
                images[count] = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
                count += 1
    except (av.FFmpegError, OSError) as error:
        raise GrootRosError(f'{video} cannot be decoded ({error}): convert the dataset again.') from error
    if count < len(images):
        raise GrootRosError(f'{video} has {count} frames where the episode has {len(images)} rows.')
