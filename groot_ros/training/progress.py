# SPDX-License-Identifier: Apache-2.0
"""The lines that a trainer prints, as progress: our launcher's, and those of LeRobot."""

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

# As launcher.py prints it, which runs in another Python and is not imported.
_PREFIX = 'groot-ros-progress '
_LEROBOT_LINE = re.compile(r'\bstep:(\S+) .*?\bloss:(\S+)')
_LEROBOT_TIMES = re.compile(r'\bupdt_s:(\S+).*?\bdata_s:(\S+)')
_FACTORS = {'K': 1e3, 'M': 1e6, 'B': 1e9}


@dataclass
class Progress:
    """How far a run is.

    `waiting_share` is the share of time in which it waits for data, 0 to 1. `parameters` counts trained and
    frozen ones of each part of the model. `frozen_before` and `frozen_after` are hashes of frozen weights.
    """

    steps: int
    step: int = 0
    loss: float = math.nan
    samples_per_s: float = 0.0
    waiting_share: float = 0.0
    memory_gb: float = 0.0
    saved_step: int = 0
    parameters: dict[str, dict[str, int]] = field(default_factory=dict)
    frozen_before: str = ''
    frozen_after: str = ''
    problem: str = ''

    def summary(self) -> str:
        """The text behind a progress bar."""
        parts = [f'loss {self.loss:.3g}']
        if self.samples_per_s:
            parts.append(f'{self.samples_per_s:.3g} samples/s')
        if self.memory_gb:
            parts.append(f'{self.memory_gb:.1f} GB')
        if self.waiting_share:
            parts.append(f'waits {100 * self.waiting_share:.0f} % for data')
        return ', '.join(parts)


class ProgressReader:
    """Takes a trainer's lines one by one. `batch_size` is the number of samples in each step."""

    def __init__(self, steps: int, batch_size: int) -> None:
        self.progress = Progress(steps)
        self._batch_size = batch_size

    def read(self, line: str) -> bool:
        """Takes a line; returns whether it was one of progress, which a person need not see."""
        if line.startswith(_PREFIX):
            try:
                self._take(json.loads(line[len(_PREFIX) :]))
            except (ValueError, TypeError, KeyError):
                return False
            return True
        if found := _LEROBOT_LINE.search(line):
            self._take_lerobot(line, *found.groups())
            return True
        return False

    def _take(self, values: dict[str, Any]) -> None:
        event = values.pop('event')
        step = int(values.get('step', self.progress.step))
        self.progress.step = step
        self.progress.memory_gb = float(values.get('memory_gb', self.progress.memory_gb))
        if event == 'begin':
            self.progress.parameters = dict(values['parameters'])
            self.progress.frozen_before = str(values['frozen'])
        elif event == 'step':
            self.progress.loss = float(values['loss'])
            self.progress.samples_per_s = float(values['samples_per_s'])
            self.progress.waiting_share = float(values['waiting_share'])
        elif event == 'saved':
            self.progress.saved_step = step
        elif event == 'end':
            self.progress.frozen_after = str(values['frozen'])
        elif event == 'not_finite':
            self.progress.problem = f'the loss is not a number at step {step}'

    def _take_lerobot(self, line: str, step: str, loss: str) -> None:
        self.progress.step = int(_number(step))
        self.progress.loss = _number(loss)
        if not math.isfinite(self.progress.loss):
            self.progress.problem = f'the loss is not a number at step {self.progress.step}'
        if times := _LEROBOT_TIMES.search(line):
            update_s, data_s = (_number(text) for text in times.groups())
            if update_s + data_s > 0:
                self.progress.samples_per_s = self._batch_size / (update_s + data_s)
                self.progress.waiting_share = data_s / (update_s + data_s)


def _number(text: str) -> float:
    """A number as LeRobot prints it, such as 2K; NaN for anything else."""
    factor = _FACTORS.get(text[-1:], 1.0)
    try:
        return float(text.rstrip('KMB')) * factor
    except ValueError:
        return math.nan
