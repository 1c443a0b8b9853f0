# SPDX-License-Identifier: Apache-2.0
"""Statistics of trials in closed loop: success with its interval, time to success, comparison of policies."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from math import comb, sqrt
from typing import Any

import numpy as np

_Z_95 = 1.959964
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class TrialOutcome:
    """How one trial ended. `time_s` is that of the success, None without one.

    `lifted` says whether the cube was ever lifted; `reason` why the run ended, empty at its time limit.
    """

    success: bool
    time_s: float | None
    lifted: bool
    reason: str = ''


@dataclass
class SuccessResult:
    """The outcomes of a policy, in the order of the trials, which is the same for all policies."""

    policy: str
    outcomes: list[TrialOutcome] = field(default_factory=list)

    @property
    def successes(self) -> list[bool]:
        """Whether each trial succeeded, in the order of the trials."""
        return [outcome.success for outcome in self.outcomes]

    @property
    def share(self) -> float:
        """The share of successful trials, 0 without trials."""
        return sum(self.successes) / len(self.outcomes) if self.outcomes else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The Wilson interval of the share."""
        return wilson_interval(sum(self.successes), len(self.outcomes))

    @property
    def times_s(self) -> list[float]:
        """The times of the successes."""
        return [outcome.time_s for outcome in self.outcomes if outcome.time_s is not None]

    def summary_lines(self) -> list[str]:
        """The result as lines for people."""
        low, high = self.interval
        count = f'{sum(self.successes)} of {len(self.outcomes)}'
        interval = f'95 % interval {_percent(low)} to {_percent(high)}'
        lines = [f'{self.policy}: {_percent(self.share)} ({count}), {interval}']
        if self.times_s:
            median_s, late_s = np.quantile(self.times_s, [0.5, 0.9])
            lines.append(f'  time to success: median {median_s:.1f} s, 90th percentile {late_s:.1f} s')
        failures = Counter(_describe_failure(outcome) for outcome in self.outcomes if not outcome.success)
        lines += [f'  failed {number} times: {what}' for what, number in failures.most_common()]
        return lines

    def as_dict(self) -> dict[str, Any]:
        """The result with its interval, as values that JSON can hold."""
        return {
            'policy': self.policy,
            'trials': len(self.outcomes),
            'successes': sum(self.successes),
            'share': self.share,
            'interval_95': list(self.interval),
            'outcomes': [asdict(outcome) for outcome in self.outcomes],
        }


def wilson_interval(successes: int, trials: int, z: float = _Z_95) -> tuple[float, float]:
    """The Wilson score interval of a share, by default of 95 %; (0, 1) without trials.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    if not trials:
        return 0.0, 1.0
    share = successes / trials
    weight = z * z / trials
    centre = (share + weight / 2) / (1 + weight)
    half = z * sqrt(share * (1 - share) / trials + weight / (4 * trials)) / (1 + weight)
    # At 0 and 1 the bound is the share itself, but for rounding.
    low = min(max(centre - half, 0.0), share)
    high = max(min(centre + half, 1.0), share)
    return low, high


def mcnemar_p(first: list[bool], second: list[bool]) -> float:
    """The two-sided p-value of McNemar's exact test, for two policies on the same trials.

    Only trials in which they differ count; without any the value is 1. Raises ValueError for lists of
    different lengths.
    """
    pairs = list(zip(first, second, strict=True))
    only_first = sum(a and not b for a, b in pairs)
    only_second = sum(b and not a for a, b in pairs)
    differing = only_first + only_second
    if not differing:
        return 1.0
    tail = sum(comb(differing, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**differing)


def best(results: list[SuccessResult]) -> SuccessResult:
    """The result with the highest share of successes; of equal ones the one with the smaller median time."""
    return min(results, key=lambda result: (-result.share, _median_s(result)))


def comparison_lines(results: list[SuccessResult]) -> list[str]:
    """Says which policy to deploy, and how sure its lead over each of the others is. Empty for one result."""
    if len(results) < 2:
        return []
    chosen = best(results)
    lines = [f'Deploy {chosen.policy}.']
    for other in results:
        if other is not chosen:
            lines.append(_compare(chosen, other))
    return lines


def _compare(chosen: SuccessResult, other: SuccessResult) -> str:
    p = mcnemar_p(chosen.successes, other.successes)
    verdict = 'better than' if p < SIGNIFICANT else 'not shown to differ from'
    return f"  It is {verdict} {other.policy} (McNemar's exact test, p = {p:.3g})."


def _median_s(result: SuccessResult) -> float:
    return float(np.median(result.times_s)) if result.times_s else np.inf


def _describe_failure(outcome: TrialOutcome) -> str:
    stage = 'the cube was lifted and not placed' if outcome.lifted else 'the cube was not lifted'
    return f'{stage}; {outcome.reason}' if outcome.reason else stage


def _percent(share: float) -> str:
    return f'{100 * share:.1f} %'
