"""RTDE, protocol version 2, as a UR controller serves it on port 30004.

https://www.universal-robots.com/articles/ur/interface-communication/real-time-data-exchange-rtde-guide/
"""

import struct
import time
from dataclasses import dataclass, field

from groot_ros.sim.control_script import ControlScript
from groot_ros.sim.controller import Controller
from groot_ros.sim.rtde_variables import INPUT_TYPES, OUTPUTS, STRUCT_OF_TYPE, Reader
from groot_ros.sim.sockets import Connection, TcpServer

CONTROLLER_VERSION = (5, 13, 1, 0)
CONTROL_RATE_HZ = 500.0


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
            (connection, _package('U', client.output_format.pack(1, *(value for read in client.output_readers for value in read(self.controller)))))
            for connection, client in self._clients.items()
            if client.started and client.output_format and self.controller.ticks % client.every_ticks == 0
        ]

    def publish(self) -> None:
        """Sends what `prepare` packed, unless the test hook silences it."""
        for connection, package in self._ready:
            if connection.open and not self.silent:
                connection.send(package)

    def _protocol_version(self, connection: Connection, client: Client, payload: bytes) -> None:
        _reply(connection, 'V', struct.pack('>B', struct.unpack('>H', payload)[0] == 2))

    def _controller_version(self, connection: Connection, client: Client, payload: bytes) -> None:
        _reply(connection, 'v', struct.pack('>4I', *CONTROLLER_VERSION))

    def _set_up_outputs(self, connection: Connection, client: Client, payload: bytes) -> None:
        frequency = struct.unpack_from('>d', payload)[0]
        names = _names(payload[8:])
        types = [OUTPUTS[name][0] if name in OUTPUTS else 'NOT_FOUND' for name in names]
        known = 'NOT_FOUND' not in types
        if known:
            client.output_format = struct.Struct('>B' + ''.join(STRUCT_OF_TYPE[kind] for kind in types))
            client.output_readers = [OUTPUTS[name][1] for name in names]
            client.every_ticks = max(round(CONTROL_RATE_HZ / frequency), 1) if frequency > 0 else 1
        _reply(connection, 'O', bytes([known]) + ','.join(types).encode())

    def _set_up_inputs(self, connection: Connection, client: Client, payload: bytes) -> None:
        names = _names(payload)
        types = [self._input_type(name, connection) for name in names]
        usable = not {'NOT_FOUND', 'IN_USE'} & set(types)
        if usable:
            client.input_recipes.append(names)
            self._owners.update(dict.fromkeys(names, connection))
        _reply(connection, 'I', bytes([len(client.input_recipes) if usable else 0]) + ','.join(types).encode())

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
        program = self.controller.program
        if isinstance(program, ControlScript) and f'input_int_register_{program.offset}' in names:
            program.last_input_s = time.monotonic()
        if 'speed_slider_fraction' in names and self.controller.inputs.get('speed_slider_mask'):
            self.controller.speed_slider = float(self.controller.inputs['speed_slider_fraction'])  # type: ignore[arg-type]


def _names(payload: bytes) -> list[str]:
    # ur_rtde ends its lists with a comma.
    return [name for name in payload.decode('ascii', 'replace').split(',') if name]


def _reply(connection: Connection, kind: str, payload: bytes) -> None:
    connection.send(_package(kind, payload))


def _package(kind: str, payload: bytes) -> bytes:
    return struct.pack('>HB', len(payload) + 3, ord(kind)) + payload
