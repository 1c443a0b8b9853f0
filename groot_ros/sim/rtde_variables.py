# SPDX-License-Identifier: Apache-2.0
"""The RTDE variables of the simulated controller: their names, their types and how each is read."""

from collections.abc import Callable, Sequence

import numpy as np

from groot_ros.geometry import Array, rotvec_from_pose
from groot_ros.hardware.ur5e.modes import EMERGENCY_STOP, NORMAL, PLAYING, PROTECTIVE_STOP, RUNNING
from groot_ros.sim.controller import Controller
from groot_ros.sim.physics import Joints

STRUCT_OF_TYPE = {
    'BOOL': '?',
    'UINT8': 'B',
    'UINT32': 'I',
    'UINT64': 'Q',
    'INT32': 'i',
    'DOUBLE': 'd',
    'VECTOR3D': '3d',
    'VECTOR6D': '6d',
    'VECTOR6INT32': '6i',
    'VECTOR6UINT32': '6I',
}
Values = Sequence[float]
Reader = Callable[[Controller], Values]


def _target_joints(controller: Controller) -> Joints:
    return Joints(controller.setpoint.positions, controller.setpoint.velocities)


def _constant(*values: float) -> Reader:
    return lambda controller: values


def _scalar(read: Callable[[Controller], float]) -> Reader:
    return lambda controller: (read(controller),)


def _vector(read: Callable[[Controller], Array]) -> Reader:
    return lambda controller: read(controller).tolist()


def _robot_status_bits(controller: Controller) -> int:
    return (controller.robot_mode == RUNNING) | (controller.runtime_state == PLAYING) << 1


def _safety_status_bits(controller: Controller) -> int:
    mode = controller.safety_mode
    stopped = mode == PROTECTIVE_STOP
    emergency = mode == EMERGENCY_STOP
    any_stop = stopped or emergency
    return (mode == NORMAL) | stopped << 2 | emergency << 6 | emergency << 7 | any_stop << 10


_ZERO6 = _constant(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
_DOUBLES: dict[str, Reader] = {
    'timestamp': _scalar(lambda c: c.timestamp_s),
    'actual_execution_time': _constant(0.0),
    'target_execution_time': _constant(0.0),
    'speed_scaling': _scalar(lambda c: c.speed_slider),
    'target_speed_fraction': _scalar(lambda c: c.speed_slider),
    'actual_momentum': _constant(0.0),
    'actual_main_voltage': _constant(48.0),
    'actual_robot_voltage': _constant(48.0),
    'actual_robot_current': _constant(0.6),
    'io_current': _constant(0.0),
    'tcp_force_scalar': _constant(0.0),
    'standard_analog_input0': _constant(0.0),
    'standard_analog_input1': _constant(0.0),
    'standard_analog_output0': _scalar(lambda c: c.analog_outputs[0]),
    'standard_analog_output1': _scalar(lambda c: c.analog_outputs[1]),
    'tool_analog_input0': _constant(0.0),
    'tool_analog_input1': _constant(0.0),
    'tool_output_current': _constant(0.0),
    'tool_temperature': _constant(30.0),
    'joint_position_deviation_ratio': _constant(0.0),
    'collision_detection_ratio': _constant(0.0),
    'payload': _scalar(lambda c: c.payload_kg),
}
_VECTORS: dict[str, Reader] = {
    'target_q': _vector(lambda c: c.setpoint.positions),
    'target_qd': _vector(lambda c: c.setpoint.velocities),
    'target_qdd': _vector(lambda c: c.setpoint.accelerations),
    'target_current': _ZERO6,
    'target_moment': _ZERO6,
    'actual_q': _vector(lambda c: c.actual.positions),
    'actual_qd': _vector(lambda c: c.actual.velocities),
    'actual_current': _ZERO6,
    'actual_current_window': _ZERO6,
    'actual_current_as_torque': _ZERO6,
    'joint_control_output': _ZERO6,
    'actual_TCP_pose': _vector(lambda c: rotvec_from_pose(c.actual_pose())),
    'actual_TCP_speed': _vector(lambda c: c.tcp_speed(c.actual)),
    'actual_TCP_force': _ZERO6,
    'target_TCP_pose': _vector(lambda c: rotvec_from_pose(c.target_pose())),
    'target_TCP_speed': _vector(lambda c: c.tcp_speed(_target_joints(c))),
    'tcp_offset': _vector(lambda c: c.tcp_offset),
    'joint_temperatures': _constant(*[30.0] * 6),
    'actual_joint_voltage': _constant(*[48.0] * 6),
    'ft_raw_wrench': _ZERO6,
    'payload_inertia': _ZERO6,
}
_OTHERS: dict[str, tuple[str, Reader]] = {
    'actual_tool_accelerometer': ('VECTOR3D', _constant(0.0, 0.0, -9.81)),
    'elbow_position': ('VECTOR3D', _constant(0.0, 0.0, 0.0)),
    'elbow_velocity': ('VECTOR3D', _constant(0.0, 0.0, 0.0)),
    'payload_cog': ('VECTOR3D', _vector(lambda c: np.asarray(c.payload_centre_m, float))),
    'target_gravity': ('VECTOR3D', _constant(0.0, 0.0, 9.82)),
    'joint_mode': ('VECTOR6INT32', _constant(*[253] * 6)),
    'actual_digital_input_bits': ('UINT64', _constant(0)),
    'actual_digital_output_bits': ('UINT64', _scalar(lambda c: c.digital_outputs)),
    'robot_mode': ('INT32', _scalar(lambda c: c.robot_mode)),
    'safety_mode': ('INT32', _scalar(lambda c: c.safety_mode)),
    'safety_status': ('INT32', _scalar(lambda c: c.safety_mode)),
    'runtime_state': ('UINT32', _scalar(lambda c: c.runtime_state)),
    'robot_status_bits': ('UINT32', _scalar(_robot_status_bits)),
    'safety_status_bits': ('UINT32', _scalar(_safety_status_bits)),
    'analog_io_types': ('UINT32', _constant(0)),
    'tool_mode': ('UINT32', _constant(255)),
    'script_control_line': ('UINT32', _constant(0)),
}


def _output_registers() -> dict[str, tuple[str, Reader]]:
    registers: dict[str, tuple[str, Reader]] = {}
    for i in range(48):
        registers[f'output_int_register_{i}'] = ('INT32', _scalar(lambda c, i=i: c.output_ints[i]))
        registers[f'output_double_register_{i}'] = ('DOUBLE', _scalar(lambda c, i=i: c.output_doubles[i]))
        for name, data_type in (
            (f'input_int_register_{i}', 'INT32'),
            (f'input_double_register_{i}', 'DOUBLE'),
        ):
            registers[name] = (data_type, _scalar(lambda c, name=name: c.inputs.get(name, 0)))
    return registers


OUTPUTS: dict[str, tuple[str, Reader]] = {
    **{name: ('DOUBLE', read) for name, read in _DOUBLES.items()},
    **{name: ('VECTOR6D', read) for name, read in _VECTORS.items()},
    **_OTHERS,
    **_output_registers(),
}

INPUT_TYPES: dict[str, str] = {
    'speed_slider_mask': 'UINT32',
    'speed_slider_fraction': 'DOUBLE',
    'standard_digital_output_mask': 'UINT8',
    'standard_digital_output': 'UINT8',
    'configurable_digital_output_mask': 'UINT8',
    'configurable_digital_output': 'UINT8',
    'tool_digital_output_mask': 'UINT8',
    'tool_digital_output': 'UINT8',
    'standard_analog_output_mask': 'UINT8',
    'standard_analog_output_type': 'UINT8',
    'standard_analog_output_0': 'DOUBLE',
    'standard_analog_output_1': 'DOUBLE',
    'input_bit_registers0_to_31': 'UINT32',
    'input_bit_registers32_to_63': 'UINT32',
    'external_force_torque': 'VECTOR6D',
    **{f'input_bit_register_{i}': 'BOOL' for i in range(64, 128)},
    **{f'input_int_register_{i}': 'INT32' for i in range(48)},
    **{f'input_double_register_{i}': 'DOUBLE' for i in range(48)},
}
