# SPDX-License-Identifier: Apache-2.0
"""One request at a time in a thread of its own, so that no result, late or never, disturbs the commands."""

import queue
import threading
import time
from dataclasses import dataclass

from groot_ros.geometry import Array
from groot_ros.policies.policy import Observation, Policy


@dataclass
class InferenceResult:
    """What came of a request: actions by key, or why there are none. Times are those of `time.monotonic`."""

    observation: Observation
    requested_s: float
    replied_s: float
    action: dict[str, Array]
    problem: str = ''


class InferenceWorker:
    """Asks a policy. `poll` gives its result once; one that takes longer than `timeout_s` is given up."""

    def __init__(self, policy: Policy, timeout_s: float) -> None:
        self.policy, self._timeout_s = policy, timeout_s
        self._requests: queue.SimpleQueue = queue.SimpleQueue()
        self._results: queue.SimpleQueue = queue.SimpleQueue()
        self._asked: tuple[Observation, float] | None = None
        self._number = self._done = 0
        self._thread = threading.Thread(target=self._run, name='policy', daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a request is under way, or one that was given up still runs."""
        return self._asked is not None or self._done < self._number

    def submit(self, observation: Observation, reset: bool = False) -> None:
        """Hands over an observation; `reset` begins a new run before it."""
        self._number += 1
        self._asked = (observation, time.monotonic())
        self._requests.put((self._number, observation, self._asked[1], reset))

    def poll(self) -> InferenceResult | None:
        """The result, once it is there, or the news that it did not come in time."""
        while not self._results.empty():
            number, result = self._results.get()
            if self._asked is not None and number == self._number:
                self._asked = None
                return result
        if self._asked is not None and time.monotonic() - self._asked[1] > self._timeout_s:
            observation, requested_s = self._asked
            self._asked = None
            return InferenceResult(
                observation,
                requested_s,
                time.monotonic(),
                {},
                f'{self.policy.spec.name} gave no answer for {self._timeout_s:g} s',
            )
        return None

    def discard(self) -> None:
        """The result under way is not wanted any more."""
        self._asked = None

    def close(self) -> None:
        """Ends the thread; one that hangs in a policy is left to the end of the process."""
        self._requests.put(None)
        self._thread.join(timeout=0.5)
        if not self._thread.is_alive():
            self.policy.close()

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            number, observation, requested_s, reset = request
            action, problem = {}, ''
            try:
                if reset:
                    self.policy.reset()
                action = self.policy.infer(observation)
            except (
                Exception
            ) as error:  # whatever a model raises must stop the arm in order, and not this thread
                problem = str(error) or type(error).__name__
            self._done = number
            self._results.put(
                (number, InferenceResult(observation, requested_s, time.monotonic(), action, problem))
            )
