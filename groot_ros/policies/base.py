"""The interface of a policy, whatever runs behind it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from groot_ros.geometry import Array


@dataclass
class Observation:
    """What a policy sees: the state (D,) of a tick, RGB images by camera name, and the task."""

    tick_ns: int
    state: Array
    images: dict[str, np.ndarray]
    task: str


@dataclass
class PolicySpec:
    """What a policy needs and gives: the embodiment's name, its rate, and how many steps a chunk holds."""

    embodiment: str
    fps: float
    horizon: int


class Policy(Protocol):
    """`infer` gives a chunk (H, A) of future actions, fewer rows at the end of a replay, none when it has ended."""

    spec: PolicySpec

    def infer(self, observation: Observation) -> Array:
        """The next actions, one a tick of 1 / fps."""

    def reset(self) -> None:
        """Begins anew."""
