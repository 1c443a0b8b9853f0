# SPDX-License-Identifier: Apache-2.0
"""Idle beginnings and ends of episodes: a policy that is trained on them learns to wait."""

import numpy as np

from groot_ros.embodiment import Embodiment
from groot_ros.geometry import Array
from groot_ros.sampling.rows import RowTable

# Below these speeds nothing moves on purpose: m/s for positions, and rad/s or openings a second for everything else.
STILL_M_S, STILL_S = 0.002, 0.02


def moving_rows(embodiment: Embodiment, rows: RowTable) -> np.ndarray:
    """Whether something is commanded in each row (n,): a delta of more than noise, or a command that changes."""
    speeds = [
        _speed(embodiment, name, rows.actions[:, part]) for name, part in embodiment.action_slices.items()
    ]
    return np.any(speeds, axis=0)


def non_idle_range(embodiment: Embodiment, rows: RowTable, margin_s: float) -> tuple[int, int]:
    """First row, and the one behind the last, that leave `margin_s` of idling at both ends; all rows where nothing ever moves."""
    moving = np.flatnonzero(moving_rows(embodiment, rows))
    if not len(moving):
        return 0, len(rows)
    margin = round(margin_s * embodiment.fps)
    return max(int(moving[0]) - margin, 0), min(int(moving[-1]) + 1 + margin, len(rows))


def _speed(embodiment: Embodiment, name: str, values: Array) -> np.ndarray:
    field = next(field for field in embodiment.action if field.name == name)
    changes = np.diff(values, axis=0, prepend=values[:1]) if field.absolute else values
    limit = STILL_M_S if field.kind == 'delta_position' else STILL_S
    return np.abs(changes).max(axis=1) * embodiment.fps > limit
