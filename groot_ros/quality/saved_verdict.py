# SPDX-License-Identifier: Apache-2.0
"""The verdict.json of an episode, read again: what it says, or that it cannot be believed."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from groot_ros.bags.reader import EpisodeBag, naming_bag
from groot_ros.config_files import checked
from groot_ros.errors import GrootRosError
from groot_ros.quality.trace_from_bag import load_bag_embodiment, load_trace
from groot_ros.quality.verdict import judge, load_thresholds
from groot_ros.resources import VERDICT_FILE

_Level = Literal['pass', 'warn', 'fail']


class SavedFinding(BaseModel):
    """One finding of a verdict; `warn` and `fail` are the limits of its check."""

    level: _Level
    text: str
    check: str = ''
    subject: str = ''
    warn: float | None = None
    fail: float | None = None


class SavedVerdict(BaseModel):
    """What the converter needs of a verdict."""

    verdict: _Level
    failure: str = ''
    findings: list[SavedFinding] = []

    @property
    def failures(self) -> list[str]:
        """Why the verdict is fail, in sentences; empty if it is not."""
        if self.verdict != 'fail':
            return []
        texts = [finding.text for finding in self.findings if finding.level == 'fail']
        return [self.failure, *texts] if self.failure else texts or ['its verdict is fail']


def parse_verdict(text: str) -> SavedVerdict:
    """The verdict that a text holds. Raises GrootRosError if it is empty, cut off or of another form."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GrootRosError(f'{VERDICT_FILE} is not JSON ({error}).') from error
    return checked(SavedVerdict, content, VERDICT_FILE)


def judge_again(bag_path: Path) -> SavedVerdict:
    """The verdict of a bag, made from its messages with the thresholds of groot_ros.

    Raises GrootRosError for a bag that cannot be read.
    """
    with EpisodeBag(bag_path) as bag:
        embodiment = load_bag_embodiment(bag)
        with naming_bag(bag_path):
            trace = load_trace(bag, embodiment)
        failure = str(bag.info.get('failure', ''))
        verdict = judge(trace, load_thresholds(), bag.info, bag_path.name, failure)
    return SavedVerdict.model_validate(verdict.as_dict())
