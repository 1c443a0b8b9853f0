"""Policies of this package behind the wire, for trying a set-up without a model."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from groot_ros.embodiment import Embodiment
from groot_ros.policies.base import Observation, Policy
from groot_ros.policies.wire import Modality


class LocalBackend:
    """Answers for a policy as a model with the embodiment's own rows would."""

    def __init__(self, policy: Policy, embodiment: Embodiment, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._policy, self._embodiment, self._clock_ns = policy, embodiment, clock_ns

    def modalities(self) -> dict[str, Modality]:
        """The embodiment's names."""
        embodiment = self._embodiment
        return {
            'video': Modality([0], [camera.name for camera in embodiment.cameras]),
            'state': Modality([0], list(embodiment.state_slices)),
            'action': Modality(list(range(self._policy.spec.horizon)), list(embodiment.action_slices)),
            'language': Modality([0], [embodiment.language]),
        }

    def get_action(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The policy's steps at the time of the request."""
        state = self._state(observation)
        action = self._policy.infer(Observation(self._clock_ns(), state))
        return {name: np.asarray(values, np.float32)[None] for name, values in action.items()}

    def reset(self) -> None:
        """Begins anew."""
        self._policy.reset()

    def _state(self, observation: dict[str, Any]) -> np.ndarray:
        states = observation.get('state', {})
        parts = [states.get(name, observation.get(f'state.{name}')) for name in self._embodiment.state_slices]
        return (
            np.concatenate([np.ravel(part) for part in parts]) if all(part is not None for part in parts) else np.zeros(self._embodiment.state_size)
        )
