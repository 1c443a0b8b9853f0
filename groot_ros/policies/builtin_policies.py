# SPDX-License-Identifier: Apache-2.0
"""Policies that need no model: one that holds, and one that fails in a chosen way, for tests of what follows."""

import time
from collections.abc import Callable

import numpy as np

from groot_ros.embodiment import Embodiment
from groot_ros.errors import GrootRosError, PolicyError
from groot_ros.geometry import Array
from groot_ros.policies.action_decoder import gripper_key
from groot_ros.policies.policy import Observation, Policy, PolicySpec

HORIZON = 16


class HoldPolicy(Policy):
    """Asks for no motion, and leaves the gripper alone."""

    def __init__(self, embodiment: Embodiment, horizon: int = HORIZON) -> None:
        self.spec = PolicySpec('hold', horizon, observes=False)
        gripper = gripper_key(embodiment)
        self._parts = {
            name: part.stop - part.start for name, part in embodiment.action_slices.items() if name != gripper
        }

    def infer(self, observation: Observation) -> dict[str, Array]:
        """Steps of nothing."""
        return {name: np.zeros((self.spec.horizon, size)) for name, size in self._parts.items()}


class ScriptedPolicy(HoldPolicy):
    """Moves slowly along x, and from the `after`-th request on fails as `fault` says."""

    def __init__(
        self,
        embodiment: Embodiment,
        fault: str = '',
        after: int = 5,
        late_s: float = 1.5,
        hang_s: float = 30.0,
    ) -> None:
        super().__init__(embodiment)
        if fault not in FAULTS:
            raise GrootRosError(
                f'There is no fault {fault!r}: choose one of {", ".join(filter(None, FAULTS))}.'
            )
        self.spec = PolicySpec(f'scripted {fault}'.rstrip(), HORIZON, observes=False)
        self.late_s, self.hang_s = late_s, hang_s
        self._fault, self._after, self._asked = FAULTS[fault], after, 0
        self._moving = next((field.name for field in embodiment.action if field.kind == 'delta_position'), '')

    def infer(self, observation: Observation) -> dict[str, Array]:
        """The next steps, or what the fault makes of them."""
        chunk = super().infer(observation)
        if self._moving:
            chunk[self._moving][:, 0] = 0.002
        self._asked += 1
        return self._fault(self, chunk) if self._asked > self._after else chunk

    def reset(self) -> None:
        """Well again."""
        self._asked = 0


def _late(policy: ScriptedPolicy, chunk: dict[str, Array]) -> dict[str, Array]:
    time.sleep(policy.late_s)
    return chunk


def _hanging(policy: ScriptedPolicy, chunk: dict[str, Array]) -> dict[str, Array]:
    time.sleep(policy.hang_s)
    return chunk


def _not_a_number(policy: ScriptedPolicy, chunk: dict[str, Array]) -> dict[str, Array]:
    return {
        name: np.where(np.arange(len(values))[:, None] == 7, np.nan, values) for name, values in chunk.items()
    }


def _jumping(policy: ScriptedPolicy, chunk: dict[str, Array]) -> dict[str, Array]:
    return {name: values + 0.3 * (np.arange(len(values))[:, None] == 7) for name, values in chunk.items()}


def _crashing(policy: ScriptedPolicy, chunk: dict[str, Array]) -> dict[str, Array]:
    raise PolicyError('the scripted policy crashed, as it was asked to')


FAULTS: dict[str, Callable[[ScriptedPolicy, dict[str, Array]], dict[str, Array]]] = {
    '': lambda policy, chunk: chunk,
    'late': _late,
    'empty': lambda policy, chunk: {name: values[:0] for name, values in chunk.items()},
    'not_a_number': _not_a_number,
    'jumping': _jumping,
    'shape': lambda policy, chunk: {name: values[:, :-1] for name, values in chunk.items()},
    'hanging': _hanging,
    'crashing': _crashing,
}
