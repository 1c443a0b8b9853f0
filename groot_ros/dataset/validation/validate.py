# SPDX-License-Identifier: Apache-2.0
"""Checks a dataset: what GR00T's loader refuses, and what it accepts silently though training would suffer."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groot_ros.dataset.modality_config import GR00T_VERSIONS
from groot_ros.dataset.validation.episode import check_episode
from groot_ros.dataset.validation.finding import ERROR, WARNING, EpisodeColumns, Finding
from groot_ros.dataset.validation.motion import check_motion
from groot_ros.dataset.validation.values import check_dataset_values
from groot_ros.dataset.writers.features import VALIDITIES
from groot_ros.embodiment import ACTION_COLUMN, STATE_COLUMN
from groot_ros.errors import GrootRosError

_MAX_TEXT = 1000
_TABLES = {'episodes.jsonl': ('episode_index', 'length'), 'tasks.jsonl': ('task_index', 'task')}


@dataclass
class ValidationReport:
    """All findings, and how much was looked at."""

    findings: list[Finding] = field(default_factory=list)
    episodes: int = 0
    rows: int = 0

    @property
    def errors(self) -> int:
        """Findings that make the dataset unfit."""
        return sum(finding.severity == ERROR for finding in self.findings)

    @property
    def warnings(self) -> int:
        """Findings to look at."""
        return sum(finding.severity == WARNING for finding in self.findings)

    def grouped(self) -> list[tuple[Finding, int]]:
        """The first finding of each kind, and how many more there are that differ in place and numbers only."""
        groups: dict[tuple[str, str, str], list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault(
                (finding.severity, re.sub(r'[\d.]+', '', finding.problem), finding.mending), []
            ).append(finding)
        return [(group[0], len(group) - 1) for group in groups.values()]

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        counts = {
            'errors': self.errors,
            'warnings': self.warnings,
            'episodes': self.episodes,
            'rows': self.rows,
        }
        return {**counts, 'findings': [vars(finding) for finding in self.findings]}


@dataclass
class Meta:
    """The parsed files of meta/."""

    root: Path
    info: dict[str, Any]
    modality: dict[str, Any]
    episodes: list[dict[str, Any]]
    tasks: list[dict[str, Any]]
    stats: dict[str, Any]
    embodiment: dict[str, Any]


def validate(root: Path, horizon: int = 16, gr00t_version: str = 'n1.7') -> ValidationReport:
    """Looks at every file of a dataset. Raises GrootRosError where there is no dataset at `root` at all, or no such release of GR00T."""
    if gr00t_version not in GR00T_VERSIONS:
        raise GrootRosError(
            f'There is no GR00T {gr00t_version!r} here: choose one of {", ".join(GR00T_VERSIONS)}.'
        )
    if not (root / 'meta').is_dir():
        raise GrootRosError(f'{root} is not a dataset: it has no folder meta.')
    report = ValidationReport()
    meta = _read_meta(root, report.findings)
    if meta is None:
        return report
    report.findings += _check_info(meta)
    report.findings += _check_modality(meta)
    facts = [
        episode
        for record in meta.episodes
        if (episode := _episode(meta, record, report.findings)) is not None
    ]
    for episode in facts:
        report.findings += check_motion(
            meta.modality, meta.embodiment, float(meta.info.get('fps') or 0), episode
        )
    report.findings += _check_language(meta)
    report.findings += check_dataset_values(
        meta.info, meta.modality, meta.stats, facts, horizon, GR00T_VERSIONS[gr00t_version]
    )
    report.findings += _check_leftovers(meta)
    report.episodes, report.rows = len(facts), sum(episode.rows for episode in facts)
    return report


def _read_meta(root: Path, findings: list[Finding]) -> Meta | None:
    parsed: dict[str, Any] = {}
    for name in ('info.json', 'modality.json', 'stats.json'):
        parsed[name] = _read_json(root / 'meta' / name, findings)
    for name, keys in _TABLES.items():
        parsed[name] = _read_jsonl(root / 'meta' / name, keys, findings)
    if any(parsed[name] is None for name in ('info.json', 'modality.json', *_TABLES)):
        return None
    for key in ('data_path', 'chunks_size', 'features'):
        if key not in parsed['info.json']:
            findings.append(
                Finding(
                    ERROR,
                    'meta/info.json',
                    f'{key} is missing, which the loader reads',
                    'convert the dataset again',
                )
            )
            return None
    stats = parsed['stats.json'] or {}
    return Meta(
        root,
        parsed['info.json'],
        parsed['modality.json'],
        parsed['episodes.jsonl'],
        parsed['tasks.jsonl'],
        stats,
        _noted_embodiment(root),
    )


def _noted_embodiment(root: Path) -> dict[str, Any]:
    """What our converter noted of the rows; datasets of others have nothing of the kind."""
    try:
        return json.loads((root / 'meta/conversion.json').read_text())['embodiment']
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _read_json(path: Path, findings: list[Finding]) -> dict[str, Any] | None:
    where = f'meta/{path.name}'
    try:
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            return content
        problem = 'is not a JSON object'
    except FileNotFoundError:
        problem = 'is missing'
    except (OSError, ValueError) as error:
        problem = f'cannot be read ({error})'
    findings.append(Finding(ERROR, where, problem, 'convert the dataset again'))
    return None


def _read_jsonl(path: Path, keys: tuple[str, ...], findings: list[Finding]) -> list[dict[str, Any]] | None:
    where = f'meta/{path.name}'
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        findings.append(
            Finding(ERROR, where, f'cannot be read ({error.strerror})', 'convert the dataset again')
        )
        return None
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if missing := [key for key in keys if key not in record]:
                raise ValueError(f'{", ".join(missing)} missing')
            records.append(record)
        except (ValueError, TypeError) as error:
            problem = (
                'is blank, at which the loader stops' if not line.strip() else f'is not a record ({error})'
            )
            findings.append(Finding(ERROR, where, f'line {number} {problem}', 'delete or mend the line'))
    return records


def _episode(meta: Meta, record: dict[str, Any], findings: list[Finding]) -> EpisodeColumns | None:
    tasks = {task['task_index']: str(task['task']) for task in meta.tasks}
    facts, found = check_episode(meta.root, meta.info, meta.modality, record, tasks)
    findings += found
    return facts


def _check_info(meta: Meta) -> Iterator[Finding]:
    where, info = 'meta/info.json', meta.info
    if not isinstance(info.get('fps'), (int, float)) or info['fps'] <= 0:
        yield Finding(ERROR, where, f'fps is {info.get("fps")!r}', 'set it to the rate of the rows')
    if 'total_episodes' in info and info['total_episodes'] != len(meta.episodes):
        yield Finding(
            ERROR,
            where,
            f'total_episodes is {info["total_episodes"]}, episodes.jsonl has {len(meta.episodes)}',
            'convert again',
        )
    total = sum(record['length'] for record in meta.episodes)
    if 'total_frames' in info and info['total_frames'] != total:
        yield Finding(
            ERROR,
            where,
            f'total_frames is {info["total_frames"]}, the lengths add up to {total}',
            'convert again',
        )
    if not meta.episodes:
        yield Finding(ERROR, 'meta/episodes.jsonl', 'holds no episode', 'convert some bags')
    indices = [record['episode_index'] for record in meta.episodes]
    if len(set(indices)) != len(indices):
        yield Finding(ERROR, 'meta/episodes.jsonl', 'an episode_index occurs twice', 'convert again')
    cameras = [feature for feature in info['features'].values() if feature.get('dtype') == 'video']
    if cameras and 'video_path' not in info:
        yield Finding(ERROR, where, 'video_path is missing though there are cameras', 'convert again')


def _check_modality(meta: Meta) -> Iterator[Finding]:
    where, features = 'meta/modality.json', meta.info['features']
    for group, default in (('state', STATE_COLUMN), ('action', ACTION_COLUMN)):
        if not meta.modality.get(group):
            yield Finding(ERROR, where, f'{group} is missing or empty', 'convert the dataset again')
        for name, part in (meta.modality.get(group) or {}).items():
            column = part.get('original_key', default)
            yield from _check_slice(where, f'{group}.{name}', part, column, features)
    for name, part in (meta.modality.get('video') or {}).items():
        column = part.get('original_key', f'observation.images.{name}')
        if features.get(column, {}).get('dtype') != 'video':
            yield Finding(
                ERROR,
                where,
                f'video.{name} names {column}, which info.json has no video feature for',
                'mend original_key',
            )
    for name, part in (meta.modality.get('annotation') or {}).items():
        column = part.get('original_key', f'annotation.{name}')
        if column not in features:
            yield Finding(
                ERROR,
                where,
                f'annotation.{name} names {column}, which info.json has no feature for',
                'mend original_key',
            )


def _check_language(meta: Meta) -> Iterator[Finding]:
    """GR00T takes the text in lower case and without punctuation."""
    where, texts = 'meta/tasks.jsonl', [str(task['task']) for task in meta.tasks]
    for task, text in zip(meta.tasks, texts, strict=True):
        if not any(character.isalnum() for character in text):
            yield Finding(
                WARNING,
                where,
                f'task {task["task_index"]} has no words, so a policy is told nothing',
                'convert with --task',
            )
        if len(text) > _MAX_TEXT:
            problem = f'task {task["task_index"]} has {len(text)} characters, more than a model reads'
            yield Finding(WARNING, where, problem, f'write it in at most {_MAX_TEXT}')
    if texts and set(texts) <= set(VALIDITIES):
        yield Finding(ERROR, where, 'holds no task, only validities', 'convert with --task')
    indices = [task['task_index'] for task in meta.tasks]
    if len(set(indices)) != len(indices):
        yield Finding(ERROR, where, 'a task_index occurs twice, so a text is lost', 'number the tasks anew')


def _check_slice(where: str, name: str, part: dict, column: str, features: dict) -> Iterator[Finding]:
    if column not in features:
        yield Finding(
            ERROR, where, f'{name} names {column}, which info.json has no feature for', 'mend original_key'
        )
        return
    size = int(features[column]['shape'][0])
    start, end = part.get('start'), part.get('end')
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= size):
        yield Finding(
            ERROR,
            where,
            f'{name} is the slice {start} to {end} of {column}, which has {size} numbers',
            'mend start and end',
        )


def _check_leftovers(meta: Meta) -> Iterator[Finding]:
    listed = {meta.info['data_path'].format(episode_chunk=r['episode_index'] // meta.info['chunks_size'], episode_index=r['episode_index'])
              for r in meta.episodes}  # fmt: skip
    for path in sorted((meta.root / 'data').rglob('*.parquet')):
        if str(path.relative_to(meta.root)) not in listed:
            yield Finding(
                WARNING,
                str(path.relative_to(meta.root)),
                'is not listed in episodes.jsonl, so it is never read',
                'delete it',
            )
