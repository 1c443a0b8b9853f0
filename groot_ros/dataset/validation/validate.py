# SPDX-License-Identifier: Apache-2.0
"""Checks a dataset: what GR00T's loader refuses, and what it accepts although training would suffer."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from groot_ros.dataset.meta import DatasetMeta, read_json, read_records
from groot_ros.dataset.meta_models import (
    EpisodeRecord,
    Info,
    ModalityFile,
    Statistics,
    TaskRecord,
    problem_of,
)
from groot_ros.dataset.modality_config import GR00T_VERSIONS
from groot_ros.dataset.validation.episode import check_episode
from groot_ros.dataset.validation.finding import ERROR, WARNING, ValidationFinding
from groot_ros.dataset.validation.motion import check_motion
from groot_ros.dataset.validation.values import check_dataset_values
from groot_ros.dataset.writers.features import VALIDITIES
from groot_ros.embodiment import ACTION_COLUMN, STATE_COLUMN
from groot_ros.errors import GrootRosError, choose
from groot_ros.path_kind import dataset_version, describe_path

_MAX_TEXT = 1000
_FILES = {'info.json': Info, 'modality.json': ModalityFile, 'stats.json': Statistics}
_TABLES = {'episodes.jsonl': EpisodeRecord, 'tasks.jsonl': TaskRecord}


@dataclass
class ValidationReport:
    """All findings, and the numbers of episodes and rows that were checked."""

    findings: list[ValidationFinding] = field(default_factory=list)
    episodes: int = 0
    rows: int = 0

    @property
    def errors(self) -> int:
        """The number of findings that make the dataset unfit."""
        return sum(finding.severity == ERROR for finding in self.findings)

    @property
    def warnings(self) -> int:
        """The number of findings that a person should look at."""
        return sum(finding.severity == WARNING for finding in self.findings)

    def grouped(self) -> list[tuple[ValidationFinding, int]]:
        """Returns the first of the findings that differ only in place and numbers, and how many more."""
        groups: dict[tuple[str, str, str], list[ValidationFinding]] = {}
        for finding in self.findings:
            groups.setdefault(
                (finding.severity, re.sub(r'[\d.]+', '', finding.problem), finding.remedy), []
            ).append(finding)
        return [(group[0], len(group) - 1) for group in groups.values()]

    def as_dict(self) -> dict[str, Any]:
        """Returns the content of --json."""
        counts = {
            'errors': self.errors,
            'warnings': self.warnings,
            'episodes': self.episodes,
            'rows': self.rows,
        }
        return {**counts, 'findings': [vars(finding) for finding in self.findings]}


@dataclass
class ParsedMeta:
    """The files of meta/ that could be parsed; what is missing is a finding already."""

    root: Path
    info: dict[str, Any]
    modality: dict[str, Any]
    episodes: list[dict[str, Any]]
    tasks: list[dict[str, Any]]
    stats: dict[str, Any]
    embodiment: dict[str, Any]


def validate(root: Path, horizon: int = 16, gr00t_version: str = 'n1.7') -> ValidationReport:
    """Checks every file of a dataset, for the limits of a GR00T version.

    Raises GrootRosError if there is no dataset at `root`, and for an unknown version.
    """
    choose('GR00T version', gr00t_version, GR00T_VERSIONS)
    if not (root / 'meta').is_dir():
        raise GrootRosError(f'{root} {describe_path(root)}: give the folder of a dataset, which has meta/.')
    _refuse_v3(root)
    report = ValidationReport()
    meta = _read_meta(root, report.findings)
    if meta is None:
        return report
    report.findings += _check_info(meta)
    report.findings += _check_modality(meta)
    tasks = {task['task_index']: str(task['task']) for task in meta.tasks}
    episodes = []
    for record in meta.episodes:
        episode, findings = check_episode(root, meta.info, meta.modality, record, tasks)
        report.findings += findings
        if episode is not None:
            episodes.append(episode)
    for episode in episodes:
        report.findings += check_motion(
            meta.modality, meta.embodiment, float(meta.info.get('fps') or 0), episode
        )
    report.findings += _check_language(meta)
    report.findings += _check_episode_texts(meta)
    report.findings += check_dataset_values(
        meta.info, meta.modality, meta.stats, episodes, horizon, GR00T_VERSIONS[gr00t_version]
    )
    report.findings += _check_leftovers(meta)
    report.episodes = len(episodes)
    report.rows = sum(episode.rows for episode in episodes)
    return report


def _refuse_v3(root: Path) -> None:
    """Raises GrootRosError for a dataset that only LeRobot's own training reads."""
    if dataset_version(root).startswith('v3'):
        raise GrootRosError(
            f'{root} {describe_path(root)}, and GR00T reads v2.1: convert the recordings with --format v2.1. '
            "v3.0 is for LeRobot's own training."
        )


def _read_meta(root: Path, findings: list[ValidationFinding]) -> ParsedMeta | None:
    parsed: dict[str, Any] = {}
    for name, model in _FILES.items():
        parsed[name] = _read_json(root / 'meta' / name, model, findings)
    for name, model in _TABLES.items():
        parsed[name] = _read_records(root / 'meta' / name, model, findings)
    if any(parsed[name] is None for name in ('info.json', 'modality.json', *_TABLES)):
        return None
    for key in ('data_path', 'chunks_size', 'features'):
        if key not in parsed['info.json']:
            findings.append(
                ValidationFinding(
                    ERROR,
                    'meta/info.json',
                    f'{key} is missing, which the loader reads',
                    'convert the dataset again',
                )
            )
            return None
    stats = parsed['stats.json'] or {}
    return ParsedMeta(
        root,
        parsed['info.json'],
        parsed['modality.json'],
        parsed['episodes.jsonl'],
        parsed['tasks.jsonl'],
        stats,
        _noted_embodiment(root),
    )


def _noted_embodiment(root: Path) -> dict[str, Any]:
    """The embodiment that our converter noted; datasets of others have none."""
    try:
        return DatasetMeta(root).conversion['embodiment']
    except (GrootRosError, KeyError):
        return {}


def _read_json(
    path: Path, model: type[BaseModel], findings: list[ValidationFinding]
) -> dict[str, Any] | None:
    try:
        content = read_json(path)
        problem = problem_of(model, content)
        if not problem:
            return content
    except FileNotFoundError:
        problem = 'is missing'
    except (OSError, ValueError) as error:
        problem = f'cannot be read ({error})'
    findings.append(ValidationFinding(ERROR, f'meta/{path.name}', problem, 'convert the dataset again'))
    return None


def _read_records(
    path: Path, model: type[BaseModel], findings: list[ValidationFinding]
) -> list[dict[str, Any]] | None:
    where = f'meta/{path.name}'
    try:
        records, problems = read_records(path, model)
    except (OSError, ValueError) as error:
        problem = f'cannot be read ({getattr(error, "strerror", None) or error})'
        findings.append(ValidationFinding(ERROR, where, problem, 'convert the dataset again'))
        return None
    for problem in problems:
        findings.append(ValidationFinding(ERROR, where, problem, 'delete or correct the line'))
    return records


def _check_info(meta: ParsedMeta) -> Iterator[ValidationFinding]:
    where = 'meta/info.json'
    info = meta.info
    if not isinstance(info.get('fps'), (int, float)) or info['fps'] <= 0:
        yield ValidationFinding(ERROR, where, f'fps is {info.get("fps")!r}', 'set it to the rate of the rows')
    if 'total_episodes' in info and info['total_episodes'] != len(meta.episodes):
        yield ValidationFinding(
            ERROR,
            where,
            f'total_episodes is {info["total_episodes"]}, episodes.jsonl has {len(meta.episodes)}',
            'convert again',
        )
    total = sum(record['length'] for record in meta.episodes)
    if 'total_frames' in info and info['total_frames'] != total:
        yield ValidationFinding(
            ERROR,
            where,
            f'total_frames is {info["total_frames"]}, the lengths add up to {total}',
            'convert again',
        )
    if not meta.episodes:
        yield ValidationFinding(ERROR, 'meta/episodes.jsonl', 'holds no episode', 'convert some bags')
    indices = [record['episode_index'] for record in meta.episodes]
    if len(set(indices)) != len(indices):
        yield ValidationFinding(
            ERROR, 'meta/episodes.jsonl', 'an episode_index occurs twice', 'convert again'
        )
    cameras = [feature for feature in info['features'].values() if feature.get('dtype') == 'video']
    if cameras and 'video_path' not in info:
        yield ValidationFinding(
            ERROR, where, 'video_path is missing though there are cameras', 'convert again'
        )


def _check_modality(meta: ParsedMeta) -> Iterator[ValidationFinding]:
    where = 'meta/modality.json'
    features = meta.info['features']
    for group, default in (('state', STATE_COLUMN), ('action', ACTION_COLUMN)):
        if not meta.modality.get(group):
            yield ValidationFinding(ERROR, where, f'{group} is missing or empty', 'convert the dataset again')
        for name, part in (meta.modality.get(group) or {}).items():
            column = part.get('original_key', default)
            yield from _check_slice(where, f'{group}.{name}', part, column, features)
    for name, part in (meta.modality.get('video') or {}).items():
        column = part.get('original_key', f'observation.images.{name}')
        if features.get(column, {}).get('dtype') != 'video':
            yield ValidationFinding(
                ERROR,
                where,
                f'video.{name} names {column}, which info.json has no video feature for',
                'correct original_key',
            )
    for name, part in (meta.modality.get('annotation') or {}).items():
        column = part.get('original_key', f'annotation.{name}')
        if column not in features:
            yield ValidationFinding(
                ERROR,
                where,
                f'annotation.{name} names {column}, which info.json has no feature for',
                'correct original_key',
            )


def _check_language(meta: ParsedMeta) -> Iterator[ValidationFinding]:
    """GR00T takes texts in lower case and without punctuation, so a text needs a word."""
    where = 'meta/tasks.jsonl'
    texts = [str(task['task']) for task in meta.tasks]
    for task, text in zip(meta.tasks, texts, strict=True):
        if not any(character.isalnum() for character in text):
            yield ValidationFinding(
                WARNING,
                where,
                f'task {task["task_index"]} has no words, so a policy gets no instruction',
                'convert with --task',
            )
        if len(text) > _MAX_TEXT:
            problem = f'task {task["task_index"]} has {len(text)} characters, more than a model reads'
            yield ValidationFinding(WARNING, where, problem, f'write it in at most {_MAX_TEXT}')
    if texts and set(texts) <= set(VALIDITIES):
        yield ValidationFinding(ERROR, where, 'holds no task, only validities', 'convert with --task')
    indices = [task['task_index'] for task in meta.tasks]
    if len(set(indices)) != len(indices):
        yield ValidationFinding(
            ERROR, where, 'a task_index occurs twice, so a text is lost', 'number the tasks again'
        )


def _check_episode_texts(meta: ParsedMeta) -> Iterator[ValidationFinding]:
    """With the language key `task` GR00T draws one text of the episode's list for each sample."""
    severity = ERROR if meta.embodiment.get('language_key') == 'task' else WARNING
    for line, record in enumerate(meta.episodes, 1):
        texts = record.get('tasks', [])
        drawn = [text for text in texts if text in VALIDITIES]
        if not drawn:
            continue
        problem = (
            f'tasks of line {line} list {drawn[0]!r}: with the language key `task`, 1 of {len(texts)} '
            'samples gets it as its instruction'
        )
        yield ValidationFinding(severity, 'meta/episodes.jsonl', problem, 'list only texts of tasks there')


def _check_slice(
    where: str, name: str, part: dict, column: str, features: dict
) -> Iterator[ValidationFinding]:
    if column not in features:
        yield ValidationFinding(
            ERROR, where, f'{name} names {column}, which info.json has no feature for', 'correct original_key'
        )
        return
    size = int(features[column]['shape'][0])
    start = part.get('start')
    end = part.get('end')
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= size):
        yield ValidationFinding(
            ERROR,
            where,
            f'{name} is the slice {start} to {end} of {column}, which has {size} numbers',
            'correct start and end',
        )


def _check_leftovers(meta: ParsedMeta) -> Iterator[ValidationFinding]:
    size = meta.info['chunks_size']
    indices = [record['episode_index'] for record in meta.episodes]
    listed = {
        meta.info['data_path'].format(episode_chunk=index // size, episode_index=index) for index in indices
    }
    for path in sorted((meta.root / 'data').rglob('*.parquet')):
        if str(path.relative_to(meta.root)) not in listed:
            yield ValidationFinding(
                WARNING,
                str(path.relative_to(meta.root)),
                'is not listed in episodes.jsonl, so it is never read',
                'delete it',
            )
