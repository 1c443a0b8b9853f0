# SPDX-License-Identifier: Apache-2.0
"""Known signals of benchmarks and tests: functions of time, messages, frames with a barcode of their time."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from groot_ros.bags.message_types import HEADER_TYPE, IMAGE_TYPE, time_message, typestore
from groot_ros.geometry import Array, apply_delta
from groot_ros.ur5e_kinematics import JOINT_NAMES

T0_NS = 1_700_000_000_000_000_000
STATE_TYPES = {
    'joint_states': 'sensor_msgs/msg/JointState',
    'tcp_pose': 'geometry_msgs/msg/PoseStamped',
    'gripper/state': 'groot_ros/msg/GripperState',
}
BLOCK = 16
BITS = 48
UNIT_NS = 1000  # the barcode counts microseconds
DOWN = np.array([-0.1, -0.5, 0.2, 0.0, 1.0, 0.0, 0.0])


def joints(t: float) -> np.ndarray:
    """Joint positions (6,) in rad."""
    return 0.3 * np.sin(t + np.arange(6))


def velocities(t: float) -> np.ndarray:
    """Joint velocities (6,) in rad/s."""
    return 0.3 * np.cos(t + np.arange(6))


def pose(t: float) -> np.ndarray:
    """TCP pose (7,): on a circle, turning about base z and x."""
    swing = 0.5 * np.sin(0.7 * t)
    return apply_delta(
        DOWN, np.array([0.1 * np.cos(0.8 * t), 0.1 * np.sin(0.8 * t), 0.05 * np.sin(t), swing, 0.0, 0.3 * t])
    )


def opening(t: float) -> float:
    """Gripper opening: a triangle of 4 s."""
    return float(abs(((t / 2.0) % 2.0) - 1.0))


def state(t: float) -> np.ndarray:
    """The state vector of ur5e_robotiq_zed (20,)."""
    return np.concatenate([joints(t), velocities(t), [opening(t)], pose(t)])


def make_message(type_name: str, *fields: Any) -> Any:
    """A message of rosbags."""
    return typestore().types[type_name](*fields)


def header(stamp_ns: int) -> Any:
    """A header in the frame `base`."""
    return make_message(HEADER_TYPE, time_message(stamp_ns), 'base')


def joint_state_message(
    stamp_ns: int, positions: Array, velocities: Array, names: Sequence[str] = JOINT_NAMES
) -> Any:
    """A JointState without efforts."""
    values = [np.ascontiguousarray(positions), np.ascontiguousarray(velocities), np.zeros(0)]
    return make_message(STATE_TYPES['joint_states'], header(stamp_ns), list(names), *values)


def tcp_pose_message(stamp_ns: int, pose: Array) -> Any:
    """A PoseStamped of a pose (7,)."""
    position = make_message('geometry_msgs/msg/Point', *pose[:3])
    rotation = make_message('geometry_msgs/msg/Quaternion', *pose[3:])
    content = make_message('geometry_msgs/msg/Pose', position, rotation)
    return make_message(STATE_TYPES['tcp_pose'], header(stamp_ns), content)


def gripper_message(stamp_ns: int, opening: float) -> Any:
    """A GripperState that has reached its target."""
    fields = (opening, opening, False, False, float('nan'), 0, '')
    return make_message(STATE_TYPES['gripper/state'], header(stamp_ns), *fields)


def image_message(stamp_ns: int, pixels: np.ndarray) -> Any:
    """An rgb8 Image of pixels (height, width, 3)."""
    height, width, _ = pixels.shape
    fields = (height, width, 'rgb8', 0, 3 * width, pixels.ravel())
    return make_message(IMAGE_TYPE, header(stamp_ns), *fields)


class Images:
    """Textured frames that move, with the time written in blocks of 16 x 16 pixels along the upper edge."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        rng = np.random.default_rng(0)
        coarse = rng.integers(40, 200, (height // 16 + 1, (width + 256) // 16 + 1, 3), dtype=np.uint8)
        self._texture = np.kron(coarse, np.ones((16, 16, 1), np.uint8))[:height, : width + 256]
        self._columns = width // BLOCK

    def at(self, time_ns: int) -> np.ndarray:
        """The frame (height, width, 3) exposed at a time."""
        shift = (time_ns // 10_000_000) % 256
        image = self._texture[:, shift : shift + self.width].copy()
        count = time_ns // UNIT_NS
        for bit in range(BITS):
            row, column = divmod(bit, self._columns)
            value = 235 if count >> bit & 1 else 16
            image[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK] = value
        return image

    def time_ns(self, image: np.ndarray) -> int:
        """The time written in a frame, to a microsecond."""
        count = 0
        for bit in range(BITS):
            row, column = divmod(bit, self._columns)
            middle = image[
                row * BLOCK + 4 : (row + 1) * BLOCK - 4, column * BLOCK + 4 : (column + 1) * BLOCK - 4
            ]
            count |= int(middle.mean() > 125) << bit
        return count * UNIT_NS
