# SPDX-License-Identifier: Apache-2.0
"""Checks every number of the robot before it is used: finite, and within what a UR5e can report."""

import numpy as np

from groot_ros.hardware.ur5e.ipc import BEAT, STATE

_MAX_ABS = {
    'joint_positions': 6.5,  # a joint of a UR5e turns by 2 pi either way
    'target_joints': 6.5,
    'joint_velocities': 10.0,
    'tcp_pose': 10.0,
    'target_pose': 10.0,
    'setpoint': 10.0,
    'rest': 10.0,
    'speed_scaling': 2.0,
}

_MAX_FLOAT = np.finfo(float).max


def read_state(data: bytes) -> np.void:
    """The STATE record of these bytes. Raises ValueError for a number that no UR5e reports."""
    return _checked(np.frombuffer(data, STATE)[0])


def read_beat(data: bytes) -> np.void:
    """The BEAT record of these bytes. Raises ValueError for a number that no servo loop reports."""
    return _checked(np.frombuffer(data, BEAT)[0])


def _checked(record: np.void) -> np.void:
    for name in record.dtype.names:
        values = record[name]
        if np.abs(values).max() <= _MAX_ABS.get(name, _MAX_FLOAT):  # which NaN and infinity are not
            continue
        values = np.atleast_1d(values)
        if not np.all(np.isfinite(values)):
            raise ValueError(f'the robot reported {name} {values.tolist()}, which is not finite')
        raise ValueError(f'the robot reported {name} {values.tolist()}, which no UR5e can have')
    return record
