# SPDX-License-Identifier: Apache-2.0
"""Serves a policy of this package, or one's own, over GR00T's protocol."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from groot_ros.embodiment import Embodiment
from groot_ros.errors import PolicyError
from groot_ros.geometry import Array
from groot_ros.inference.protocol import TICK_NS, Modality
from groot_ros.policies.policy import Observation, Policy


class LocalBackend:
    """A ModelBackend for a policy, which gets the state, the images and the task of a request.

    Its modalities have the keys of the embodiment, and the rows that the policy sees.
    """

    def __init__(
        self, policy: Policy, embodiment: Embodiment, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._policy = policy
        self._embodiment = embodiment
        self._clock_ns = clock_ns
        self._steps = sorted({0, *policy.spec.observation_indices})
        self.name = policy.spec.name

    def modalities(self) -> dict[str, Modality]:
        """The keys of the embodiment and the steps of the policy."""
        embodiment = self._embodiment
        spec = self._policy.spec
        actions = list(spec.action_keys or embodiment.action_slices)
        return {
            'video': Modality(self._steps, [camera.name for camera in embodiment.cameras]),
            'state': Modality(self._steps, list(embodiment.state_slices)),
            'action': Modality(list(range(spec.horizon)), actions),
            'language': Modality([0], [embodiment.language]),
        }

    def extra_info(self) -> dict[str, Any]:
        """The image sizes of the embodiment for a policy that sees, and that the time of a row is used."""
        sizes = {camera.name: [camera.width, camera.height] for camera in self._embodiment.cameras}
        return {'takes_time': True, **({'image_sizes': sizes} if self._policy.spec.observes else {})}

    def get_action(
        self, observation: dict[str, Any], options: dict[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The policy's actions (1, H, size) by key.

        A replay goes by the time of the observation, which clients of this package send in the options, and
        for others by the time of the request. Raises PolicyError for states of another size.
        """
        tick_ns = (options or {}).get(TICK_NS)
        if not isinstance(tick_ns, int):
            tick_ns = self._clock_ns()
        action = self._policy.infer(self._observation(observation, tick_ns))
        return {name: np.asarray(values, np.float32)[None] for name, values in action.items()}, {}

    def reset(self) -> None:
        """Starts a new run of the policy."""
        self._policy.reset()

    def _observation(self, observation: dict[str, Any], tick_ns: int) -> Observation:
        """The newest row of a request, with the earlier ones that it has."""
        states = self._states(observation['state'])
        task = observation['language'][self._embodiment.language][0][0]
        videos = {camera.name: observation['video'][camera.name] for camera in self._embodiment.cameras}
        rows = {}
        for place, step in enumerate(self._steps):
            images = {name: video[0, place] for name, video in videos.items()}
            stamp_ns = tick_ns + round(step * 1e9 / self._embodiment.fps)
            rows[step] = Observation(stamp_ns, states[place], images, task)
        newest = rows.pop(0)
        newest.earlier = rows
        return newest

    def _states(self, state: dict[str, Any]) -> Array:
        """The states (steps, D) of a request."""
        parts = []
        for name, part in self._embodiment.state_slices.items():
            values = state[name][0]
            if values.shape[1] != part.stop - part.start:
                raise PolicyError(
                    f'state {name} has {values.shape[1]} numbers, and the embodiment '
                    f'{self._embodiment.name} has {part.stop - part.start}'
                )
            parts.append(values.astype(float))
        return np.hstack(parts)
