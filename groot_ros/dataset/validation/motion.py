# SPDX-License-Identifier: Apache-2.0
"""Checks of motion: quaternions, joints, and deltas that must lead from each recorded pose to the next."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from groot_ros.dataset.validation.finding import ERROR, WARNING, EpisodeColumns, Finding
from groot_ros.embodiment import ACTION_COLUMN, STATE_COLUMN
from groot_ros.geometry import Array, angle_between, deltas_between, integrate_deltas

_UNIT_TOLERANCE = 1e-3
_DRIFT_M, _DRIFT_RAD = 1e-4, 1e-3
_TURN_RAD = 2 * np.pi + 1e-3
_MAX_SPEED_M_S = 3.0
_POSE_SIZE = 7


@dataclass
class PoseDeltas:
    """Which columns of the action are differences of which pose of the state."""

    pose: slice
    position: slice | None
    rotation: slice | None


def check_motion(
    modality: dict[str, Any], embodiment: dict[str, Any], fps: float, episode: EpisodeColumns
) -> Iterator[Finding]:
    """Findings of one episode; `embodiment` is what the converter noted, empty for datasets of others."""
    states, actions = episode.columns.get(STATE_COLUMN), episode.columns.get(ACTION_COLUMN)
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
    for deltas in pose_deltas(modality, embodiment) if actions is not None else ():
        yield from _check_deltas(episode, states[:, deltas.pose], actions, deltas, fps)


def pose_deltas(modality: dict[str, Any], embodiment: dict[str, Any]) -> list[PoseDeltas]:
    """What the converter noted, or else what the names say: a state of 7 numbers called a pose, actions called delta of 3 numbers."""
    states, actions = modality.get('state') or {}, modality.get('action') or {}

    def place(group: dict[str, Any], name: str | None) -> slice | None:
        return slice(group[name]['start'], group[name]['end']) if name in group else None

    if embodiment:
        derived = [
            action
            for action in embodiment.get('action', [])
            if action['kind'].startswith('delta_') and not action['topic'] and not action['column']
        ]
        named = {(action['pose'], action['kind']): action['name'] for action in derived}
        poses = dict.fromkeys(of for of, _ in named)
        found = [
            (
                place(states, of),
                place(actions, named.get((of, 'delta_position'))),
                place(actions, named.get((of, 'delta_rotation'))),
            )
            for of in poses
        ]
    else:
        pose = next(
            (
                name
                for name, part in states.items()
                if 'pose' in name and part.get('end', 0) - part.get('start', 0) == _POSE_SIZE
            ),
            None,
        )
        three = [
            name
            for name, part in actions.items()
            if 'delta' in name and part.get('end', 0) - part.get('start', 0) == 3
        ]
        position = next((name for name in three if 'pos' in name), None)
        rotation = next((name for name in three if 'rot' in name or 'orient' in name), None)
        found = [(place(states, pose), place(actions, position), place(actions, rotation))]
    return [
        PoseDeltas(pose, position, rotation)
        for pose, position, rotation in found
        if pose is not None and (position or rotation)
    ]


def _quaternion(name: str, part: slice) -> slice | None:
    size = part.stop - part.start
    if size == _POSE_SIZE and 'pose' in name:
        return slice(part.start + 3, part.stop)
    return part if size == 4 and 'quat' in name else None


def _check_quaternions(episode: EpisodeColumns, name: str, quaternions: Array) -> Iterator[Finding]:
    off = np.flatnonzero(np.abs(np.linalg.norm(quaternions, axis=1) - 1) > _UNIT_TOLERANCE)
    if len(off):
        yield Finding(
            ERROR,
            episode.file,
            f'the quaternion of state.{name} is not of length 1',
            'convert again',
            int(off[0]),
        )
    jumps = np.flatnonzero(np.sum(quaternions[1:] * quaternions[:-1], axis=1) < 0)
    if len(jumps):
        yield Finding(
            ERROR,
            episode.file,
            f'the quaternion of state.{name} changes its sign',
            'convert again',
            int(jumps[0]) + 1,
        )


def _check_joints(episode: EpisodeColumns, name: str, joints: Array) -> Iterator[Finding]:
    beyond = np.argwhere(np.abs(joints) > _TURN_RAD)
    if len(beyond):
        row, joint = beyond[0]
        problem = f'state.{name}[{joint}] is {joints[row, joint]:.4g}, beyond a whole turn in rad'
        yield Finding(
            ERROR, episode.file, problem, 'look whether it is in degrees, or of another joint', int(row)
        )


def _check_deltas(
    episode: EpisodeColumns, poses: Array, actions: Array, deltas: PoseDeltas, fps: float
) -> Iterator[Finding]:
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
        yield Finding(
            WARNING,
            episode.file,
            f'the pose jumps by {np.linalg.norm(moved[jumps[0], :3]):.3f} m',
            'look at the recording',
            int(jumps[0]),
        )
    if deltas.position is not None and deltas.rotation is not None and np.isfinite(actions).all():
        path = integrate_deltas(
            poses[0], np.hstack([actions[:-1, deltas.position], actions[:-1, deltas.rotation]])
        )
        distance = np.linalg.norm(path[:, :3] - poses[:, :3], axis=1)
        angle = angle_between(path[-1], poses[-1])
        if distance.max() > _DRIFT_M * len(poses) ** 0.5 or angle > _DRIFT_RAD * len(poses) ** 0.5:
            problem = f'its deltas, one after another, lead up to {distance.max() * 1e3:.1f} mm away and end {np.degrees(angle):.2f} deg off'
            yield Finding(ERROR, episode.file, problem, 'convert again', int(distance.argmax()))


def _check_steps(
    episode: EpisodeColumns, moved: Array, deltas: Array, tolerance: float, what: str, unit: str
) -> Iterator[Finding]:
    """Deltas of a row must lead to the next; shifted by a row they still look plausible."""
    if deltas.shape[1] != 3:
        return
    errors = np.abs(moved - deltas[:-1]).max(axis=1)
    if not np.nanmax(errors) > tolerance:
        return
    later, earlier = np.nanmax(np.abs(moved[1:] - deltas[:-2])), np.nanmax(np.abs(moved[:-1] - deltas[1:-1]))
    shifted = (
        'is shifted by a row'
        if min(later, earlier) <= tolerance
        else f'misses the next {what} by up to {np.nanmax(errors) * 1e3:.1f} {unit}'
    )
    yield Finding(
        ERROR, episode.file, f'the delta of the {what} {shifted}', 'convert again', int(np.nanargmax(errors))
    )
