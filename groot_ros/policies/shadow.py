# SPDX-License-Identifier: Apache-2.0
"""Shadow mode: a policy runs while the operator moves the arm, and commands nothing.

Its action chunks are compared with the actions of the operator.
"""

import json
from collections import deque
from pathlib import Path

import numpy as np

from groot_ros.policies.evaluate import Evaluation
from groot_ros.policies.inference_worker import InferenceResult, InferenceWorker
from groot_ros.policies.observation_builder import ObservationBuilder, ObservationUnavailable


class Shadow:
    """Runs a policy in shadow mode: call `tick` often.

    The errors of a chunk are added to `evaluation` when its last step has passed. `problem` is why the last
    observation or inference failed.
    """

    def __init__(
        self,
        worker: InferenceWorker,
        builder: ObservationBuilder,
        period_s: float,
        inference_interval_s: float,
    ) -> None:
        self.evaluation = Evaluation(worker.policy.spec.name)
        self.problem = ''
        self._worker = worker
        self._builder = builder
        self._row_ns = round(period_s * 1e9)
        self._interval_ns = round(inference_interval_s * 1e9)
        self._next_ns = 0
        self._is_first = True
        self._waiting: deque[InferenceResult] = deque()

    def tick(self, now_ns: int, task: str) -> None:
        """Takes a result, requests an inference when it is due, and compares chunks whose time has passed."""
        if (result := self._worker.poll()) is not None:
            self._handle_result(result)
        while self._waiting and self._compare(self._waiting[0]):
            self._waiting.popleft()
        if now_ns >= self._next_ns and not self._worker.busy:
            self._next_ns = now_ns + self._interval_ns
            self._request(now_ns, task)

    def _request(self, now_ns: int, task: str) -> None:
        observation = self._builder.observe(now_ns, task)
        if isinstance(observation, ObservationUnavailable):
            self.problem = observation.reason
            return
        self._worker.submit(observation, reset=self._is_first)
        self._is_first = False

    def mean_errors(self) -> dict[str, str]:
        """The mean absolute error of each action so far, as text for /diagnostics."""
        errors = self.evaluation.as_dict()['keys']
        return {f'mean error of {name}': f'{content["mae"]:.5g}' for name, content in errors.items()}

    def _handle_result(self, result: InferenceResult) -> None:
        self.problem = result.problem
        if not result.problem:
            self._waiting.append(result)

    def _compare(self, result: InferenceResult) -> bool:
        """Adds the errors of a chunk; returns False while its last step has not passed."""
        steps = max((len(values) for values in result.action.values()), default=0)
        if not steps:
            return True
        recorded = self._builder.actions(result.observation.tick_ns + self._row_ns * np.arange(steps + 1))
        if recorded is None:
            return False
        if isinstance(recorded, ObservationUnavailable):
            self.problem = recorded.reason
        else:
            self.evaluation.add(result.action, recorded, self._builder.embodiment.action_slices)
        return True


def write_shadow_report(evaluation: Evaluation, path: Path) -> None:
    """Writes the errors as JSON to `path`, and a plot next to it as PNG. Raises OSError if that fails."""
    from groot_ros.reports.plots import write_error_plot

    content = evaluation.as_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + '\n')
    write_error_plot([content], path.with_suffix('.png'))
