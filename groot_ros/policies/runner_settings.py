# SPDX-License-Identifier: Apache-2.0
"""Settings of the policy runner, and its checks of the speed and the offset of a chunk."""

from dataclasses import dataclass

import numpy as np

from groot_ros.geometry import Array, deltas_between
from groot_ros.policies.action_decoder import InvalidActionError
from groot_ros.settings import setting


@dataclass(frozen=True)
class RunnerSettings:
    """How a policy is executed: one command every `period_ns`."""

    period_ns: int
    max_speed_m_s: float = setting(1.0, 'a chunk with a faster step is refused, m/s', 0.01, 3.0)
    max_blind_s: float = setting(
        0.5, 'the run ends if a chunk comes this much later than expected, s', 0.05, 10.0
    )
    max_rotation_speed_rad_s: float = setting(
        3.0, 'a chunk with a faster rotation is refused, rad/s', 0.01, 10.0
    )
    max_chunk_offset_m: float = setting(
        0.05, 'a chunk that starts farther from the present target is refused, m', 0.001, 1.0
    )
    max_chunk_offset_rad: float = setting(
        0.25, 'a chunk that starts turned farther from the present target is refused, rad', 0.01, 3.2
    )
    echo_timeout_s: float = setting(
        0.3, 'the run ends if the driver of the arm accepts no command for this time, s', 0.05, 2.0
    )
    replay_settle_s: float = setting(
        1.5, 'pause at the start of the recording before it is replayed, s', 0.0, 10.0
    )

    def check_speed(self, poses: Array, row_s: float) -> None:
        """Raises InvalidActionError naming the fastest step if poses (H, 7) are faster than the settings."""
        if len(poses) < 2:
            return
        deltas = deltas_between(poses) / row_s
        speeds_m_s = np.linalg.norm(deltas[:, :3], axis=1)
        if not speeds_m_s.max() <= self.max_speed_m_s:  # NaN too
            raise InvalidActionError(
                f'step {int(speeds_m_s.argmax()) + 1} moves at {speeds_m_s.max():.2f} m/s '
                f'(max_speed_m_s is {self.max_speed_m_s:g})'
            )
        speeds_rad_s = np.linalg.norm(deltas[:, 3:], axis=1)
        if not speeds_rad_s.max() <= self.max_rotation_speed_rad_s:
            raise InvalidActionError(
                f'step {int(speeds_rad_s.argmax()) + 1} turns at {speeds_rad_s.max():.2f} rad/s '
                f'(max_rotation_speed_rad_s is {self.max_rotation_speed_rad_s:g})'
            )

    def is_near(self, distance_m: float, angle_rad: float) -> bool:
        """Whether a pose is within the offset from the target that a chunk may have."""
        return distance_m <= self.max_chunk_offset_m and angle_rad <= self.max_chunk_offset_rad
