# SPDX-License-Identifier: Apache-2.0
"""Judges an episode: compares every measurement with its thresholds and writes verdict.json."""

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel

from groot_ros import __version__
from groot_ros.config_files import checked, read_yaml
from groot_ros.dimensions import three_digits
from groot_ros.errors import GrootRosError
from groot_ros.quality.checks import CHECKS
from groot_ros.quality.trace import EpisodeTrace
from groot_ros.resources import VERDICT_FILE, share_directory

FORMAT_VERSION = 1
LEVELS = ('pass', 'warn', 'fail')
_INFINITE = 1e9  # JSON has no infinity


class Bounds(BaseModel):
    """The values at which a measurement becomes a warning or a failure; None for never."""

    model_config = ConfigDict(extra='forbid', frozen=True, allow_inf_nan=False)

    warn: float | None = None
    fail: float | None = None


class Thresholds(RootModel[dict[str, Bounds]]):
    """The bounds of each check, by its name."""


@dataclass
class Finding:
    """One measurement of one subject, its level (pass, warn or fail) and the sentence that reports it."""

    level: str
    check: str
    subject: str
    value: float
    unit: str
    warn: float | None
    fail: float | None
    text: str


@dataclass
class Verdict:
    """pass, warn or fail, with every measurement.

    `failure` says why a recording could not go on, `interruption` why it was ended by no operator.
    """

    verdict: str
    episode: str = ''
    task: str = ''
    outcome: str = ''
    rows: int = 0
    duration_s: float = 0.0
    segments: int = 0
    filled: int = 0
    lost: int = 0
    failure: str = ''
    interruption: str = ''
    findings: list[Finding] = field(default_factory=list)
    version: int = FORMAT_VERSION
    groot_ros: str = __version__

    @property
    def reasons(self) -> list[str]:
        """Sentences that say why it is not a pass, the failures first."""
        reasons = [text for text in (self.failure, self.interruption) if text]
        for level in ('fail', 'warn'):
            reasons += [finding.text for finding in self.findings if finding.level == level]
        return reasons

    def summary(self) -> str:
        """The verdict and its two worst reasons in one line."""
        reasons = self.reasons
        if not reasons:
            return self.verdict
        shown = ' '.join(reasons[:2])
        more = f' {len(reasons) - 2} more in {VERDICT_FILE}.' if len(reasons) > 2 else ''
        return f'{self.verdict}: {shown}{more}'

    def as_dict(self) -> dict[str, Any]:
        """All fields and the reasons, as JSON can hold them."""
        return {**asdict(self), 'reasons': self.reasons}

    def save(self, folder: Path) -> None:
        """Writes verdict.json into a bag's folder; an existing file is replaced at once."""
        _write(folder, self.as_dict())


def relabel_verdict(folder: Path, outcome: str, task: str) -> None:
    """Changes outcome and task in the verdict.json of a bag; its findings stay.

    Raises GrootRosError for a file that cannot be read.
    """
    path = folder / VERDICT_FILE
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise GrootRosError(
            f'{path} cannot be read ({error}): write it again with `groot-ros inspect`.'
        ) from error
    if not isinstance(content, dict):
        raise GrootRosError(f'{path} is no verdict: write it again with `groot-ros inspect`.')
    _write(folder, {**content, 'outcome': outcome, 'task': task})


def _write(folder: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, allow_nan=False)
    new_file = folder / f'{VERDICT_FILE}.new'
    with new_file.open('w') as file:
        file.write(text + '\n')
        file.flush()
        # A power cut must not leave an empty file under the name of the old one.
        os.fsync(file.fileno())
    new_file.replace(folder / VERDICT_FILE)


def load_thresholds(path: str = '') -> Thresholds:
    """The thresholds of config/quality_thresholds.yaml, changed by the file at `path`.

    Raises GrootRosError if the file cannot be read, has a wrong form, or names an unknown check.
    """
    shipped = read_yaml(share_directory() / 'config' / 'quality_thresholds.yaml', 'The file of thresholds')
    values = read_yaml(Path(path), 'The file of thresholds') if path else {}
    own = checked(Thresholds, values or {}, f'The file of thresholds {path}')
    if unknown := set(own.root) - set(CHECKS):
        raise GrootRosError(
            f'The file of thresholds {path} names unknown checks: {", ".join(sorted(unknown))}. '
            f'Use names of this list: {", ".join(CHECKS)}.'
        )
    return Thresholds.model_validate({**shipped, **own.model_dump()})


def judge(
    trace: EpisodeTrace, thresholds: Thresholds, info: dict[str, Any], episode: str, failure: str = ''
) -> Verdict:
    """The verdict on a trace.

    `info` is the episode_info of the bag; the notes of an interrupted episode say why, and make it a warning
    at least. `failure` says why the recording ended early; it fails the episode.
    """
    findings = [
        _make_finding(name, subject, value, thresholds.root.get(name, Bounds()))
        for name, check in CHECKS.items()
        for subject, value in check.measure(trace)
    ]
    if not trace.rows:
        failure = failure or 'The episode has no row.'
    outcome = str(info.get('outcome', 'unknown'))
    interruption = str(info.get('notes', '')) if outcome == 'interrupted' else ''
    worst = max((LEVELS.index(finding.level) for finding in findings), default=0)
    if interruption:
        worst = max(worst, LEVELS.index('warn'))
    return Verdict(
        verdict='fail' if failure else LEVELS[worst],
        episode=episode,
        task=str(info.get('task', '')),
        outcome=outcome,
        rows=trace.rows,
        duration_s=trace.rows / trace.embodiment.fps,
        segments=len(set(trace.segments.tolist())),
        filled=trace.filled,
        lost=trace.lost,
        failure=failure,
        interruption=interruption,
        findings=findings,
    )


def format_value(value: float, unit: str) -> str:
    """A number with its unit, for people; a share is shown in percent."""
    if unit == 'share':
        return f'{three_digits(100 * value)}%'
    return f'{three_digits(value)} {unit}'.rstrip()


def _make_finding(name: str, subject: str, value: float, bounds: Bounds) -> Finding:
    check = CHECKS[name]
    value = float(value) if math.isfinite(value) else _INFINITE
    level = _level(value, bounds, check.smaller_is_worse)
    text = check.sentence.format(subject=subject, value=format_value(value, check.unit))
    if level != 'pass':
        limit = bounds.fail if level == 'fail' else bounds.warn
        assert limit is not None
        text = f'{text.removesuffix(".")} (limit: {format_value(limit, check.unit)}).'
    return Finding(level, name, subject, value, check.unit, bounds.warn, bounds.fail, text)


def _level(value: float, bounds: Bounds, smaller_is_worse: bool) -> str:
    if _is_beyond(value, bounds.fail, smaller_is_worse):
        return 'fail'
    if _is_beyond(value, bounds.warn, smaller_is_worse):
        return 'warn'
    return 'pass'


def _is_beyond(value: float, bound: float | None, smaller_is_worse: bool) -> bool:
    if bound is None:
        return False
    return value <= bound if smaller_is_worse else value >= bound
