# SPDX-License-Identifier: Apache-2.0
"""Shadow mode: a policy runs while the operator moves the arm, and commands nothing.

Its action chunks are compared with the actions of the operator.
"""

import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.policies.evaluate import Evaluation
from groot_ros.policies.inference_worker import InferenceResult, InferenceWorker
from groot_ros.policies.observation_builder import ObservationBuilder, ObservationUnavailable
from groot_ros.policies.policy import Observation
from groot_ros.policies.recorded_actions import recorded_since

# Messages are not kept for longer chunks.
_MAX_STEPS = 500


class Shadow:
    """Runs a policy in shadow mode: call `tick` often.

    The errors of a chunk are added to `evaluation` when its last step has passed. `problem` is why the last
    observation, inference or comparison failed. No answer of the policy raises: what observes a
    demonstration must not end it.
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
        observation = self._observe(now_ns, task)
        if isinstance(observation, ObservationUnavailable):
            self.problem = observation.reason
            return
        self._worker.submit(observation, reset=self._is_first)
        self._is_first = False

    def _observe(self, now_ns: int, task: str) -> Observation | ObservationUnavailable:
        """What the policy sees. One that sees nothing begins at the tick of a complete observation."""
        observation = self._builder.observe(now_ns, task)
        if self._worker.policy.spec.observes or isinstance(observation, ObservationUnavailable):
            return observation
        return Observation(observation.tick_ns, np.zeros(0), {}, task)

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
        steps = max((len(np.atleast_1d(values)) for values in result.action.values()), default=0)
        if not steps:
            return True
        if steps > _MAX_STEPS:
            self.problem = f'The policy answers {steps} steps: at most {_MAX_STEPS} are compared.'
            return True
        recorded = self._builder.actions(result.observation.tick_ns + self._row_ns * np.arange(steps + 1))
        if recorded is None:
            return False
        if isinstance(recorded, ObservationUnavailable):
            self.problem = recorded.reason
        else:
            self._add(result, recorded)
        return True

    def _add(self, result: InferenceResult, recorded: Array) -> None:
        followed = recorded_since(result.observation.state, recorded, self._builder.embodiment)
        try:
            self.evaluation.add(result.action, followed)
        except GrootRosError as error:
            self.problem = str(error)


def report_shadow(
    evaluation: Evaluation, file: str, info: Callable[[str], None], warn: Callable[[str], None]
) -> None:
    """Logs the errors; writes them as JSON to `file`, if that is not empty, and a plot next to it as PNG."""
    if not evaluation.chunks:
        return
    for line in evaluation.summary_lines():
        info(line)
    if not file:
        return
    try:
        _write_report(evaluation.as_dict(), Path(file).expanduser())
    except OSError as error:
        warn(f'{file} could not be written ({error.strerror}): the errors are in the log above.')


def _write_report(content: dict[str, Any], path: Path) -> None:
    from groot_ros.reports.plots import write_error_plot

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + '\n')
    write_error_plot([content], path.with_suffix('.png'))
