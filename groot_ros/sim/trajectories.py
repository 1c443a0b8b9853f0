# SPDX-License-Identifier: Apache-2.0
"""Set-point generators of the simulated controller: each gives the next joint target, 2 ms at a time."""

from dataclasses import dataclass, field

import numpy as np

from groot_ros.geometry import Array, interpolate_pose
from groot_ros.ur5e_kinematics import inverse, jacobian

JOINT_SPEED_LIMIT_RAD_S = np.pi
JOINT_ACCELERATION_LIMIT_RAD_S2 = 40.0


class UnreachableError(Exception):
    """Inverse kinematics has no solution. On a real controller this stops the program."""


@dataclass
class Setpoint:
    """Commanded joint angles in rad, velocities in rad/s and accelerations in rad/s^2, (6,) each."""

    positions: Array
    velocities: Array = field(default_factory=lambda: np.zeros(6))
    accelerations: Array = field(default_factory=lambda: np.zeros(6))


class Motion:
    """One motion: `advance` gives the next joint velocities, and `done` is True when it has ended."""

    done = False

    def advance(self, now: Setpoint, dt_s: float) -> Array:
        """Joint velocities (6,) in rad/s for the next `dt_s`."""
        raise NotImplementedError


class StopMotion(Motion):
    """Slows every joint down at a constant rate."""

    def __init__(self, deceleration_rad_s2: float) -> None:
        self.deceleration = max(deceleration_rad_s2, 0.1)

    def advance(self, now: Setpoint, dt_s: float) -> Array:
        """Reduces the speed and keeps the direction of the velocities."""
        speed = float(np.abs(now.velocities).max())
        slower = max(speed - self.deceleration * dt_s, 0.0)
        self.done = slower == 0.0
        return now.velocities * (slower / speed) if speed else np.zeros(6)


class ServoMotion(Motion):
    """servoj: follows the newest target as a first-order lag.

    The time constant is lookahead * clip(300 / gain, 0.4, 3), not yet fitted to a real arm.
    """

    def __init__(self) -> None:
        self.target: Array | None = None
        self.time_constant_s = 0.1

    def aim(self, target: Array, lookahead_s: float, gain: float) -> None:
        """Sets the joint target (6,), the lookahead time and the gain of the newest servoj."""
        self.target = target
        self.time_constant_s = lookahead_s * float(np.clip(300.0 / gain, 0.4, 3.0))

    def advance(self, now: Setpoint, dt_s: float) -> Array:
        """Moves by the share of the distance that a first-order lag covers in `dt_s`."""
        if self.target is None:
            return np.zeros(6)
        share = 1 - np.exp(-dt_s / self.time_constant_s)
        return (self.target - now.positions) * share / dt_s


class SpeedMotion(Motion):
    """speedj and speedl: accelerates to a constant velocity and keeps it until another command comes."""

    def __init__(self, velocity: Array, acceleration: float, tcp_offset: Array | None = None) -> None:
        self.velocity = velocity
        self.acceleration = max(acceleration, 0.1)
        self.tcp_offset = tcp_offset

    def advance(self, now: Setpoint, dt_s: float) -> Array:
        """Approaches the velocity, which is one of the TCP when a TCP offset was given."""
        wanted = self.velocity
        if self.tcp_offset is not None:
            wanted = joint_velocities(now.positions, self.tcp_offset, self.velocity)
        max_change = self.acceleration * dt_s
        return now.velocities + np.clip(wanted - now.velocities, -max_change, max_change)


class CompliantMotion(Motion):
    """Freedrive and force mode: the arm follows `push`, the TCP velocity (6,) of a hand that moves it."""

    def __init__(self, tcp_offset: Array) -> None:
        self.push = np.zeros(6)
        self.tcp_offset = tcp_offset

    def advance(self, now: Setpoint, dt_s: float) -> Array:
        """Gives the joint velocities that follow the hand."""
        return joint_velocities(now.positions, self.tcp_offset, self.push)


class LinearPath(Motion):
    """movej and movel: a trapezoidal speed along a straight line, in joint angles or in TCP poses.

    The speed slider, `speed_share`, slows the time of the path. It has no effect on the other motions here.
    """

    def __init__(self, length: float, speed: float, acceleration: float) -> None:
        self.length = length
        self.speed = max(speed, 1e-3)
        self.acceleration = max(acceleration, 1e-3)
        self.elapsed_s = 0.0
        self.speed_share = 1.0

    def joints_at(self, share: float, now: Setpoint) -> Array:
        """Joint angles (6,) at a share, 0 to 1, of the way."""
        raise NotImplementedError

    def advance(self, now: Setpoint, dt_s: float) -> Array:
        """Velocities to the point of the path that is reached after `dt_s`."""
        self.elapsed_s += dt_s * self.speed_share
        share = _trapezoid_share(self.elapsed_s, self.length, self.speed, self.acceleration)
        self.done = share >= 1.0
        return (self.joints_at(share, now) - now.positions) / dt_s


class JointPath(LinearPath):
    """movej to joint angles (6,). Speed and acceleration are those of the joint that moves most."""

    def __init__(self, start: Array, end: Array, speed_rad_s: float, acceleration_rad_s2: float) -> None:
        super().__init__(float(np.abs(end - start).max()), speed_rad_s, acceleration_rad_s2)
        self.start = start.copy()
        self.end = end

    def joints_at(self, share: float, now: Setpoint) -> Array:
        """Joint angles on the line between start and end."""
        return self.start + (self.end - self.start) * share


class PosePath(LinearPath):
    """movel between two poses (7,), with the TCP's speed in m/s and acceleration in m/s^2."""

    def __init__(
        self, start: Array, end: Array, tcp_offset: Array, speed_m_s: float, acceleration_m_s2: float
    ) -> None:
        length_m = float(np.linalg.norm(end[:3] - start[:3]))
        super().__init__(length_m or 0.1, speed_m_s, acceleration_m_s2)
        self.start = start
        self.end = end
        self.tcp_offset = tcp_offset

    def joints_at(self, share: float, now: Setpoint) -> Array:
        """Inverse kinematics of the pose on the line; raises UnreachableError where it has no solution."""
        pose = interpolate_pose(self.start, self.end, share)
        joints = inverse(pose, now.positions, self.tcp_offset)
        if joints is None:
            raise UnreachableError
        return joints


def joint_velocities(positions: Array, tcp_offset: Array, tcp_velocity: Array) -> Array:
    """Joint velocities (6,) in rad/s for a TCP velocity (6,), least squares near a singularity."""
    return np.linalg.lstsq(jacobian(positions, tcp_offset), tcp_velocity, rcond=1e-4)[0]


def limit_step(now: Setpoint, wanted: Array, dt_s: float) -> Setpoint:
    """The next set-point within the joint speed and acceleration limits."""
    max_change = JOINT_ACCELERATION_LIMIT_RAD_S2 * dt_s
    velocities = np.clip(wanted, now.velocities - max_change, now.velocities + max_change)
    velocities = np.clip(velocities, -JOINT_SPEED_LIMIT_RAD_S, JOINT_SPEED_LIMIT_RAD_S)
    accelerations = (velocities - now.velocities) / dt_s
    return Setpoint(now.positions + velocities * dt_s, velocities, accelerations)


def _trapezoid_share(elapsed_s: float, length: float, speed: float, acceleration: float) -> float:
    if length <= 0:
        return 1.0
    speed = min(speed, np.sqrt(length * acceleration))
    ramp_s = speed / acceleration
    total_s = length / speed + ramp_s
    if elapsed_s >= total_s:
        return 1.0
    if elapsed_s < ramp_s:
        return 0.5 * acceleration * elapsed_s**2 / length
    if elapsed_s > total_s - ramp_s:
        return 1 - 0.5 * acceleration * (total_s - elapsed_s) ** 2 / length
    return speed * (elapsed_s - ramp_s / 2) / length
