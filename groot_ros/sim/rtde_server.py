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
_DIGITAL_OUTPUTS = {
    'standard': 0,
    'configurable': 8,
    'tool': 16,
}  # and the lowest bit of each in actual_digital_output_bits


@dataclass
class Client:
    """What one RTDE connection asked for."""

    output_format: struct.Struct | None = None
    output_readers: list[Reader] = field(default_factory=list)
    every_ticks: int = 1
    input_recipes: list[list[str]] = field(default_factory=list)
    started: bool = False


class RtdeServer(TcpServer):
    """Answers requests as they come and sends data packages to started clients: `prepare`, then `publish`."""

    name = 'RTDE'

    def __init__(self, host: str, controller: Controller, port: int = 30004) -> None:
        super().__init__(host, port)
        self.controller = controller
        self.silent = False
        self.latency_ticks = 0
        self.servo_target, self.servo_arrival_ns = np.zeros(6), 0
        self._delayed: deque[list[tuple[Connection, bytes]]] = deque()
        self._clients: dict[Connection, Client] = {}
        self._owners: dict[str, Connection] = {}
        self._ready: list[tuple[Connection, bytes]] = []
        self._answers = {
            ord('V'): self._protocol_version, ord('v'): self._controller_version, ord('O'): self._set_up_outputs,
            ord('I'): self._set_up_inputs, ord('S'): self._start, ord('P'): self._pause, ord('U'): self._take_inputs,
        }  # fmt: skip

    def connected(self, connection: Connection) -> None:
        """A client arrived; it has no recipe yet."""
        self._clients[connection] = Client()

    def closed(self, connection: Connection) -> None:
        """Frees the input variables that the client owned."""
        self._clients.pop(connection, None)
        self._owners = {name: owner for name, owner in self._owners.items() if owner is not connection}

    def received(self, connection: Connection) -> None:
        """Answers each complete package."""
        inbox = connection.inbox
        while len(inbox) >= 3:
            size, kind = struct.unpack_from('>HB', inbox)
            if size < 3 or len(inbox) < size:
                connection.open = size >= 3
                return
            payload = bytes(inbox[3:size])
            del inbox[:size]
            if kind in self._answers:
                self._answers[kind](connection, self._clients[connection], payload)

    def prepare(self) -> None:
        """Packs the controller's present state for each client whose rate asks for it on this tick."""
        self._ready = [
            (
                connection,
                _package(
                    'U',
                    client.output_format.pack(
                        1, *(value for read in client.output_readers for value in read(self.controller))
                    ),
                ),
            )
            for connection, client in self._clients.items()
            if client.started and client.output_format and self.controller.ticks % client.every_ticks == 0
        ]

    def publish(self) -> None:
        """Sends what `prepare` packed, unless the test hook silences it."""
        self._delayed.append(self._ready)
        while len(self._delayed) > self.latency_ticks:
            for connection, package in self._delayed.popleft():
                if connection.open and not self.silent:
                    connection.send(package)

    def disconnect(self) -> None:
        """Hangs up on every client, as a pulled cable does in the end."""
        for connection in list(self.connections.values()):
            self.drop(connection)

    def _protocol_version(self, connection: Connection, client: Client, payload: bytes) -> None:
        _reply(connection, 'V', struct.pack('>B', struct.unpack('>H', payload)[0] == 2))

    def _controller_version(self, connection: Connection, client: Client, payload: bytes) -> None:
        _reply(connection, 'v', struct.pack('>4I', *self.controller.model.version, 0))

    def _set_up_outputs(self, connection: Connection, client: Client, payload: bytes) -> None:
        frequency = struct.unpack_from('>d', payload)[0]
        names = _names(payload[8:])
        types = [OUTPUTS[name][0] if name in OUTPUTS else 'NOT_FOUND' for name in names]
        known = 'NOT_FOUND' not in types
        if known:
            client.output_format = struct.Struct('>B' + ''.join(STRUCT_OF_TYPE[kind] for kind in types))
            client.output_readers = [OUTPUTS[name][1] for name in names]
            client.every_ticks = self._every_ticks(frequency)
        _reply(connection, 'O', bytes([known]) + ','.join(types).encode())

    def _every_ticks(self, frequency_hz: float) -> int:
        fastest_hz = self.controller.model.rate_hz
        return (
            max(round(CONTROL_RATE_HZ / min(frequency_hz, fastest_hz)), 1)
            if frequency_hz > 0
            else round(CONTROL_RATE_HZ / fastest_hz)
        )

    def _set_up_inputs(self, connection: Connection, client: Client, payload: bytes) -> None:
        names = _names(payload)
        types = [self._input_type(name, connection) for name in names]
        usable = not {'NOT_FOUND', 'IN_USE'} & set(types)
        if usable:
            client.input_recipes.append(names)
            self._owners.update(dict.fromkeys(names, connection))
        _reply(
            connection, 'I', bytes([len(client.input_recipes) if usable else 0]) + ','.join(types).encode()
        )

    def _input_type(self, name: str, connection: Connection) -> str:
        if self._owners.get(name, connection) is not connection:
            return 'IN_USE'
        return INPUT_TYPES.get(name, 'NOT_FOUND')

    def _start(self, connection: Connection, client: Client, payload: bytes) -> None:
        client.started = True
        _reply(connection, 'S', b'\x01')

    def _pause(self, connection: Connection, client: Client, payload: bytes) -> None:
        client.started = False
        _reply(connection, 'P', b'\x01')

    def _take_inputs(self, connection: Connection, client: Client, payload: bytes) -> None:
        # ur_rtde sends a package that is longer than its recipe (getForwardKinematics): the rest is ignored.
        if not payload or not 1 <= payload[0] <= len(client.input_recipes):
            return
        names = client.input_recipes[payload[0] - 1]
        offset = 1
        for name in names:
            layout = '>' + STRUCT_OF_TYPE[INPUT_TYPES[name]]
            values = struct.unpack_from(layout, payload, offset)
            offset += struct.calcsize(layout)
            self.controller.inputs[name] = values[0] if len(values) == 1 else list(values)
        self._act_on(names)

    def _act_on(self, names: list[str]) -> None:
        program, inputs = self.controller.program, self.controller.inputs
        if isinstance(program, ControlScript) and f'input_int_register_{program.offset}' in names:
            program.last_input_s = time.monotonic()
            self._note_servo_target(program)
        if 'speed_slider_fraction' in names and inputs.get('speed_slider_mask'):
            self.controller.speed_slider = float(inputs['speed_slider_fraction'])  # type: ignore[arg-type]
        for kind, shift in _DIGITAL_OUTPUTS.items():
            if f'{kind}_digital_output' in names:
                mask, bits = (
                    int(inputs.get(f'{kind}_digital_output{end}', 0)) << shift for end in ('_mask', '')
                )  # type: ignore[arg-type]
                self.controller.digital_outputs = self.controller.digital_outputs & ~mask | bits & mask
        for channel in (0, 1):
            name = f'standard_analog_output_{channel}'
            if name in names and int(inputs.get('standard_analog_output_mask', 0)) >> channel & 1:  # type: ignore[arg-type]
                self.controller.analog_outputs[channel] = float(inputs[name])  # type: ignore[arg-type]

    def _note_servo_target(self, program: ControlScript) -> None:
        """Keeps when the newest servo target came: the controller's end of a latency measurement."""
        target = [
            self.controller.inputs.get(f'input_double_register_{i + program.offset}', 0.0) for i in range(6)
        ]
        if program.servoing and not np.array_equal(target, self.servo_target):
            self.servo_target, self.servo_arrival_ns = np.array(target), time.time_ns()


def _names(payload: bytes) -> list[str]:
    # ur_rtde ends its lists with a comma.
    return [name for name in payload.decode('ascii', 'replace').split(',') if name]


def _reply(connection: Connection, kind: str, payload: bytes) -> None:
    connection.send(_package(kind, payload))


def _package(kind: str, payload: bytes) -> bytes:
    return struct.pack('>HB', len(payload) + 3, ord(kind)) + payload
