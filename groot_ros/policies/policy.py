# SPDX-License-Identifier: Apache-2.0
"""The interface of a policy, for local and remote models and for replays."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

from groot_ros.embodiment import Embodiment
from groot_ros.geometry import Array


@dataclass
class Observation:
    """What a policy sees at a tick: the state (D,), images by camera name, and the task.

    Images are RGB (height, width, 3). `earlier` has the observations of earlier rows by index (-1 is one row
    earlier), if the policy uses some.
    For real-time chunking (RTC), `follows_ns` identifies the chunk being executed by the tick of its
    observation; `elapsed_steps` of it are past at this tick; the next `frozen_steps` will be executed before
    the new chunk arrives and must not change. A remote model is given up after `reply_timeout_s`.
    """

    tick_ns: int
    state: Array
    images: dict[str, np.ndarray] = field(default_factory=dict)
    task: str = ''
    earlier: dict[int, 'Observation'] = field(default_factory=dict)
    follows_ns: int | None = None
    elapsed_steps: int = 0
    frozen_steps: int = 0
    reply_timeout_s: float = np.inf

    def at(self, step: int) -> 'Observation':
        """The observation of a row: 0 is the present one, -1 the one before."""
        return self.earlier[step] if step else self


@dataclass
class PolicySpec:
    """The properties of a policy.

    `horizon` is the number of steps of a chunk. `observation_indices` are the rows that the policy sees,
    relative to the present one (0). A policy that does not observe gets neither state nor images; one that
    `ends`, such as a replay, has a last step; one that `continues` uses which chunk is being executed (RTC).
    `action_keys` are those of its chunks, if not those of the embodiment, such as eef_9d.
    """

    name: str
    horizon: int
    observes: bool = True
    ends: bool = False
    continues: bool = False
    observation_indices: tuple[int, ...] = (0,)
    action_keys: tuple[str, ...] = ()


class Policy(ABC):
    """Anything that predicts action chunks from observations.

    A chunk is {action key: (H, size)}. H is `spec.horizon`; towards the end of a replay it falls to 0.
    """

    spec: PolicySpec

    @abstractmethod
    def infer(self, observation: Observation) -> dict[str, Array]:
        """The actions of the steps after the observation, one every `period_s`.

        Raises PolicyError if the policy cannot answer.
        """

    def reset(self) -> None:  # noqa: B027, most policies have no state
        """Starts a new run: forgets what belongs to the one before."""

    def unavailable_reason(self) -> str:
        """Why the policy cannot answer now; empty if it can."""
        return ''

    def period_s(self, embodiment: Embodiment) -> float:
        """Time between two steps of a chunk in s."""
        return 1.0 / embodiment.fps

    def close(self) -> None:  # noqa: B027, most policies have nothing to close
        """Ends its connections and processes."""
