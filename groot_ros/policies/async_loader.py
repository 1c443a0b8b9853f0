# SPDX-License-Identifier: Apache-2.0
"""Policies are made in a thread of their own: a model takes minutes to load, and the robot's node has other things to do meanwhile."""

import queue
import threading
from collections.abc import Callable

from groot_ros.policies.policy import Observation, Policy


class Loader:
    """Makes one policy at a time. `poll` gives it once, or the exception that came instead; `busy` says that one is being made."""

    def __init__(self) -> None:
        self.busy = False
        self._made: queue.SimpleQueue[Policy | Exception] = queue.SimpleQueue()

    def start(self, make: Callable[[], Policy], observation: Observation | None = None) -> None:
        """Makes a policy, and asks it once, where there is an observation: a model's first answer takes longer than those that follow."""
        self.busy = True
        threading.Thread(target=self._run, args=(make, observation), name='loading', daemon=True).start()

    def poll(self) -> Policy | Exception | None:
        """What came of it."""
        if self._made.empty():
            return None
        self.busy = False
        return self._made.get()

    def _run(self, make: Callable[[], Policy], observation: Observation | None) -> None:
        try:
            policy = make()
            if observation is not None and policy.spec.observes:
                try:
                    policy.reset()
                    policy.infer(observation)
                except Exception:
                    policy.close()
                    raise
        except Exception as error:  # whatever a model's libraries raise refuses the model, and nothing else
            self._made.put(error)
        else:
            self._made.put(policy)
