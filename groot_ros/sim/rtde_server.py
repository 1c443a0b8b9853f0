# SPDX-License-Identifier: Apache-2.0
"""RTDE, protocol version 2, as a UR controller serves it on port 30004.

https://www.universal-robots.com/articles/ur/interface-communication/real-time-data-exchange-rtde-guide/
"""

import struct
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from groot_ros.sim.control_script import ControlScript
from groot_ros.sim.controller import Controller
from groot_ros.sim.rtde_variables import INPUT_TYPES, OUTPUTS, STRUCT_OF_TYPE, Reader
from groot_ros.sim.sockets import Connection, TcpServer

CONTROL_RATE_HZ = 500.0
# Each group of digital outputs and its lowest bit in actual_digital_output_bits.
_DIGITAL_OUTPUTS = {'standard': 0, 'configurable': 8, 'tool': 16}


@dataclass
class RtdeClient:
    """The recipes and the rate that one RTDE connection asked for."""

    output_format: struct.Struct | None = None
    output_readers: list[Reader] = field(default_factory=list)
    every_ticks: int = 1
    input_recipes: list[list[str]] = field(default_factory=list)
    started: bool = False


class RtdeServer(TcpServer):
    """Answers requests as they come. `prepare` and `publish` send data packages to started clients."""

    name = 'RTDE'

    def __init__(self, host: str, controller: Controller, port: int = 30004) -> None:
        super().__init__(host, port)
        self.controller = controller
        self.silent = False
        self.latency_ticks = 0
        self.servo_target = np.zeros(6)
        self.servo_arrival_ns = 0
        self._delayed: deque[list[tuple[Connection, bytes]]] = deque()
        self._clients: dict[Connection, RtdeClient] = {}
        self._owners: dict[str, Connection] = {}
        self._ready: list[tuple[Connection, bytes]] = []
        self._answers = {
            ord('V'): self._send_protocol_version,
            ord('v'): self._send_controller_version,
            ord('O'): self._set_up_outputs,
            ord('I'): self._set_up_inputs,
            ord('S'): self._start,
            ord('P'): self._pause,
            ord('U'): self._store_inputs,
        }

    def on_connect(self, connection: Connection) -> None:
        """Adds a client that has no recipe yet."""
        self._clients[connection] = RtdeClient()

    def on_disconnect(self, connection: Connection) -> None:
        """Removes the client and frees the input variables that it owned."""
        self._clients.pop(connection, None)
        self._owners = {name: owner for name, owner in self._owners.items() if owner is not connection}

    def on_data(self, connection: Connection) -> None:
        """Answers every complete RTDE package in the inbox."""
        inbox = connection.inbox
        while len(inbox) >= 3:
            size, package_type = struct.unpack_from('>HB', inbox)
            if size < 3 or len(inbox) < size:
                connection.open = size >= 3
                return
            payload = bytes(inbox[3:size])
            del inbox[:size]
            if package_type in self._answers:
                self._answers[package_type](connection, self._clients[connection], payload)

    def prepare(self) -> None:
        """Packs the present state for each client whose rate asks for a package on this tick."""
        self._ready = []
        for connection, client in self._clients.items():
            is_due = self.controller.ticks % client.every_ticks == 0
            if client.started and client.output_format and is_due:
                values = [value for read in client.output_readers for value in read(self.controller)]
                self._ready.append((connection, _package('U', client.output_format.pack(1, *values))))

    def publish(self) -> None:
        """Sends what `prepare` packed, after the latency and unless the silence that a test set."""
        self._delayed.append(self._ready)
        while len(self._delayed) > self.latency_ticks:
            for connection, package in self._delayed.popleft():
                if connection.open and not self.silent:
                    connection.send(package)

    def disconnect(self) -> None:
        """Closes every connection, as happens in the end when a cable is pulled."""
        for connection in list(self.connections.values()):
            self.drop(connection)

    def _send_protocol_version(self, connection: Connection, client: RtdeClient, payload: bytes) -> None:
        version = struct.unpack('>H', payload)[0]
        _reply(connection, 'V', struct.pack('>B', version == 2))

    def _send_controller_version(self, connection: Connection, client: RtdeClient, payload: bytes) -> None:
        _reply(connection, 'v', struct.pack('>4I', *self.controller.model.version, 0))

    def _set_up_outputs(self, connection: Connection, client: RtdeClient, payload: bytes) -> None:
        frequency = struct.unpack_from('>d', payload)[0]
        names = _names(payload[8:])
        types = [OUTPUTS[name][0] if name in OUTPUTS else 'NOT_FOUND' for name in names]
        known = 'NOT_FOUND' not in types
        if known:
            layout = ''.join(STRUCT_OF_TYPE[data_type] for data_type in types)
            client.output_format = struct.Struct('>B' + layout)
            client.output_readers = [OUTPUTS[name][1] for name in names]
            client.every_ticks = self._every_ticks(frequency)
        _reply(connection, 'O', bytes([known]) + ','.join(types).encode())

    def _every_ticks(self, frequency_hz: float) -> int:
        max_hz = self.controller.model.rate_hz
        rate_hz = min(frequency_hz, max_hz) if frequency_hz > 0 else max_hz
        return max(round(CONTROL_RATE_HZ / rate_hz), 1)

    def _set_up_inputs(self, connection: Connection, client: RtdeClient, payload: bytes) -> None:
        names = _names(payload)
        types = [self._input_type(name, connection) for name in names]
        usable = not {'NOT_FOUND', 'IN_USE'} & set(types)
        if usable:
            client.input_recipes.append(names)
            self._owners.update(dict.fromkeys(names, connection))
        recipe_id = len(client.input_recipes) if usable else 0
        _reply(connection, 'I', bytes([recipe_id]) + ','.join(types).encode())

    def _input_type(self, name: str, connection: Connection) -> str:
        if self._owners.get(name, connection) is not connection:
            return 'IN_USE'
        return INPUT_TYPES.get(name, 'NOT_FOUND')

    def _start(self, connection: Connection, client: RtdeClient, payload: bytes) -> None:
        client.started = True
        _reply(connection, 'S', b'\x01')

    def _pause(self, connection: Connection, client: RtdeClient, payload: bytes) -> None:
        client.started = False
        _reply(connection, 'P', b'\x01')

    def _store_inputs(self, connection: Connection, client: RtdeClient, payload: bytes) -> None:
        # ur_rtde's getForwardKinematics sends a package longer than its recipe: the rest is ignored.
        if not payload or not 1 <= payload[0] <= len(client.input_recipes):
            return
        names = client.input_recipes[payload[0] - 1]
        offset = 1
        for name in names:
            layout = '>' + STRUCT_OF_TYPE[INPUT_TYPES[name]]
            values = struct.unpack_from(layout, payload, offset)
            offset += struct.calcsize(layout)
            self.controller.inputs[name] = values[0] if len(values) == 1 else list(values)
        self._apply(names)

    def _apply(self, names: list[str]) -> None:
        """Carries out what newly written inputs ask for: commands of the script, speed slider, outputs."""
        program = self.controller.program
        if isinstance(program, ControlScript) and f'input_int_register_{program.offset}' in names:
            program.last_input_s = time.monotonic()
            self._note_servo_target(program)
        if 'speed_slider_fraction' in names and self._input('speed_slider_mask'):
            self.controller.speed_slider = self._input('speed_slider_fraction')
        self._apply_digital_outputs(names)
        self._apply_analog_outputs(names)

    def _apply_digital_outputs(self, names: list[str]) -> None:
        for group, shift in _DIGITAL_OUTPUTS.items():
            name = f'{group}_digital_output'
            if name in names:
                mask = int(self._input(f'{name}_mask')) << shift
                bits = int(self._input(name)) << shift
                unchanged = self.controller.digital_outputs & ~mask
                self.controller.digital_outputs = unchanged | bits & mask

    def _apply_analog_outputs(self, names: list[str]) -> None:
        mask = int(self._input('standard_analog_output_mask'))
        for channel in (0, 1):
            name = f'standard_analog_output_{channel}'
            if name in names and mask >> channel & 1:
                self.controller.analog_outputs[channel] = self._input(name)

    def _input(self, name: str) -> float:
        return float(self.controller.inputs.get(name, 0.0))  # type: ignore[arg-type]

    def _note_servo_target(self, program: ControlScript) -> None:
        """Stores when the newest servo target arrived, for measurements of latency."""
        target = [self._input(f'input_double_register_{i + program.offset}') for i in range(6)]
        if program.servoing and not np.array_equal(target, self.servo_target):
            self.servo_target = np.array(target)
            self.servo_arrival_ns = time.time_ns()


def _names(payload: bytes) -> list[str]:
    # ur_rtde ends its lists with a comma.
    return [name for name in payload.decode('ascii', 'replace').split(',') if name]


def _reply(connection: Connection, package_type: str, payload: bytes) -> None:
    connection.send(_package(package_type, payload))


def _package(package_type: str, payload: bytes) -> bytes:
    return struct.pack('>HB', len(payload) + 3, ord(package_type)) + payload
