# SPDX-License-Identifier: Apache-2.0
"""Idle beginnings and ends of episodes: a policy that is trained on them learns to wait."""

import numpy as np

from groot_ros.embodiment import ActionField, Embodiment
from groot_ros.geometry import Array
from groot_ros.quality.motion import command_changes, moves_linearly, turns
from groot_ros.sampling.rows import RowTable


def moving_rows(embodiment: Embodiment, rows: RowTable) -> np.ndarray:
    """Whether any action moves something in each row (n,), by the definition of quality/motion.py."""
    moving = np.zeros(len(rows), bool)
    for field in embodiment.action:
        values = rows.actions[:, embodiment.action_slices[field.name]]
        moving |= _moves(field, values, embodiment.fps)
    return moving


def non_idle_range(embodiment: Embodiment, rows: RowTable, margin_s: float) -> tuple[int, int]:
    """Returns the first row to keep, and the one after the last, with `margin_s` of idle rows at both ends.

    These are all rows if nothing ever moves.
    """
    moving = np.flatnonzero(moving_rows(embodiment, rows))
    if not len(moving):
        return 0, len(rows)
    margin = round(margin_s * embodiment.fps)
    first = max(int(moving[0]) - margin, 0)
    end = min(int(moving[-1]) + 1 + margin, len(rows))
    return first, end


def _moves(field: ActionField, values: Array, fps: float) -> np.ndarray:
    if field.kind == 'delta_position':
        return moves_linearly(values, fps)
    if field.kind == 'delta_rotation':
        return turns(values, fps)
    steps = np.diff(values, axis=0, prepend=values[:1]) if field.absolute else values
    return command_changes(steps, fps)
