# SPDX-License-Identifier: Apache-2.0
"""Finds idle rows at the beginning and end of an episode: a policy that is trained on them learns to wait."""

import numpy as np

from groot_ros.embodiment import ActionField, Embodiment
from groot_ros.geometry import Array
from groot_ros.quality.motion import command_changes, moves_linearly, turns
from groot_ros.sampling.rows import RowTable


def moving_rows(embodiment: Embodiment, rows: RowTable) -> np.ndarray:
    """Whether an action of each row commands motion, as defined in quality/motion.py: (n,) of bool."""
    moving = np.zeros(len(rows), bool)
    for field in embodiment.action:
        values = rows.actions[:, embodiment.action_slices[field.name]]
        moving |= _is_moving(field, values, embodiment.fps)
    return moving


def non_idle_range(embodiment: Embodiment, rows: RowTable, margin_s: float) -> tuple[int, int]:
    """First row to keep, and the one after the last row to keep; all rows if nothing moves.

    `margin_s` of idle rows are kept at both ends.
    """
    moving = np.flatnonzero(moving_rows(embodiment, rows))
    if not len(moving):
        return 0, len(rows)
    margin = round(margin_s * embodiment.fps)
    return max(int(moving[0]) - margin, 0), min(int(moving[-1]) + 1 + margin, len(rows))


def _is_moving(field: ActionField, values: Array, fps: float) -> np.ndarray:
    if field.kind == 'delta_position':
        return moves_linearly(values, fps)
    if field.kind == 'delta_rotation':
        return turns(values, fps)
    steps = np.diff(values, axis=0, prepend=values[:1]) if field.absolute else values
    return command_changes(steps, fps)
