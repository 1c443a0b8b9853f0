# SPDX-License-Identifier: Apache-2.0
"""Open-loop evaluation: a policy sees rows of a dataset, its chunks are compared with the recorded ones."""

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
from groot_ros.video.mp4 import read_frames


@dataclass
class Errors:
    """Differences of one action key, (n, H, size) gathered: squares and absolutes by step of the chunk."""

    squares: list[Array] = field(default_factory=list)
    absolutes: list[Array] = field(default_factory=list)

    def note(self, predicted: Array, recorded: Array) -> None:
        """One chunk (H, size) of both."""
        difference = predicted - recorded
        self.squares.append(np.mean(difference**2, axis=1))
        self.absolutes.append(np.mean(np.abs(difference), axis=1))

    def as_dict(self) -> dict[str, Any]:
        """MSE and MAE, over all and for each step."""
        squares = np.array(self.squares)
        absolutes = np.array(self.absolutes)
        by_step = {
            'mse_by_step': squares.mean(axis=0).tolist(),
            'mae_by_step': absolutes.mean(axis=0).tolist(),
        }
        return {'mse': float(squares.mean()), 'mae': float(absolutes.mean()), **by_step}


@dataclass
class Evaluation:
    """What came of it: errors by action key, and how many chunks were compared."""

    policy: str
    chunks: int = 0
    keys: dict[str, Errors] = field(default_factory=dict)

    def note(self, answer: dict[str, Array], recorded: Array, slices: dict[str, slice]) -> None:
        """One chunk, and the actions (H, A) that were recorded in its time."""
        for name, part in slices.items():
            if name in answer:
                self.keys.setdefault(name, Errors()).note(answer[name], recorded[: len(answer[name]), part])
        self.chunks += 1

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            'policy': self.policy,
            'chunks': self.chunks,
            'keys': {name: errors.as_dict() for name, errors in self.keys.items()},
        }

    def lines(self) -> list[str]:
        """A table for people."""
        rows = [f'{"action":28} {"MSE":>12} {"MAE":>12} {"MAE first":>12} {"MAE last":>12}']
        for name, errors in self.as_dict()['keys'].items():
            first = errors['mae_by_step'][0]
            last = errors['mae_by_step'][-1]
            rows.append(f'{name:28} {errors["mse"]:12.4g} {errors["mae"]:12.4g} {first:12.4g} {last:12.4g}')
        return [*rows, f'{self.policy}: {self.chunks} chunks compared']


def evaluate(
    policy: Policy,
    dataset: Path,
    embodiment: Embodiment,
    episodes: Iterable[int],
    every: int = 8,
    tell: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Asks at every so manieth row, as if the robot stood there; `tell` is called after each answer.

    Raises GrootRosError if the dataset has other rows or none that fit, or if an answer has other shapes.
    """
    result = Evaluation(policy.spec.name)
    for episode in episodes:
        policy.reset()
        table = _table(dataset, episode, embodiment)
        actions = column_to_array(table, ACTION_COLUMN)
        starts = _starts(len(actions), policy.spec.horizon, every)
        for row, observation in zip(
            starts,
            _observations(dataset, episode, embodiment, table, starts, policy.spec.observation_indices),
            strict=True,
        ):
            result.note(policy.infer(observation), actions[row:], embodiment.action_slices)
            tell()
    if not result.chunks:
        raise GrootRosError(
            f'No episode of {dataset} holds {policy.spec.horizon} rows, a whole chunk of {policy.spec.name}.'
        )
    return result


def check_dataset(dataset: Path, embodiment: Embodiment, episodes: Iterable[int]) -> None:
    """Raises GrootRosError where an episode is missing or has other rows, before a model is asked."""
    for episode in episodes:
        _table(dataset, episode, embodiment)


def chunks_in(dataset: Path, episodes: Iterable[int], horizon: int, every: int) -> int:
    """How many chunks `evaluate` compares."""
    return sum(
        len(_starts(DatasetMeta(dataset).episode(episode)['length'], horizon, every)) for episode in episodes
    )


def _starts(rows: int, horizon: int, every: int) -> list[int]:
    return list(range(0, rows - horizon + 1, every))


def _table(dataset: Path, episode: int, embodiment: Embodiment):
    table = DatasetMeta(dataset).rows(episode)
    sizes = {name: column_to_array(table, name).shape[1] for name in (STATE_COLUMN, ACTION_COLUMN)}
    if sizes != {STATE_COLUMN: embodiment.state_size, ACTION_COLUMN: embodiment.action_size}:
        raise GrootRosError(
            f'{dataset} has other rows than the embodiment {embodiment.name}: name the one it was made with.'
        )
    return table


def _observations(
    dataset: Path,
    episode: int,
    embodiment: Embodiment,
    table,
    rows: list[int],
    observation_indices: tuple[int, ...],
) -> Iterator[Observation]:
    """What a policy would have seen at rows; before the first row of an episode that row is seen again."""
    meta = DatasetMeta(dataset)
    states = column_to_array(table, STATE_COLUMN)
    times_s = column_to_array(table, 'timestamp')
    tasks = [meta.tasks.get(index, '') for index in table['task_index'].to_pylist()]
    wanted = sorted({max(row + step, 0) for row in rows for step in (0, *observation_indices)})
    videos = {}
    for camera in embodiment.cameras:
        first = meta.first_frame(camera.feature, episode)
        frames = [first + row for row in wanted]
        videos[camera.name] = read_frames(meta.video_file(camera.feature, episode), frames)
    seen: dict[int, Observation] = {}
    for row in wanted:
        images = {name: next(video) for name, video in videos.items()}
        seen[row] = Observation(round(times_s[row] * 1e9), states[row], images, tasks[row])
        if row in rows:
            earlier = {step: seen[max(row + step, 0)] for step in observation_indices if step}
            yield replace(seen[row], earlier=earlier)
            seen = {
                kept: observation
                for kept, observation in seen.items()
                if kept >= row + min(observation_indices)
            }
