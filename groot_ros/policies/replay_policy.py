# SPDX-License-Identifier: Apache-2.0
"""Replays the recorded actions of one episode of a dataset."""

from pathlib import Path

from groot_ros.dataset.meta import DatasetMeta, column_to_array
from groot_ros.embodiment import ACTION_COLUMN, STATE_COLUMN, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.policies.policy import Observation, Policy, PolicySpec


class ReplayPolicy(Policy):
    """Gives the actions of an episode by the time since the first observation.

    Raises GrootRosError if the dataset was made with another embodiment.
    """

    def __init__(self, dataset: Path, episode: int, embodiment: Embodiment, horizon: int = 16) -> None:
        meta = DatasetMeta(dataset)
        table = meta.rows(episode, [STATE_COLUMN, ACTION_COLUMN])
        self.states = column_to_array(table, STATE_COLUMN).astype(float)
        self.actions = column_to_array(table, ACTION_COLUMN).astype(float)
        sizes = (self.states.shape[1:], self.actions.shape[1:])
        if sizes != ((embodiment.state_size,), (embodiment.action_size,)):
            raise GrootRosError(
                f'Episode {episode} of {dataset} has {_size(self.states)} state and '
                f'{_size(self.actions)} action numbers, the embodiment {embodiment.name} has '
                f'{embodiment.state_size} and {embodiment.action_size}: '
                'give the embodiment that the dataset was made with.'
            )
        if not len(self.states) or not meta.fps:
            raise GrootRosError(f'Episode {episode} of {dataset} has no rows, or its info.json no fps.')
        self.spec = PolicySpec(
            f'replay of {dataset.name} episode {episode}', horizon, observes=False, ends=True
        )
        self.fps = meta.fps
        self._slices = embodiment.action_slices
        self._began_ns: int | None = None

    @property
    def start_state(self) -> Array:
        """State (D,) of the first row."""
        return self.states[0]

    def period_s(self, embodiment: Embodiment) -> float:
        """Time between two rows of the recording in s."""
        return 1.0 / self.fps

    def infer(self, observation: Observation) -> dict[str, Array]:
        """The actions from the observation's time on; (0, size) when the episode has ended."""
        if self._began_ns is None:
            self._began_ns = observation.tick_ns
        first = round((observation.tick_ns - self._began_ns) * self.fps / 1e9)
        chunk = self.actions[first : first + self.spec.horizon]
        return {name: chunk[:, part] for name, part in self._slices.items()}

    def reset(self) -> None:
        """Starts again at the first action, at the time of the next observation."""
        self._began_ns = None


def _size(rows: Array) -> int:
    return rows.shape[1] if rows.ndim == 2 else 1
