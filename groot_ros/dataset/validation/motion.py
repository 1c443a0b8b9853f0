# SPDX-License-Identifier: Apache-2.0
"""Checks of motion: quaternions, joints, and deltas that must lead from each recorded pose to the next."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from groot_ros.dataset.validation.finding import ERROR, WARNING, EpisodeColumns, ValidationFinding
from groot_ros.embodiment import ACTION_COLUMN, STATE_COLUMN
from groot_ros.geometry import Array, angle_between, deltas_between, integrate_deltas

_UNIT_TOLERANCE = 1e-3
_DRIFT_M = 1e-4
_DRIFT_RAD = 1e-3
_TURN_RAD = 2 * np.pi + 1e-3
_MAX_SPEED_M_S = 3.0
_POSE_SIZE = 7


@dataclass
class PoseDeltas:
    """Which columns of the action are differences between successive poses of which columns of the state."""

    pose: slice
    position: slice | None
    rotation: slice | None


def check_motion(
    modality: dict[str, Any], embodiment: dict[str, Any], fps: float, episode: EpisodeColumns
) -> Iterator[ValidationFinding]:
    """Gives the findings of an episode on its quaternions, joints (rad) and deltas (m, rad).

    Deltas must lead from each recorded pose to the next. `embodiment` is what the converter noted in
    conversion.json, or empty.
    """
    states = episode.columns.get(STATE_COLUMN)
    actions = episode.columns.get(ACTION_COLUMN)
    if states is None:
        return
    parts = {
        name: slice(part.get('start', 0), part.get('end', 0))
        for name, part in (modality.get('state') or {}).items()
        if 'original_key' not in part
    }
    for name, part in parts.items():
        if (quaternion := _quaternion(name, part)) is not None:
            yield from _check_quaternions(episode, name, states[:, quaternion])
        if 'joint_position' in name:
            yield from _check_joints(episode, name, states[:, part])
    if actions is None:
        return
    for deltas in pose_deltas(modality, embodiment):
        yield from _check_deltas(episode, states[:, deltas.pose], actions, deltas, fps)


def pose_deltas(modality: dict[str, Any], embodiment: dict[str, Any]) -> list[PoseDeltas]:
    """Returns which actions are differences of which poses of the state.

    They are those that the converter noted in `embodiment`; where that is empty, the names decide.
    """
    names = _noted_names(embodiment) if embodiment else [_guessed_names(modality)]
    found = []
    for pose_name, position_name, rotation_name in names:
        pose = _slice(modality, 'state', pose_name)
        position = _slice(modality, 'action', position_name)
        rotation = _slice(modality, 'action', rotation_name)
        if pose is not None and (position or rotation):
            found.append(PoseDeltas(pose, position, rotation))
    return found


def _noted_names(embodiment: dict[str, Any]) -> list[tuple[str, str | None, str | None]]:
    """Names of each pose of the state and of its two deltas; deltas of commanded poses are left out."""
    derived = [
        action
        for action in embodiment.get('action', [])
        if action['kind'].startswith('delta_') and not action.get('topic') and not action.get('column')
    ]
    names = {(action['pose'], action['kind']): action['name'] for action in derived}
    poses = dict.fromkeys(pose for pose, _ in names)
    return [
        (pose, names.get((pose, 'delta_position')), names.get((pose, 'delta_rotation'))) for pose in poses
    ]


def _guessed_names(modality: dict[str, Any]) -> tuple[str | None, str | None, str | None]:
    """In datasets of others: a state of 7 numbers called pose, and actions of 3 numbers called delta."""
    states = modality.get('state') or {}
    actions = modality.get('action') or {}
    poses = [name for name, part in states.items() if 'pose' in name and _size(part) == _POSE_SIZE]
    deltas = [name for name, part in actions.items() if 'delta' in name and _size(part) == 3]
    positions = [name for name in deltas if 'pos' in name]
    rotations = [name for name in deltas if 'rot' in name or 'orient' in name]
    return next(iter(poses), None), next(iter(positions), None), next(iter(rotations), None)


def _size(part: dict[str, Any]) -> int:
    return part.get('end', 0) - part.get('start', 0)


def _slice(modality: dict[str, Any], group: str, name: str | None) -> slice | None:
    parts = modality.get(group) or {}
    return slice(parts[name]['start'], parts[name]['end']) if name in parts else None


def _quaternion(name: str, part: slice) -> slice | None:
    size = part.stop - part.start
    if size == _POSE_SIZE and 'pose' in name:
        return slice(part.start + 3, part.stop)
    return part if size == 4 and 'quat' in name else None


def _check_quaternions(episode: EpisodeColumns, name: str, quaternions: Array) -> Iterator[ValidationFinding]:
    off = np.flatnonzero(np.abs(np.linalg.norm(quaternions, axis=1) - 1) > _UNIT_TOLERANCE)
    if len(off):
        yield ValidationFinding(
            ERROR,
            episode.file,
            f'the quaternion of state.{name} is not of length 1',
            'convert again',
            int(off[0]),
        )
    jumps = np.flatnonzero(np.sum(quaternions[1:] * quaternions[:-1], axis=1) < 0)
    if len(jumps):
        yield ValidationFinding(
            ERROR,
            episode.file,
            f'the quaternion of state.{name} changes its sign',
            'convert again',
            int(jumps[0]) + 1,
        )


def _check_joints(episode: EpisodeColumns, name: str, joints: Array) -> Iterator[ValidationFinding]:
    beyond = np.argwhere(np.abs(joints) > _TURN_RAD)
    if len(beyond):
        row, joint = beyond[0]
        problem = f'state.{name}[{joint}] is {joints[row, joint]:.4g}, beyond a whole turn in rad'
        yield ValidationFinding(
            ERROR, episode.file, problem, 'check whether it is in degrees, or of another joint', int(row)
        )


def _check_deltas(
    episode: EpisodeColumns, poses: Array, actions: Array, deltas: PoseDeltas, fps: float
) -> Iterator[ValidationFinding]:
    if (
        len(poses) < 3
        or not np.isfinite(poses).all()
        or not (np.linalg.norm(poses[:, 3:], axis=1) > _UNIT_TOLERANCE).all()
    ):
        return
    moved = deltas_between(poses)
    if deltas.position is not None:
        yield from _check_steps(
            episode, moved[:, :3], actions[:, deltas.position], _DRIFT_M, 'position', 'mm'
        )
    if deltas.rotation is not None:
        yield from _check_steps(
            episode, moved[:, 3:], actions[:, deltas.rotation], _DRIFT_RAD, 'orientation', 'mrad'
        )
    jumps = np.flatnonzero(np.linalg.norm(moved[:, :3], axis=1) * fps > _MAX_SPEED_M_S)
    if len(jumps):
        yield ValidationFinding(
            WARNING,
            episode.file,
            f'the pose jumps by {np.linalg.norm(moved[jumps[0], :3]):.3f} m',
            'check the recording',
            int(jumps[0]),
        )
    if deltas.position is not None and deltas.rotation is not None and np.isfinite(actions).all():
        path = integrate_deltas(
            poses[0], np.hstack([actions[:-1, deltas.position], actions[:-1, deltas.rotation]])
        )
        distance = np.linalg.norm(path[:, :3] - poses[:, :3], axis=1)
        angle = angle_between(path[-1], poses[-1])
        if distance.max() > _DRIFT_M * len(poses) ** 0.5 or angle > _DRIFT_RAD * len(poses) ** 0.5:
            problem = (
                f'its deltas, one after another, lead up to {distance.max() * 1e3:.1f} mm away '
                f'and end {np.degrees(angle):.2f} deg off'
            )
            yield ValidationFinding(ERROR, episode.file, problem, 'convert again', int(distance.argmax()))


def _check_steps(
    episode: EpisodeColumns, moved: Array, deltas: Array, tolerance: float, what: str, unit: str
) -> Iterator[ValidationFinding]:
    """The delta of a row must lead to the next row; deltas shifted by a row still seem plausible."""
    if deltas.shape[1] != 3:
        return
    errors = np.abs(moved - deltas[:-1]).max(axis=1)
    if not np.nanmax(errors) > tolerance:
        return
    later = np.nanmax(np.abs(moved[1:] - deltas[:-2]))
    earlier = np.nanmax(np.abs(moved[:-1] - deltas[1:-1]))
    shifted = (
        'is shifted by a row'
        if min(later, earlier) <= tolerance
        else f'misses the next {what} by up to {np.nanmax(errors) * 1e3:.1f} {unit}'
    )
    yield ValidationFinding(
        ERROR, episode.file, f'the delta of the {what} {shifted}', 'convert again', int(np.nanargmax(errors))
    )
