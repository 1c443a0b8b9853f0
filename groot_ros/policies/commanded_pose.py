# SPDX-License-Identifier: Apache-2.0
"""The commanded TCP pose as the command gate holds it, followed through its echoes on command/tcp_delta.

All poses are (7,) in the base frame; times are ns of the caller's clock.
"""

import numpy as np

from groot_ros.geometry import Array, angle_between, apply_delta, deltas_between

_REST_NS = 300_000_000
_REST_M = 0.001
_REST_RAD = 0.005
# At rest the robot's target is the gate's, but for the rounding of its inverse kinematics.
_AGREES_M = 0.002
_AGREES_RAD = 0.01


class CommandedPose:
    """The gate's newest target, followed by the deltas that were sent later and have no echo yet.

    A command that the gate refused has no echo: it drops out when a later one is echoed.
    """

    def __init__(self) -> None:
        self.pose = np.array([0.0, 0, 0, 0, 0, 0, 1])
        self._sent: dict[int, Array] = {}
        self._silent_ns = 0
        self._seen_ns = 0

    def start(self, pose: Array, now_ns: int) -> None:
        """Starts at the pose that the gate holds, with no command under way."""
        self.pose = np.asarray(pose, float)
        self._sent.clear()
        self._silent_ns = 0
        self._seen_ns = now_ns

    def send(self, sequence: int, pose: Array) -> Array:
        """The delta (6,) that leads to a pose; it waits for its echo."""
        delta = deltas_between(np.array([self.pose, pose]))[0]
        self._sent[sequence] = delta
        self.pose = pose
        return delta

    def apply_echo(self, sequence: int, target: Array) -> None:
        """Takes over the gate's target (7,) after a command; an echo of an earlier run is ignored."""
        if sequence not in self._sent:
            return
        self._silent_ns = 0
        self._sent = {number: delta for number, delta in self._sent.items() if number > sequence}
        self.pose = np.asarray(target, float)
        for delta in self._sent.values():
            self.pose = apply_delta(self.pose, delta)

    def silent_s(self, now_ns: int, max_step_ns: int) -> float:
        """The time for which commands were sent without an echo, counted in steps of at most `max_step_ns`.

        So a process that was held up itself does not take its own pause for silence of the driver.
        """
        step_ns = min(now_ns - self._seen_ns, max_step_ns)
        self._seen_ns = now_ns
        self._silent_ns = self._silent_ns + step_ns if self._sent else 0
        return self._silent_ns / 1e9


class ArmTarget:
    """The pose at which a policy starts or continues, and whether the arm is at rest there."""

    def __init__(self) -> None:
        self._tcp_target: Array | None = None
        self._echo: Array | None = None
        self._rest_pose: Array | None = None
        self._rest_since_ns = 0

    @property
    def pose(self) -> Array | None:
        """The newest target that the gate echoed for any source since enable, else the robot's own target."""
        if self._echo is None or self._tcp_target is None:
            return self._tcp_target
        agrees = _is_near(self._echo, self._tcp_target, _AGREES_M, _AGREES_RAD)
        return self._echo if agrees else self._tcp_target

    def forget_echo(self) -> None:
        """Drops the echoed target: when the arm is enabled again, the gate starts at the robot's own."""
        self._echo = None

    def add_echo(self, target: Array) -> None:
        """Takes the target (7,) of a message on command/tcp_delta."""
        self._echo = np.asarray(target, float)

    def add_tcp_target(self, pose: Array, stamp_ns: int) -> None:
        """Takes the robot's own target pose (7,), from tcp_target."""
        self._tcp_target = pose
        if self._rest_pose is None or not _is_near(pose, self._rest_pose, _REST_M, _REST_RAD):
            self._rest_pose = pose
            self._rest_since_ns = stamp_ns

    def moving_reason(self, now_ns: int) -> str:
        """Why a policy may not start here now; empty once tcp_target has not moved for 0.3 s."""
        if now_ns - self._rest_since_ns >= _REST_NS:
            return ''
        return 'the arm still moves: try again when it is at rest'


def _is_near(pose: Array, other: Array, distance_m: float, angle_rad: float) -> bool:
    return (
        float(np.linalg.norm(pose[:3] - other[:3])) <= distance_m and angle_between(pose, other) <= angle_rad
    )
