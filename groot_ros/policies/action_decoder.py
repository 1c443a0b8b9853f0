# SPDX-License-Identifier: Apache-2.0
"""What a model answers, in any representation, as one thing: target poses and openings, a step each."""

from dataclasses import dataclass

import numpy as np

from groot_ros.embodiment import EEF_6D, EEF_9D, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array, integrate_deltas, pose_from_rotvec, poses_from_9d


class InvalidActionError(GrootRosError):
    """An answer that may not move the arm."""


@dataclass
class DecodedActions:
    """Poses (H, 7) in the base frame, and openings (H,), not a number where the model gives none."""

    poses: Array
    openings: Array


def decode_actions(action: dict[str, Array], embodiment: Embodiment, anchor: Array) -> DecodedActions:
    """DecodedActions of an answer {key: (H, size)}.

    Deltas are integrated from the anchor (7,), the target that was commanded when the model observed. `eef_9d` (position and two rows of
    the rotation) and `eef_6d` (position and rotation vector) are absolute poses, as GR00T gives them back for actions relative to the
    state. Raises InvalidActionError naming what is missing, of another size, or no number.
    """
    steps = _steps(action)
    if EEF_9D in action:
        poses = poses_from_9d(_part(action, EEF_9D, 9, steps))
    elif EEF_6D in action:
        poses = np.array([pose_from_rotvec(pose) for pose in _part(action, EEF_6D, 6, steps)]).reshape(-1, 7)
    else:
        kinds = {field.kind: field.name for field in embodiment.action if field.is_derived}
        if len(kinds) < 2:
            raise InvalidActionError(
                f'the embodiment {embodiment.name} gives no pose of the tool: its actions cannot be commanded as deltas'
            )
        deltas = np.hstack(
            [_part(action, kinds[kind], 3, steps) for kind in ('delta_position', 'delta_rotation')]
        )
        poses = integrate_deltas(anchor, deltas)[1:]
    gripper = gripper_key(embodiment)
    openings = _part(action, gripper, 1, steps)[:, 0] if gripper in action else np.full(steps, np.nan)
    return DecodedActions(poses, openings)


def gripper_key(embodiment: Embodiment) -> str:
    """The action that commands the gripper, empty where there is none."""
    commands = [field.name for field in embodiment.action if field.kind == 'command' and field.size == 1]
    return next((name for name in commands if 'gripper' in name), commands[0] if len(commands) == 1 else '')


def _steps(action: dict[str, Array]) -> int:
    lengths = {name: np.shape(values)[:1] for name, values in action.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidActionError(
            f'its actions have different numbers of steps: {", ".join(f"{name} {length}" for name, length in lengths.items())}'
        )
    return next(iter(lengths.values()), (0,))[0] if lengths else 0


def _part(action: dict[str, Array], name: str, size: int, steps: int) -> Array:
    if name not in action:
        raise InvalidActionError(f'it lacks the action {name}; it has {", ".join(action) or "none"}')
    values = np.asarray(action[name], float)
    values = values[:, None] if values.ndim == 1 and size == 1 else values
    if values.shape != (steps, size):
        raise InvalidActionError(
            f'its action {name} has the shape {values.shape} where ({steps}, {size}) is wanted'
        )
    if not np.isfinite(values).all():
        raise InvalidActionError(f'its action {name} is NaN or infinite')
    return values
