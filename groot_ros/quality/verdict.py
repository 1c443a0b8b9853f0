# SPDX-License-Identifier: Apache-2.0
"""The verdict on an episode: every measurement against its thresholds, as verdict.json."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel

from groot_ros import __version__
from groot_ros.config_files import checked, read_yaml
from groot_ros.errors import GrootRosError
from groot_ros.quality.checks import CHECKS
from groot_ros.quality.trace import EpisodeTrace
from groot_ros.resources import VERDICT_FILE, share_directory

FORMAT_VERSION = 1
LEVELS = ('pass', 'warn', 'fail')


class Bounds(BaseModel):
    """Where a measurement becomes a warning or a failure; None for never."""

    model_config = ConfigDict(extra='forbid', frozen=True)

    warn: float | None = None
    fail: float | None = None


class Thresholds(RootModel[dict[str, Bounds]]):
    """Bounds by the name of the check."""


@dataclass
class Finding:
    """One measurement of one subject and its level: pass, warn or fail."""

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
    """pass, warn or fail, with every measurement; `reasons` are the texts of those that did not pass."""

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
    findings: list[Finding] = field(default_factory=list)
    version: int = FORMAT_VERSION
    groot_ros: str = __version__

    @property
    def reasons(self) -> list[str]:
        """Why it is not a pass, the worst first."""
        failed = [self.failure] if self.failure else []
        return failed + [
            finding.text for level in ('fail', 'warn') for finding in self.findings if finding.level == level
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), 'reasons': self.reasons}

    def save(self, folder: Path) -> None:
        """Writes verdict.json into a bag's folder."""
        text = json.dumps(self.as_dict(), indent=1, allow_nan=False)
        (folder / f'{VERDICT_FILE}.new').write_text(text + '\n')
        (folder / f'{VERDICT_FILE}.new').replace(folder / VERDICT_FILE)


def load_thresholds(path: str = '') -> Thresholds:
    """Those of config/quality_thresholds.yaml, changed by a file of the same form. Raises GrootRosError naming what is wrong with it."""
    shipped = read_yaml(share_directory() / 'config' / 'quality_thresholds.yaml', 'The file of thresholds')
    own = checked(
        Thresholds,
        (read_yaml(Path(path), 'The file of thresholds') or {}) if path else {},
        f'The file of thresholds {path}',
    )
    if unknown := set(own.root) - set(CHECKS):
        raise GrootRosError(
            f'{path} names {", ".join(sorted(unknown))}, which is no check: the checks are {", ".join(CHECKS)}.'
        )
    return Thresholds.model_validate({**shipped, **own.model_dump()})


def judge(
    trace: EpisodeTrace, thresholds: Thresholds, info: dict[str, Any], episode: str, failure: str = ''
) -> Verdict:
    """The verdict on a trace; `info` is what the bag says of the episode, `failure` what ended the recording early."""
    findings = [
        _finding(name, subject, value, thresholds.root.get(name, Bounds()))
        for name, check in CHECKS.items()
        for subject, value in check.measure(trace)
    ]
    worst = max((LEVELS.index(finding.level) for finding in findings), default=0)
    return Verdict(
        verdict='fail' if failure or not trace.rows else LEVELS[worst],
        episode=episode,
        task=str(info.get('task', '')),
        outcome=str(info.get('outcome', 'unknown')),
        rows=trace.rows,
        duration_s=trace.rows / trace.embodiment.fps,
        segments=len(set(trace.segments.tolist())),
        filled=trace.filled,
        lost=trace.lost,
        failure=failure or ('' if trace.rows else 'the episode has no row'),
        findings=findings,
    )


def _finding(name: str, subject: str, value: float, bounds: Bounds) -> Finding:
    check = CHECKS[name]
    value = float(value) if math.isfinite(value) else 1e9
    level = next(
        (
            level
            for level in ('fail', 'warn')
            if _beyond(value, getattr(bounds, level), check.smaller_is_worse)
        ),
        'pass',
    )
    limit = '' if level == 'pass' else f' (bound {bounds.fail if level == "fail" else bounds.warn:g})'
    text = f'{f"{subject}: " if subject else ""}{check.says}: {format_value(value, check.unit)}{limit}'
    return Finding(level, name, subject, value, check.unit, bounds.warn, bounds.fail, text)


def format_value(value: float, unit: str) -> str:
    """A number with its unit as people read it."""
    if unit == 'share':
        return f'{value:.2%}'
    return f'{value:.4g} {unit}'.rstrip()


def _beyond(value: float, bound: float | None, smaller_is_worse: bool) -> bool:
    if bound is None:
        return False
    return value <= bound if smaller_is_worse else value >= bound
