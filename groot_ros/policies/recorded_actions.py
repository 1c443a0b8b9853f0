# SPDX-License-Identifier: Apache-2.0
"""Recorded actions as what a policy may answer: columns of the embodiment, and target poses of the TCP."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from groot_ros.dataset.meta import column_to_array
from groot_ros.embodiment import ACTION_9D, ACTION_COLUMN, EEF_6D, EEF_9D, STATE_COLUMN, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array, angle_between, apply_delta, integrate_deltas, poses_from_9d
from groot_ros.policies.action_decoder import decode_actions

_POSE_KEYS = (EEF_9D, EEF_6D)
# Of a pose, next to its key; no name of an action has a space.
POSITION = ' position'
ROTATION = ' rotation'
_KINDS = ('delta_position', 'delta_rotation')


@dataclass(frozen=True)
class RecordedActions:
    """Actions (n, A) and, where they are known, the poses (n, 7) that they lead to."""

    embodiment: Embodiment
    actions: Array
    poses: Array | None

    def __len__(self) -> int:
        return len(self.actions)

    def since(self, row: int) -> 'RecordedActions':
        """Those from a row on."""
        poses = self.poses[row:] if self.poses is not None else None
        return RecordedActions(self.embodiment, self.actions[row:], poses)

    def pairs(self, chunk: dict[str, Array]) -> dict[str, tuple[Array, Array]]:
        """What a chunk {key: (H, size)} predicts and what was recorded, both (H, size), by name.

        A pose is compared as `KEY position` (m) and `KEY rotation` (rad, the angle between both). Raises
        GrootRosError for a chunk that does not have the shape of the actions.
        """
        found = {}
        for name, columns in self.embodiment.action_slices.items():
            if name in chunk:
                found[name] = _comparable(name, chunk[name], self.actions[:, columns])
        for key in _POSE_KEYS:
            if key in chunk and self.poses is not None:
                found |= self._pose_pairs(key, chunk[key], self.poses)
        return found

    def values(self, name: str) -> Array:
        """What was recorded (n, size) under a name of `pairs`."""
        if name in self.embodiment.action_slices:
            return self.actions[:, self.embodiment.action_slices[name]]
        assert self.poses is not None
        return self.poses[:, :3] if name.endswith(POSITION) else np.zeros((len(self), 1))

    def uncompared(self, chunk: dict[str, Array]) -> set[str]:
        """The keys of a chunk that nothing recorded is known for."""
        known = {*self.embodiment.action_slices, *(_POSE_KEYS if self.poses is not None else ())}
        return set(chunk) - known

    def _pose_pairs(self, key: str, values: Array, poses: Array) -> dict[str, tuple[Array, Array]]:
        size = 9 if key == EEF_9D else 6
        _comparable(key, values, np.zeros((len(self), size)))
        predicted = decode_actions({key: values}, self.embodiment, poses[0]).poses
        recorded = poses[: len(predicted)]
        angles = [angle_between(*pair) for pair in zip(predicted, recorded, strict=True)]
        rotation = np.array(angles)[:, None]
        return {
            f'{key}{POSITION}': (predicted[:, :3], recorded[:, :3]),
            f'{key}{ROTATION}': (rotation, np.zeros_like(rotation)),
        }


def recorded_episode(table: pa.Table, embodiment: Embodiment) -> RecordedActions:
    """The recorded actions of an episode's rows, with target poses where it has them or deltas of a pose."""
    actions = column_to_array(table, ACTION_COLUMN)
    if ACTION_9D in table.column_names:
        return RecordedActions(embodiment, actions, poses_from_9d(column_to_array(table, ACTION_9D)))
    columns = _delta_columns(embodiment)
    if columns is None:
        return RecordedActions(embodiment, actions, None)
    states = column_to_array(table, STATE_COLUMN)[:, embodiment.pose_part].astype(float)
    deltas = actions[:, columns].astype(float)
    poses = [apply_delta(pose, delta) for pose, delta in zip(states, deltas, strict=True)]
    return RecordedActions(embodiment, actions, np.array(poses).reshape(-1, 7))


def recorded_since(state: Array, actions: Array, embodiment: Embodiment) -> RecordedActions:
    """Recorded actions (n, A) that follow an observed state (D,), which may be empty: then without poses."""
    columns = _delta_columns(embodiment)
    if columns is None or len(state) != embodiment.state_size:
        return RecordedActions(embodiment, actions, None)
    poses = integrate_deltas(state[embodiment.pose_part], actions[:, columns])[1:]
    return RecordedActions(embodiment, actions, poses)


def _delta_columns(embodiment: Embodiment) -> list[int] | None:
    """The columns of the six numbers of a delta; None where the actions or the state have no pose."""
    names = {field.kind: field.name for field in embodiment.action if field.is_derived}
    if set(names) != set(_KINDS) or not any(field.field == 'pose' for field in embodiment.state):
        return None
    slices = [embodiment.action_slices[names[kind]] for kind in _KINDS]
    return [column for part in slices for column in range(part.start, part.stop)]


def _comparable(name: str, predicted: Array, recorded: Array) -> tuple[Array, Array]:
    """The predicted (H, size) and the recorded actions of the same steps; raises GrootRosError."""
    values = np.asarray(predicted)
    if values.dtype.kind not in 'fiu' or values.ndim != 2 or values.shape[1] != recorded.shape[1]:
        raise GrootRosError(
            f'The policy answers {name} as {values.dtype} of shape {values.shape}: numbers of shape '
            f'(steps, {recorded.shape[1]}) are expected.'
        )
    if not 0 < len(values) <= len(recorded) or not np.isfinite(values).all():
        raise GrootRosError(
            f'The policy answers {len(values)} steps of {name}: finite numbers for 1 to {len(recorded)} '
            'steps are expected.'
        )
    return values, recorded[: len(values)]
