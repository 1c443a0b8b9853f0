# SPDX-License-Identifier: Apache-2.0
"""Set-point generators of the simulated controller: each gives the next joint target, 2 ms at a time."""

from dataclasses import dataclass, field

import numpy as np

from groot_ros.geometry import Array, interpolate_pose
from groot_ros.ur5e_kinematics import inverse, jacobian

JOINT_SPEED_LIMIT_RAD_S = np.pi
JOINT_ACCELERATION_LIMIT_RAD_S2 = 40.0


class UnreachableError(Exception):
    """Inverse kinematics has no solution: on a real controller this stops the program."""


@dataclass
class Setpoint:
    """What the controller tells the joints: angles in rad, rad/s and rad/s^2, (6,) each."""

    positions: Array
    velocities: Array = field(default_factory=lambda: np.zeros(6))
    accelerations: Array = field(default_factory=lambda: np.zeros(6))


class Motion:
    """One motion; `advance` gives the velocity it wants next and `done` says when it has ended."""

    done = False

    def advance(self, now: Setpoint, dt_s: float) -> Array:
        """Joint velocities (6,) wanted over the next `dt_s`."""
        raise NotImplementedError


class StopMotion(Motion):
    """Slows every joint down at a constant rate."""

    def __init__(self, deceleration_rad_s2: float) -> None:
        self.deceleration = max(deceleration_rad_s2, 0.1)

    def advance(self, now: Setpoint, dt_s: float) -> Array:
        """Shortens the velocity vector, keeping its direction."""
        speed = float(np.abs(now.velocities).max())
        slower = max(speed - self.deceleration * dt_s, 0.0)
        self.done = slower == 0.0
        return now.velocities * (slower / speed) if speed else np.zeros(6)


class ServoMotion(Motion):
    """servoj: follows the newest target as a first-order lag.

    The time constant is lookahead * clip(300 / gain, 0.4, 3): a model, to be letterboxed to the real arm.
    """

    def __init__(self) -> None:
        self.target: Array | None = None
        self.time_constant_s = 0.1

    def aim(self, target: Array, lookahead_s: float, gain: float) -> None:
        """Sets the joint target (6,), lookahead time and gain of the newest servoj."""
        self.target = target
        self.time_constant_s = lookahead_s * float(np.clip(300.0 / gain, 0.4, 3.0))

    def advance(self, now: Setpoint, dt_s: float) -> Array:
        """Covers the share of the way that a first-order lag covers in one tick."""
        if self.target is None:
            return np.zeros(6)
        return (self.target - now.positions) * (1 - np.exp(-dt_s / self.time_constant_s)) / dt_s


class SpeedMotion(Motion):
    """speedj and speedl: a constant velocity, approached at a constant rate, until another command comes."""

    def __init__(self, velocity: Array, acceleration: float, tcp_offset: Array | None = None) -> None:
        self.velocity, self.acceleration, self.tcp_offset = velocity, max(acceleration, 0.1), tcp_offset

    def advance(self, now: Setpoint, dt_s: float) -> Array:
        """Joint velocities, from a TCP velocity where a TCP offset was given."""
        wanted = self.velocity
        if self.tcp_offset is not None:
            wanted = np.linalg.lstsq(jacobian(now.positions, self.tcp_offset), self.velocity, rcond=1e-4)[0]
        step = np.clip(wanted - now.velocities, -self.acceleration * dt_s, self.acceleration * dt_s)
        return now.velocities + step


class CompliantMotion(Motion):
    """Freedrive and force mode: the arm gives way to `push`, a TCP velocity (6,) of the hand that moves it, and else rests."""

    def __init__(self, tcp_offset: Array) -> None:
        self.push, self.tcp_offset = np.zeros(6), tcp_offset

    def advance(self, now: Setpoint, dt_s: float) -> Array:
        """The joint velocities that follow the hand."""
        return np.linalg.lstsq(jacobian(now.positions, self.tcp_offset), self.push, rcond=1e-4)[0]


class Path(Motion):
    """movej and movel: a trapezoid of speed along a straight line, in joints or in TCP poses.

    The speed slider, `speed_share`, stretches time. ServoMotion and speed motions do not obey it here.
    """

    def __init__(self, length: float, speed: float, acceleration: float) -> None:
        self.length, self.speed, self.acceleration = length, max(speed, 1e-3), max(acceleration, 1e-3)
        self.elapsed_s, self.speed_share = 0.0, 1.0

    def at(self, share: float, now: Setpoint) -> Array:
        """Joint angles at a share of the way."""
        raise NotImplementedError

    def advance(self, now: Setpoint, dt_s: float) -> Array:
        """The velocity to the point that the trapezoid reaches after `dt_s`."""
        self.elapsed_s += dt_s * self.speed_share
        share = _trapezoid_share(self.elapsed_s, self.length, self.speed, self.acceleration)
        self.done = share >= 1.0
        return (self.at(share, now) - now.positions) / dt_s


class JointPath(Path):
    """movej from the present target to joint angles (6,); speed and acceleration are of the leading axis."""

    def __init__(self, start: Array, end: Array, speed_rad_s: float, acceleration_rad_s2: float) -> None:
        super().__init__(float(np.abs(end - start).max()), speed_rad_s, acceleration_rad_s2)
        self.start, self.end = start.copy(), end

    def at(self, share: float, now: Setpoint) -> Array:
        """Joint angles on the line."""
        return self.start + (self.end - self.start) * share


class PosePath(Path):
    """movel from a pose (7,) to another; speed in m/s and acceleration in m/s^2 of the TCP."""

    def __init__(
        self, start: Array, end: Array, tcp_offset: Array, speed_m_s: float, acceleration_m_s2: float
    ) -> None:
        super().__init__(float(np.linalg.norm(end[:3] - start[:3])) or 0.1, speed_m_s, acceleration_m_s2)
        self.start, self.end, self.tcp_offset = start, end, tcp_offset

    def at(self, share: float, now: Setpoint) -> Array:
        """Joint angles of the pose on the line, nearest to the present ones."""
        joints = inverse(interpolate_pose(self.start, self.end, share), now.positions, self.tcp_offset)
        if joints is None:
            raise UnreachableError
        return joints


def limited_step(now: Setpoint, wanted: Array, dt_s: float) -> Setpoint:
    """The next set-point within the joint speed and acceleration limits."""
    reach = JOINT_ACCELERATION_LIMIT_RAD_S2 * dt_s
    velocities = np.clip(wanted, now.velocities - reach, now.velocities + reach)
    velocities = np.clip(velocities, -JOINT_SPEED_LIMIT_RAD_S, JOINT_SPEED_LIMIT_RAD_S)
    return Setpoint(now.positions + velocities * dt_s, velocities, (velocities - now.velocities) / dt_s)


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
