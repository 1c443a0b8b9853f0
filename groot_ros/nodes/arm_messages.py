# SPDX-License-Identifier: Apache-2.0
"""What ur5e_driver publishes, from the records of the robot."""

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion
from sensor_msgs.msg import JointState

from groot_ros.control.command_gate import CommandGate, GateState
from groot_ros.geometry import Array
from groot_ros.hardware.ur5e import installation
from groot_ros.hardware.ur5e.modes import (
    EMERGENCY_STOPS,
    PLAYING,
    PROTECTIVE_STOP,
    ROBOT_MODES,
    SAFETY_MODES,
    stop_reason,
)
from groot_ros.msg import RobotStatus
from groot_ros.sampling.stream_monitor import Health
from groot_ros.ur5e_kinematics import JOINT_NAMES

_LATE_PERIODS = 2


def joint_state_message(stamp: Time, frame: str, state: np.void) -> JointState:
    """The measured joint angles and velocities of a STATE record; `frame` is that of the robot's base."""
    message = JointState(
        name=list(JOINT_NAMES),
        position=state['joint_positions'].tolist(),
        velocity=state['joint_velocities'].tolist(),
    )
    message.header.stamp = stamp
    message.header.frame_id = frame
    return message


def pose_message(stamp: Time, frame: str, pose: Array) -> PoseStamped:
    """A pose x y z qx qy qz qw (7,) in a frame."""
    x, y, z, qx, qy, qz, qw = pose.tolist()
    message = PoseStamped(
        pose=Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))
    )
    message.header.stamp = stamp
    message.header.frame_id = frame
    return message


def modes_of(state: np.void | None) -> tuple[int, ...]:
    """Safety mode, robot mode and runtime state of a STATE record; empty without one."""
    if state is None:
        return ()
    return tuple(int(state[name]) for name in ('safety_mode', 'robot_mode', 'runtime_state'))


def status_message(
    stamp: Time, frame: str, gate: CommandGate, reason: str, connected: bool, state: np.void | None
) -> RobotStatus:
    """The state of the gate, and the modes of the newest STATE record if there is one."""
    status = RobotStatus(
        connected=connected,
        state=int(gate.state),
        source=gate.source,
        reason=reason,
        **vars(gate.counters),
    )
    status.header.stamp = stamp
    status.header.frame_id = frame
    if state is None:
        return status
    status.safety_mode, status.robot_mode, status.runtime_state = modes_of(state)
    status.robot_mode_text = ROBOT_MODES.get(status.robot_mode, '')
    status.safety_mode_text = SAFETY_MODES.get(status.safety_mode, '')
    status.speed_scaling = float(state['speed_scaling'])
    status.program_running = status.runtime_state == PLAYING
    status.protective_stopped = status.safety_mode == PROTECTIVE_STOP
    status.emergency_stopped = status.safety_mode in EMERGENCY_STOPS
    return status


def robot_health(state: np.void) -> Health:
    """Whether the robot's modes allow motion; and its speed slider, TCP offset and payload."""
    fault = stop_reason(int(state['robot_mode']), int(state['safety_mode']))
    level = 2 if fault else 0
    values = {'speed scaling': f'{state["speed_scaling"]:.2f}', **installation.describe(state)}
    return Health('robot', level, fault or 'ready', values)


def servo_health(beat: np.void, rate_hz: float) -> Health:
    """Whether the servo loop keeps its rate."""
    values = {
        'cycle p99 (ms)': f'{beat["cycle_ms_p99"]:.3f}',
        'max cycle (ms)': f'{beat["cycle_ms_max"]:.3f}',
    }
    late = bool(beat['cycle_ms_p99'] > _LATE_PERIODS * 1e3 / rate_hz)
    return Health('servo loop', int(late), 'late' if late else 'on time', values)


def gate_health(gate: CommandGate, reason: str) -> Health:
    """Who commands, or the reason why nobody does or a publisher is refused; how many commands passed."""
    counts = {key: str(value) for key, value in vars(gate.counters).items()}
    troubled = gate.state is GateState.STOPPED or (gate.state is GateState.ENABLED and reason)
    text = reason or f'{gate.state.name.lower()}, {gate.source or "nobody"} commands'
    return Health('commands', int(bool(troubled)), text, counts)
