# SPDX-License-Identifier: Apache-2.0
"""Serves a policy of this package over GR00T's protocol, to try a set-up without a model."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from groot_ros.embodiment import Embodiment
from groot_ros.inference.protocol import Modality
from groot_ros.policies.policy import Observation, Policy


class LocalBackend:
    """A ModelBackend for a policy; its modalities have the keys of the embodiment."""

    def __init__(
        self, policy: Policy, embodiment: Embodiment, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._policy = policy
        self._embodiment = embodiment
        self._clock_ns = clock_ns
        self.name = policy.spec.name

    def modalities(self) -> dict[str, Modality]:
        """The keys of the embodiment and the steps of the policy."""
        embodiment = self._embodiment
        return {
            'video': Modality([0], [camera.name for camera in embodiment.cameras]),
            'state': Modality([0], list(embodiment.state_slices)),
            'action': Modality(list(range(self._policy.spec.horizon)), list(embodiment.action_slices)),
            'language': Modality([0], [embodiment.language]),
        }

    def extra_info(self) -> dict[str, Any]:
        """Empty: these policies use no images and continue no chunks."""
        return {}

    def get_action(
        self, observation: dict[str, Any], options: dict[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The policy's actions (1, H, size) by key; a replay continues by the time of the request."""
        action = self._policy.infer(Observation(self._clock_ns(), np.zeros(0)))
        return {name: np.asarray(values, np.float32)[None] for name, values in action.items()}, {}

    def reset(self) -> None:
        """Starts a new run of the policy."""
        self._policy.reset()
