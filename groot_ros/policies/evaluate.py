# SPDX-License-Identifier: Apache-2.0
"""Open-loop evaluation: compares a policy's chunks with the recorded actions of a dataset."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from groot_ros.dataset.meta import DatasetMeta, column_to_array
from groot_ros.embodiment import ACTION_COLUMN, STATE_COLUMN, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.policies.policy import Observation, Policy
from groot_ros.policies.recorded_actions import RecordedActions, recorded_episode
from groot_ros.video.mp4 import read_frames


@dataclass
class Errors:
    """The errors of one action key: mean square and mean absolute error (H,) of each chunk, by its steps."""

    squares: list[Array] = field(default_factory=list)
    absolutes: list[Array] = field(default_factory=list)

    def add(self, predicted: Array, recorded: Array) -> None:
        """Adds the errors of one chunk (H, size)."""
        difference = predicted - recorded
        self.squares.append(np.mean(difference**2, axis=1))
        self.absolutes.append(np.mean(np.abs(difference), axis=1))

    def as_dict(self) -> dict[str, Any]:
        """MSE and MAE over all steps of all chunks, and for each step of a chunk; some chunks are shorter."""
        return {
            'mse': float(np.mean(np.concatenate(self.squares))),
            'mae': float(np.mean(np.concatenate(self.absolutes))),
            'mse_by_step': _mean_by_step(self.squares),
            'mae_by_step': _mean_by_step(self.absolutes),
        }


def _mean_by_step(chunks: list[Array]) -> list[float]:
    """The mean of each step over the chunks that have this step."""
    steps = max(len(chunk) for chunk in chunks)
    return [float(np.mean([chunk[step] for chunk in chunks if step < len(chunk)])) for step in range(steps)]


@dataclass
class Evaluation:
    """The result of an evaluation: errors by action key, and the number of chunks that were compared.

    A pose has two keys, see `RecordedActions.pairs`; `uncompared` are keys of the policy that nothing
    recorded is known for. Of the first episode it keeps, by key, what was recorded (n, size), and what chunks
    predicted (H, size), with the row that each begins at.
    """

    policy: str
    chunks: int = 0
    keys: dict[str, Errors] = field(default_factory=dict)
    uncompared: set[str] = field(default_factory=set)
    recorded: dict[str, Array] = field(default_factory=dict)
    predicted: dict[str, list[tuple[int, Array]]] = field(default_factory=dict)

    def add(self, chunk: dict[str, Array], recorded: RecordedActions) -> None:
        """Adds the errors of one chunk, given what was recorded (H or more) from its first step on.

        Raises GrootRosError, and adds nothing, if the chunk does not have the shape of the actions.
        """
        for name, (predicted, actual) in recorded.pairs(chunk).items():
            self.keys.setdefault(name, Errors()).add(predicted, actual)
        self.uncompared |= recorded.uncompared(chunk)
        self.chunks += 1

    def keep(self, row: int, chunk: dict[str, Array], recorded: RecordedActions) -> None:
        """Keeps a chunk that begins at `row`, and all that was recorded in its episode, to draw them."""
        for name, (predicted, _) in recorded.since(row).pairs(chunk).items():
            self.predicted.setdefault(name, []).append((row, np.asarray(predicted, float)))
            self.recorded[name] = recorded.values(name)

    def as_dict(self) -> dict[str, Any]:
        """The content of the file of `--json`."""
        return {
            'policy': self.policy,
            'chunks': self.chunks,
            'uncompared': sorted(self.uncompared),
            'keys': {name: errors.as_dict() for name, errors in self.keys.items()},
        }

    def summary_lines(self) -> list[str]:
        """A table of the errors for the terminal."""
        rows = [f'{"action":28} {"MSE":>12} {"MAE":>12} {"MAE first":>12} {"MAE last":>12}']
        for name, errors in self.as_dict()['keys'].items():
            first = errors['mae_by_step'][0]
            last = errors['mae_by_step'][-1]
            rows.append(f'{name:28} {errors["mse"]:12.4g} {errors["mae"]:12.4g} {first:12.4g} {last:12.4g}')
        rows.append(f'{self.policy}: {self.chunks} chunks compared')
        if self.uncompared:
            names = ', '.join(sorted(self.uncompared))
            rows.append(f'not compared, because nothing like it was recorded: {names}')
        return rows


def evaluate(
    policy: Policy,
    dataset: Path,
    embodiment: Embodiment,
    episodes: Iterable[int],
    stride: int = 8,
    on_chunk: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Runs the policy on every `stride`-th row of each episode and adds up the errors of its chunks.

    `on_chunk` is called after each inference. Raises GrootRosError if the dataset does not match the
    embodiment, or if no episode is as long as a chunk.
    """
    result = Evaluation(policy.spec.name)
    chosen = list(episodes)
    first = next(iter(chosen), None)
    for episode in chosen:
        policy.reset()
        table = _read_table(dataset, episode, embodiment)
        recorded = recorded_episode(table, embodiment)
        starts = _start_rows(len(recorded), policy.spec.horizon, stride)
        indices = policy.spec.observation_indices
        observations = _read_observations(dataset, episode, embodiment, table, starts, indices)
        for row, observation in zip(starts, observations, strict=True):
            chunk = policy.infer(observation)
            result.add(chunk, recorded.since(row))
            if episode == first:
                result.keep(row, chunk, recorded)
            on_chunk()
    if not result.chunks:
        raise GrootRosError(
            f'No episode of {dataset} has {policy.spec.horizon} rows, a whole chunk of {policy.spec.name}: '
            'choose longer episodes.'
        )
    return result


def check_dataset(dataset: Path, embodiment: Embodiment, episodes: Iterable[int]) -> None:
    """Raises GrootRosError if an episode is missing or does not match the embodiment; loads no model."""
    for episode in episodes:
        _read_table(dataset, episode, embodiment)


def count_chunks(dataset: Path, episodes: Iterable[int], horizon: int, stride: int) -> int:
    """The number of chunks that `evaluate` compares."""
    meta = DatasetMeta(dataset)
    return sum(len(_start_rows(meta.episode(episode)['length'], horizon, stride)) for episode in episodes)


def _start_rows(rows: int, horizon: int, stride: int) -> list[int]:
    return list(range(0, rows - horizon + 1, stride))


def _read_table(dataset: Path, episode: int, embodiment: Embodiment):
    table = DatasetMeta(dataset).rows(episode)
    sizes = {name: column_to_array(table, name).shape[1:] for name in (STATE_COLUMN, ACTION_COLUMN)}
    if sizes != {STATE_COLUMN: (embodiment.state_size,), ACTION_COLUMN: (embodiment.action_size,)}:
        raise GrootRosError(
            f'{dataset} has other rows than the embodiment {embodiment.name}: '
            'give the embodiment that it was made with.'
        )
    return table


def _read_observations(
    dataset: Path,
    episode: int,
    embodiment: Embodiment,
    table,
    rows: list[int],
    observation_indices: tuple[int, ...],
) -> Iterator[Observation]:
    """The observations at `rows`. Before an episode's first row, that row is repeated."""
    meta = DatasetMeta(dataset)
    states = column_to_array(table, STATE_COLUMN)
    times_s = column_to_array(table, 'timestamp')
    tasks = [meta.tasks.get(index, '') for index in table['task_index'].to_pylist()]
    wanted = sorted({max(row + index, 0) for row in rows for index in (0, *observation_indices)})
    videos = _open_videos(meta, episode, embodiment, wanted)
    by_row: dict[int, Observation] = {}
    for row in wanted:
        images = {name: next(video) for name, video in videos.items()}
        by_row[row] = Observation(round(times_s[row] * 1e9), states[row], images, tasks[row])
        if row in rows:
            earlier = {index: by_row[max(row + index, 0)] for index in observation_indices if index}
            yield replace(by_row[row], earlier=earlier)
            oldest = row + min(observation_indices)
            by_row = {kept: observation for kept, observation in by_row.items() if kept >= oldest}


def _open_videos(
    meta: DatasetMeta, episode: int, embodiment: Embodiment, rows: list[int]
) -> dict[str, Iterator[np.ndarray]]:
    """The images (height, width, 3) at `rows`, by camera name."""
    videos = {}
    for camera in embodiment.cameras:
        first = meta.first_frame(camera.feature, episode)
        frames = [first + row for row in rows]
        videos[camera.name] = read_frames(meta.video_file(camera.feature, episode), frames)
    return videos
