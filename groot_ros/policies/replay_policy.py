# SPDX-License-Identifier: Apache-2.0
"""Plays the recorded actions of one episode of a dataset, so that what was converted moves the robot."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from groot_ros.dataset.writers.features import data_file
from groot_ros.embodiment import ACTION_COLUMN, STATE_COLUMN, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.policies.policy import Observation, Policy, PolicySpec


class ReplayPolicy(Policy):
    """The actions of an episode, by the time since the first observation. `start_state` is where the recording began."""

    def __init__(self, dataset: Path, episode: int, embodiment: Embodiment, horizon: int = 16) -> None:
        info = _info(dataset)
        path = data_file(dataset, episode)
        if not path.is_file():
            raise GrootRosError(
                f'{dataset} has no episode {episode}: it has {info.get("total_episodes")}, counted from 0.'
            )
        table = pq.read_table(path, columns=[STATE_COLUMN, ACTION_COLUMN])
        self.states = np.array(table[STATE_COLUMN].to_pylist(), float)
        self.actions = np.array(table[ACTION_COLUMN].to_pylist(), float)
        if self.actions.shape[1] != embodiment.action_size or self.states.shape[1] != embodiment.state_size:
            raise GrootRosError(
                f'Episode {episode} of {dataset} has {self.states.shape[1]} states and {self.actions.shape[1]} actions, '
                f'the embodiment {embodiment.name} {embodiment.state_size} and {embodiment.action_size}: name the embodiment it was made with.'
            )
        self.spec = PolicySpec(
            f'replay of {dataset.name} episode {episode}', horizon, observes=False, ends=True
        )
        self.fps = float(info['fps'])
        self._slices = embodiment.action_slices
        self._began_ns: int | None = None

    @property
    def start_state(self) -> Array:
        """State (D,) of the first row."""
        return self.states[0]

    def infer(self, observation: Observation) -> dict[str, Array]:
        """The steps from the observation's time on; no step once the episode has ended."""
        if self._began_ns is None:
            self._began_ns = observation.tick_ns
        first = round((observation.tick_ns - self._began_ns) * self.fps / 1e9)
        chunk = self.actions[first : first + self.spec.horizon]
        return {name: chunk[:, part] for name, part in self._slices.items()}

    def reset(self) -> None:
        """Back to the first action, whenever the next observation comes."""
        self._began_ns = None


def _info(dataset: Path) -> dict:
    try:
        return json.loads((dataset / 'meta' / 'info.json').read_text())
    except (OSError, ValueError) as error:
        raise GrootRosError(
            f'{dataset} is not a dataset: its meta/info.json cannot be read ({error}).'
        ) from error
