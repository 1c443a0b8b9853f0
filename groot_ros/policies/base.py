"""The interface of a policy, whatever runs behind it."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array


class PolicyError(GrootRosError):
    """A policy that cannot answer; the text says why and what to do."""


@dataclass
class Observation:
    """What a policy sees: the state (D,) of a tick, RGB images (height, width, 3) by camera name, and the task."""

    tick_ns: int
    state: Array
    images: dict[str, np.ndarray] = field(default_factory=dict)
    task: str = ''


@dataclass
class PolicySpec:
    """Steps of a chunk, whether a policy looks at state and images (one that does not is asked without), and whether it comes to an end."""

    name: str
    horizon: int
    observes: bool = True
    ends: bool = False


class Policy(Protocol):
    """`infer` gives the next steps by action key, (H, size) each: H may fall at the end of a replay, and is 0 when it has ended."""

    spec: PolicySpec

    def infer(self, observation: Observation) -> dict[str, Array]:
        """The actions of the steps after the observation, one every 1 / fps. Raises PolicyError."""

    def reset(self) -> None:
        """Begins anew."""

    def close(self) -> None:
        """Releases what it holds."""
