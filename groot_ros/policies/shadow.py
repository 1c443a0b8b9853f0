# SPDX-License-Identifier: Apache-2.0
"""Shadow mode: a policy sees what the operator sees, commands nothing, and its chunks are compared with what the operator did."""

import json
from collections import deque
from pathlib import Path

import numpy as np

from groot_ros.policies.evaluate import Evaluation
from groot_ros.policies.inference_worker import InferenceResult, InferenceWorker
from groot_ros.policies.observation_builder import ObservationBuilder, ObservationUnavailable


class Shadow:
    """Call `tick` often. The errors of a chunk are known when its last step has passed."""

    def __init__(
        self,
        worker: InferenceWorker,
        builder: ObservationBuilder,
        period_s: float,
        inference_interval_s: float,
    ) -> None:
        self.evaluation = Evaluation(worker.policy.spec.name)
        self.problem = ''
        self._worker, self._builder = worker, builder
        self._row_ns, self._replan_ns = round(period_s * 1e9), round(inference_interval_s * 1e9)
        self._next_ns = 0
        self._fresh = True
        self._waiting: deque[InferenceResult] = deque()

    def tick(self, now_ns: int, task: str) -> None:
        """Takes answers, asks when it is time, and compares what can be compared."""
        if (result := self._worker.poll()) is not None:
            self._handle_result(result)
        while self._waiting and self._compare(self._waiting[0]):
            self._waiting.popleft()
        if now_ns >= self._next_ns and not self._worker.busy:
            self._next_ns = now_ns + self._replan_ns
            seen = self._builder.observe(now_ns, task)
            if isinstance(seen, ObservationUnavailable):
                self.problem = seen.reason
            else:
                self._worker.submit(seen, reset=self._fresh)
                self._fresh = False

    def mean_errors(self) -> dict[str, str]:
        """The mean absolute error of each action so far, as text for /diagnostics."""
        errors = self.evaluation.as_dict()['keys']
        return {f'mean error of {name}': f'{content["mae"]:.5g}' for name, content in errors.items()}

    def _handle_result(self, result: InferenceResult) -> None:
        self.problem = result.problem
        if not result.problem:
            self._waiting.append(result)

    def _compare(self, result: InferenceResult) -> bool:
        """Whether it is done with, compared or not."""
        steps = max((len(values) for values in result.action.values()), default=0)
        recorded = (
            self._builder.actions(result.observation.tick_ns + self._row_ns * np.arange(steps + 1))
            if steps
            else np.zeros((0, 0))
        )
        if recorded is None:
            return False
        if isinstance(recorded, ObservationUnavailable):
            self.problem = recorded.reason
        elif steps:
            self.evaluation.note(result.action, recorded, self._builder.embodiment.action_slices)
        return True


def write_shadow_report(evaluation: Evaluation, path: Path) -> None:
    """Writes the errors as JSON to `path`, and a plot next to it as PNG. Raises OSError if that fails."""
    from groot_ros.reports.plots import write_error_plot

    content = evaluation.as_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + '\n')
    write_error_plot([content], path.with_suffix('.png'))
