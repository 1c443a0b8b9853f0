# SPDX-License-Identifier: Apache-2.0
"""Runs a policy in its own thread, one request at a time, so that a late result delays no command."""

import queue
import threading
import time
from dataclasses import dataclass

from groot_ros.geometry import Array
from groot_ros.policies.policy import Observation, Policy


@dataclass
class InferenceResult:
    """The actions {key: (H, size)} of a request, or in `problem` why there are none.

    The times are those of `time.monotonic`, in s.
    """

    observation: Observation
    requested_s: float
    replied_s: float
    action: dict[str, Array]
    problem: str = ''


class InferenceWorker:
    """Runs the inferences of a policy. A result that takes longer than `timeout_s` is given up."""

    def __init__(self, policy: Policy, timeout_s: float) -> None:
        self.policy = policy
        self._timeout_s = timeout_s
        self._requests: queue.SimpleQueue = queue.SimpleQueue()
        self._results: queue.SimpleQueue = queue.SimpleQueue()
        self._pending: tuple[Observation, float] | None = None
        self._last_submitted = 0
        self._last_finished = 0
        self._thread = threading.Thread(target=self._run, name='policy', daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a result is expected, or a request that was given up still runs."""
        return self._pending is not None or self._last_finished < self._last_submitted

    def submit(self, observation: Observation, reset: bool = False) -> None:
        """Requests an inference; with `reset` the policy is reset before it."""
        requested_s = time.monotonic()
        self._last_submitted += 1
        self._pending = (observation, requested_s)
        self._requests.put((self._last_submitted, observation, requested_s, reset))

    def poll(self) -> InferenceResult | None:
        """The result, once; None while there is none. After the timeout it is a result with a problem."""
        while not self._results.empty():
            number, result = self._results.get()
            if self._pending is not None and number == self._last_submitted:
                self._pending = None
                return result
        if self._pending is None:
            return None
        observation, requested_s = self._pending
        now_s = time.monotonic()
        if now_s - requested_s <= self._timeout_s:
            return None
        self._pending = None
        problem = f'{self.policy.spec.name} gave no answer for {self._timeout_s:g} s'
        return InferenceResult(observation, requested_s, now_s, {}, problem)

    def discard(self) -> None:
        """Ignores the result of the present request when it comes."""
        self._pending = None

    def close(self) -> None:
        """Ends the thread and closes the policy; a thread that hangs in the policy is left behind."""
        self._requests.put(None)
        self._thread.join(timeout=0.5)
        if not self._thread.is_alive():
            self.policy.close()

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            number, observation, requested_s, reset = request
            action = {}
            problem = ''
            try:
                if reset:
                    self.policy.reset()
                action = self.policy.infer(observation)
            # A model may raise anything: that must stop the arm in the normal way, and not end this thread.
            except Exception as error:
                problem = str(error) or type(error).__name__
            self._last_finished = number
            result = InferenceResult(observation, requested_s, time.monotonic(), action, problem)
            self._results.put((number, result))
