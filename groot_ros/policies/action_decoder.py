# SPDX-License-Identifier: Apache-2.0
"""Converts the actions of a model, in any representation, to target poses and openings of each step."""

from dataclasses import dataclass

import numpy as np

from groot_ros.embodiment import EEF_6D, EEF_9D, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array, integrate_deltas, pose_from_rotvec, poses_from_9d

# Positions in m and rotations in rad that no action reaches; larger numbers would overflow.
_MAX_NUMBER = 1e3


class InvalidActionError(GrootRosError):
    """Actions of a model that must not be executed: keys are missing, or shapes or numbers are invalid."""


@dataclass
class DecodedActions:
    """Target poses (H, 7) in the base frame, and openings (H,), NaN if the model has no gripper action."""

    poses: Array
    openings: Array


def decode_actions(action: dict[str, Array], embodiment: Embodiment, anchor: Array) -> DecodedActions:
    """Decodes a chunk {key: (H, size)}.

    `eef_9d` (position and two rows of the rotation matrix) and `eef_6d` (position and rotation vector) are
    absolute poses; GR00T returns actions relative to the state in this form. Deltas are integrated from the
    anchor (7,), the pose that was commanded at the time of the observation. Raises InvalidActionError for
    every answer that is no motion; it names the key that is missing, has another shape, or is not finite.
    """
    try:
        with np.errstate(all='ignore'):  # what does not give poses is refused, not warned of
            decoded = _decode(action, embodiment, anchor)
    except InvalidActionError:
        raise
    except Exception as error:  # a model may answer anything, such as rows that are no rotation
        raise InvalidActionError(f'its actions are no poses ({type(error).__name__}: {error})') from error
    if not np.isfinite(decoded.poses).all():
        raise InvalidActionError('its actions are no poses: their positions or rotations are not finite')
    return decoded


def _decode(action: dict[str, Array], embodiment: Embodiment, anchor: Array) -> DecodedActions:
    steps = _count_steps(action)
    poses = _decode_poses(action, embodiment, anchor, steps)
    gripper = gripper_key(embodiment)
    if gripper in action:
        openings = _checked_values(action, gripper, 1, steps)[:, 0]
    else:
        openings = np.full(steps, np.nan)
    return DecodedActions(poses, openings)


def gripper_key(embodiment: Embodiment) -> str:
    """The key of the action that commands the gripper; empty if the embodiment has none."""
    commands = [field.name for field in embodiment.action if field.kind == 'command' and field.size == 1]
    only_command = commands[0] if len(commands) == 1 else ''
    return next((name for name in commands if 'gripper' in name), only_command)


def _decode_poses(action: dict[str, Array], embodiment: Embodiment, anchor: Array, steps: int) -> Array:
    if EEF_9D in action:
        return poses_from_9d(_checked_values(action, EEF_9D, 9, steps))
    if EEF_6D in action:
        rotvec_poses = _checked_values(action, EEF_6D, 6, steps)
        return np.array([pose_from_rotvec(pose) for pose in rotvec_poses]).reshape(-1, 7)
    names = {field.kind: field.name for field in embodiment.action if field.is_derived}
    if len(names) < 2:
        raise InvalidActionError(
            f'the embodiment {embodiment.name} has no delta actions of a TCP pose: choose one that has'
        )
    positions = _checked_values(action, names['delta_position'], 3, steps)
    rotations = _checked_values(action, names['delta_rotation'], 3, steps)
    return integrate_deltas(anchor, np.hstack([positions, rotations]))[1:]


def _count_steps(action: dict[str, Array]) -> int:
    lengths = {name: np.shape(values)[:1] for name, values in action.items()}
    if len(set(lengths.values())) > 1:
        listed = ', '.join(f'{name} {length}' for name, length in lengths.items())
        raise InvalidActionError(f'its actions have different numbers of steps: {listed}')
    return next(iter(lengths.values()), (0,))[0] if lengths else 0


def _checked_values(action: dict[str, Array], name: str, size: int, steps: int) -> Array:
    """The values (steps, size) of a key; a single number per step may also come as (steps,)."""
    if name not in action:
        listed = ', '.join(action) or 'none'
        raise InvalidActionError(f'the action {name} is missing; the actions of the model are: {listed}')
    values = np.asarray(action[name], float)
    if values.ndim == 1 and size == 1:
        values = values[:, None]
    if values.shape != (steps, size):
        raise InvalidActionError(
            f'its action {name} has the shape {values.shape} where ({steps}, {size}) is wanted'
        )
    if not np.isfinite(values).all():
        raise InvalidActionError(f'its action {name} is NaN or infinite')
    if steps and np.abs(values).max() > _MAX_NUMBER:
        raise InvalidActionError(f'its action {name} has a number beyond {_MAX_NUMBER:g}')
    return values
