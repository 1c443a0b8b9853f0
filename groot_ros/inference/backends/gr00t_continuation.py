# SPDX-License-Identifier: Apache-2.0
"""Real-time chunking for NVIDIA's Gr00tPolicy of N1.7: a chunk goes on where the one being executed is.

The action head of N1.7 takes the rest of a chunk, but neither Gr00tPolicy nor its server passes one on. The
rest is known as absolute targets. What the checkpoint predicts relative to the state is expressed relative to
the newly observed state, and everything is normalised as in training: by the policy's own processor.
"""

import inspect
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from groot_ros.errors import BackendError

# How fast the rest of a chunk gives way after its frozen steps; users of GR00T report 5 to 6.
_RAMP_RATE = 5.0
_CHUNKS_KEPT = 8


def can_continue(policy: Any) -> bool:
    """Whether a Gr00tPolicy has all that continuing a chunk needs; that of N1.5 and N1.6 has not."""
    processor = getattr(getattr(policy, 'processor', None), 'state_action_processor', None)
    model = getattr(policy, 'model', None)
    if not callable(getattr(processor, 'apply_action', None)) or not hasattr(policy, 'collate_fn'):
        return False
    calls = [getattr(part, 'get_action', None) for part in (model, getattr(model, 'action_head', None))]
    return all(callable(call) and 'options' in inspect.signature(call).parameters for call in calls)


class ChunkContinuation:
    """Keeps the last chunks of a policy and gives the rest of one to its next inference."""

    def __init__(self, policy: Any, embodiment_tag: str) -> None:
        self._policy = policy
        self._tag = embodiment_tag
        self._chunks: OrderedDict[int, dict[str, np.ndarray]] = OrderedDict()
        self._last_number = 0

    def get_action(
        self, observation: dict[str, Any], options: dict[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Actions (1, H, size) and the number of the chunk.

        `options` may have `follows`: the number of the chunk being executed, elapsed_steps and frozen_steps.
        The frozen steps come back unchanged.
        """
        follows = (options or {}).get('follows') or {}
        left = self._left_over(follows)
        if left is None:
            action, info = self._policy.get_action(observation)
        else:
            steps = len(next(iter(left.values())))
            frozen = min(max(int(follows['frozen_steps']), 0), steps)
            with self._given(self._prefix(left, observation['state']), steps, frozen):
                action, info = self._policy.get_action(observation)
            action = {key: _with_first(values, left[key][:frozen]) for key, values in action.items()}
        self._last_number += 1
        self._chunks[self._last_number] = {key: np.asarray(values)[0] for key, values in action.items()}
        while len(self._chunks) > _CHUNKS_KEPT:
            self._chunks.popitem(last=False)
        return action, {**info, 'chunk': self._last_number}

    def reset(self) -> None:
        """Forgets the earlier chunks."""
        self._chunks.clear()

    def _left_over(self, follows: dict[str, Any]) -> dict[str, np.ndarray] | None:
        """The targets (n, size) of the chunk being executed that are not past; None if there are none."""
        chunk = self._chunks.get(follows.get('chunk', 0))
        if chunk is None:
            return None
        elapsed = max(int(follows['elapsed_steps']), 0)
        left = {key: values[elapsed:] for key, values in chunk.items()}
        return left if all(len(values) for values in left.values()) else None

    def _prefix(self, left: dict[str, np.ndarray], state: dict[str, np.ndarray]) -> np.ndarray:
        """The targets as the head has them: normalised (max_action_horizon, max_action_dim).

        Step k of the rest becomes step k of the new chunk, and has the statistics of that step. The rows
        after the rest are not read. Nothing is clipped, so that the frozen steps stay what is being executed.
        """
        processor = self._policy.processor
        config = processor.modality_configs[self._tag]['action']
        horizon = len(config.delta_indices)
        targets = {key: _lengthened(values, horizon) for key, values in left.items()}
        normaliser = processor.state_action_processor
        with _unclipped(normaliser):
            normalised = normaliser.apply_action(
                targets, self._tag, state={key: np.asarray(values)[0] for key, values in state.items()}
            )
        rows = np.concatenate([np.asarray(normalised[key]) for key in config.modality_keys], axis=-1)
        if not np.isfinite(rows).all():
            raise BackendError('The rest of the chunk being executed cannot be normalised: it is not finite.')
        prefix = np.zeros((processor.max_action_horizon, processor.max_action_dim), np.float32)
        prefix[:horizon, : rows.shape[1]] = rows
        return prefix

    @contextmanager
    def _given(self, prefix: np.ndarray, steps: int, frozen: int) -> Iterator[None]:
        """Gives the head the first `steps` of `prefix` in the policy's next inference.

        The head takes the steps before `action_horizon`.
        """
        policy = self._policy
        collate = policy.collate_fn
        infer = policy.model.get_action
        rtc = {
            'action_horizon': steps,
            'rtc_overlap_steps': steps,
            'rtc_frozen_steps': frozen,
            'rtc_ramp_rate': _RAMP_RATE,
        }
        policy.collate_fn = lambda items: collate([{**item, 'action': prefix} for item in items])
        policy.model.get_action = lambda *values, **named: infer(*values, **{**named, 'options': rtc})
        try:
            yield
        finally:
            policy.collate_fn = collate
            policy.model.get_action = infer


@contextmanager
def _unclipped(normaliser: Any) -> Iterator[None]:
    clips = normaliser.clip_outliers
    normaliser.clip_outliers = False
    try:
        yield
    finally:
        normaliser.clip_outliers = clips


def _lengthened(values: np.ndarray, steps: int) -> np.ndarray:
    """The values with the last one repeated up to a number of steps."""
    missing = max(steps - len(values), 0)
    return np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])[:steps]


def _with_first(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The actions (1, H, size) with the first steps replaced."""
    changed = np.array(values)
    changed[0, : len(first)] = first
    return changed
