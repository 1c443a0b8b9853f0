# SPDX-License-Identifier: Apache-2.0
"""Policies that need no model: one that does not move, and one that fails in a chosen way, for tests."""

import time
from collections.abc import Callable

import numpy as np

from groot_ros.embodiment import Embodiment
from groot_ros.errors import PolicyError, choose
from groot_ros.geometry import Array
from groot_ros.policies.action_decoder import gripper_key
from groot_ros.policies.policy import Observation, Policy, PolicySpec

HORIZON = 16
_FAULTY_STEP = 7


class HoldPolicy(Policy):
    """Commands zero deltas, and no gripper opening."""

    def __init__(self, embodiment: Embodiment, horizon: int = HORIZON) -> None:
        self.spec = PolicySpec('hold', horizon, observes=False)
        gripper = gripper_key(embodiment)
        self._sizes = {
            name: part.stop - part.start for name, part in embodiment.action_slices.items() if name != gripper
        }

    def infer(self, observation: Observation) -> dict[str, Array]:
        """A chunk of zeros, (H, size) for each action but the gripper's."""
        return {name: np.zeros((self.spec.horizon, size)) for name, size in self._sizes.items()}


class ScriptedPolicy(HoldPolicy):
    """Moves slowly along x, and after `after` requests fails as `fault` says (a key of FAULTS).

    Raises GrootRosError if the fault is not known.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        fault: str = '',
        after: int = 5,
        late_s: float = 1.5,
        hang_s: float = 30.0,
    ) -> None:
        super().__init__(embodiment)
        if fault:
            choose('fault', fault, filter(None, FAULTS))
        self.spec = PolicySpec(f'scripted {fault}'.rstrip(), HORIZON, observes=False)
        self.late_s = late_s
        self.hang_s = hang_s
        self._fault = FAULTS[fault]
        self._after = after
        self._requests = 0
        positions = (field.name for field in embodiment.action if field.kind == 'delta_position')
        self._moving_key = next(positions, '')

    def infer(self, observation: Observation) -> dict[str, Array]:
        """A chunk that moves 2 mm per step, or what the fault makes of it."""
        chunk = super().infer(observation)
        if self._moving_key:
            chunk[self._moving_key][:, 0] = 0.002
        self._requests += 1
        if self._requests <= self._after:
            return chunk
        return self._fault(self, chunk)

    def reset(self) -> None:
        """Counts the requests from 0 again, so that the fault is postponed."""
        self._requests = 0


def _late(policy: ScriptedPolicy, chunk: dict[str, Array]) -> dict[str, Array]:
    time.sleep(policy.late_s)
    return chunk


def _hanging(policy: ScriptedPolicy, chunk: dict[str, Array]) -> dict[str, Array]:
    time.sleep(policy.hang_s)
    return chunk


def _not_a_number(policy: ScriptedPolicy, chunk: dict[str, Array]) -> dict[str, Array]:
    return {name: np.where(_is_faulty_step(values), np.nan, values) for name, values in chunk.items()}


def _jumping(policy: ScriptedPolicy, chunk: dict[str, Array]) -> dict[str, Array]:
    return {name: values + 0.3 * _is_faulty_step(values) for name, values in chunk.items()}


def _is_faulty_step(values: Array) -> Array:
    """True for the one step (H, 1) of a chunk that is changed."""
    return np.arange(len(values))[:, None] == _FAULTY_STEP


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
