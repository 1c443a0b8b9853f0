# SPDX-License-Identifier: Apache-2.0
"""Checks of a dataset before training: what the trainer refuses, and what makes a bad policy."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from groot_ros.dataset.meta import column_to_array
from groot_ros.dataset.modality_config import modality_config
from groot_ros.dataset.validation.validate import validate
from groot_ros.embodiment import ACTION_COLUMN, STATE_COLUMN
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.quality.motion import command_changes, moves_linearly, turns
from groot_ros.training.findings import TrainingProblem
from groot_ros.training.job import FinetuneJob
from groot_ros.training.trainers import TrainerInfo

MAX_IDLE_SHARE = 0.4
# The spread of normal values is a millionth of the range of float32 or more.
_TINY_SPREAD = 1e-6
_MAX_ASPECT_DIFFERENCE = 0.01
_MOTIONS = {'delta_position': moves_linearly, 'delta_rotation': turns}


def dataset_problems(job: FinetuneJob, trainer: TrainerInfo) -> Iterator[TrainingProblem]:
    """All problems of a dataset with a trainer, each in one sentence."""
    if problem := _version_problem(job, trainer):
        yield problem
        return
    if not job.meta.is_v3:
        yield from _validation(job, trainer)
    yield from _hold_out(job, trainer)
    yield from _horizon(job)
    yield from _spread(job)
    yield from _idle(job)
    yield from _cameras(job)
    yield from _language(job)
    if trainer.gr00t_version and not job.preset.data_config:
        yield from _config(job, trainer)


def _version_problem(job: FinetuneJob, trainer: TrainerInfo) -> TrainingProblem | None:
    is_v3 = job.meta.is_v3
    if trainer.dataset_version == 'v2' and is_v3:
        text = (
            f'{trainer.label} reads LeRobot v2 datasets and {job.dataset} is v3.0: convert the recordings '
            'without --format v3.0, or the dataset with groot-ros convert.'
        )
        return TrainingProblem('dataset-version', text)
    if trainer.dataset_version == 'v3' and not is_v3:
        text = (
            f'{trainer.label} reads LeRobot v3.0 datasets and {job.dataset} is '
            f'{job.meta.info.get("codebase_version", "of an unknown version")}: convert it with '
            '--format v3.0.'
        )
        return TrainingProblem('dataset-version', text)
    return None


def _hold_out(job: FinetuneJob, trainer: TrainerInfo) -> Iterator[TrainingProblem]:
    if job.hold_out and not trainer.can_hold_out:
        text = (
            f'{trainer.label} trains on every episode of a dataset: leave --hold-out out, and convert the '
            'recordings to hold out into a dataset of their own.'
        )
        yield TrainingProblem('hold-out', text)


def _validation(job: FinetuneJob, trainer: TrainerInfo) -> Iterator[TrainingProblem]:
    report = validate(job.dataset, job.preset.horizon, trainer.gr00t_version or 'n1.7')
    if report.errors:
        first = next(finding for finding in report.findings if finding.severity == 'error')
        yield TrainingProblem(
            'validation',
            f'The dataset has {report.errors} errors, such as: {first}. groot-ros validate {job.dataset} '
            'shows them all.',
        )


def _horizon(job: FinetuneJob) -> Iterator[TrainingProblem]:
    lengths = {int(episode['episode_index']): int(episode['length']) for episode in job.meta.episodes}
    if not lengths:
        yield TrainingProblem('horizon', f'{job.dataset} has no episodes: convert some first.')
        return
    shortest = min(lengths, key=lengths.__getitem__)
    if lengths[shortest] < job.preset.horizon:
        yield TrainingProblem(
            'horizon',
            f'Episode {shortest} has {lengths[shortest]} rows, fewer than the horizon of '
            f'{job.preset.horizon}: leave it out of the dataset, or give a smaller --horizon.',
        )


def _spread(job: FinetuneJob) -> Iterator[TrainingProblem]:
    """A dimension whose 1st and 99th percentile are equal is always decoded to that one value."""
    slices = job.embodiment.action_slices
    action = _statistics(job, ACTION_COLUMN)
    commands = {field.name for field in job.embodiment.action if field.kind == 'command' and field.size == 1}
    for name, part in slices.items():
        spread = action['q99'][part] - action['q01'][part]
        if name in commands and spread[0] <= _TINY_SPREAD:
            yield TrainingProblem(
                'gripper',
                f'{name} never moves, or in less than 1 % of the rows, so that the policy would never move '
                'it: record episodes in which it does.',
            )
            continue
        for index in np.flatnonzero(spread <= _TINY_SPREAD):
            yield TrainingProblem('constant-action', _constant_text('action', name, int(index)))
    state = _statistics(job, STATE_COLUMN)
    for name, part in job.embodiment.state_slices.items():
        for index in np.flatnonzero(state['q99'][part] - state['q01'][part] <= _TINY_SPREAD):
            yield TrainingProblem('constant-state', _constant_text('state', name, int(index)))


def _constant_text(what: str, name: str, index: int) -> str:
    return (
        f'Dimension {index} of the {what} {name} is the same in 98 % of the rows: leave it out of the '
        'embodiment, or record episodes in which it varies.'
    )


def _statistics(job: FinetuneJob, column: str) -> dict[str, Array]:
    try:
        return {key: np.asarray(job.meta.stats[column][key], float) for key in ('q01', 'q99')}
    except (KeyError, TypeError, ValueError) as error:
        raise GrootRosError(
            f'{job.dataset}/meta/stats.json has no q01 and q99 of {column}: convert the dataset again.'
        ) from error


def _idle(job: FinetuneJob) -> Iterator[TrainingProblem]:
    """A policy that saw much standing still stands still: NVIDIA's users report it as idling at the start."""
    moving = 0
    rows = 0
    for episode in job.meta.episodes:
        table = job.meta.rows(int(episode['episode_index']), [ACTION_COLUMN])
        actions = column_to_array(table, ACTION_COLUMN)
        moving += int(_moves(job, actions).sum())
        rows += len(actions)
    idle_share = 1 - moving / max(rows, 1)
    if idle_share > MAX_IDLE_SHARE:
        yield TrainingProblem(
            'idle',
            f'Nothing moves in {100 * idle_share:.0f} % of the rows (at most {100 * MAX_IDLE_SHARE:.0f} % is '
            'good): convert again with --trim.',
        )


def _moves(job: FinetuneJob, actions: Array) -> np.ndarray:
    """Whether anything is commanded to move in each row (n,), by the package's definition of idle."""
    moving = np.zeros(len(actions), bool)
    for field in job.embodiment.action:
        values = actions[:, job.embodiment.action_slices[field.name]]
        if field.kind in _MOTIONS:
            moving |= _MOTIONS[field.kind](values, job.meta.fps)
        elif field.kind == 'command':
            steps = np.diff(values, axis=0, prepend=values[:1])
            moving |= command_changes(steps, job.meta.fps)
        else:
            moving |= np.abs(np.nan_to_num(values)).max(axis=1) > 0
    return moving


def _cameras(job: FinetuneJob) -> Iterator[TrainingProblem]:
    aspects: dict[str, float] = {}
    for name, feature in job.meta.info.get('features', {}).items():
        if feature.get('dtype') == 'video':
            height, width = _height_and_width(name, feature)
            aspects[name] = width / height
    if aspects and max(aspects.values()) - min(aspects.values()) > _MAX_ASPECT_DIFFERENCE:
        listed = ', '.join(f'{name} {aspect:.2f}' for name, aspect in aspects.items())
        yield TrainingProblem(
            'aspect',
            f'The cameras have different aspect ratios ({listed}), which GR00T refuses: give all cameras of '
            'the embodiment one width and height, the images are then letterboxed.',
        )


def _height_and_width(name: str, feature: dict[str, Any]) -> tuple[int, int]:
    shape = dict(zip(feature.get('names', []), feature.get('shape', []), strict=False))
    height = shape.get('height', 0)
    width = shape.get('width', 0)
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        raise GrootRosError(f'meta/info.json does not say the height and width of {name}.')
    return height, width


def _language(job: FinetuneJob) -> Iterator[TrainingProblem]:
    """GR00T takes one text for a sample: "Language modality must have exactly one key"."""
    language = job.embodiment.language
    validity = job.embodiment.annotation.validity
    keys = [f'annotation.{key}' for key in job.meta.modality.get('annotation', {}) if key != validity]
    if language.startswith('annotation.') and keys != [language]:
        yield TrainingProblem(
            'language',
            f'meta/modality.json must name one text, {language}, and names {", ".join(keys) or "none"}: '
            'convert the dataset again.',
        )


def _config(job: FinetuneJob, trainer: TrainerInfo) -> Iterator[TrainingProblem]:
    try:
        modality_config(job.embodiment, trainer.gr00t_version, job.preset.horizon, job.preset.relative)
    except GrootRosError as error:
        yield TrainingProblem('model-size', str(error))
