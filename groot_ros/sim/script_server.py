# SPDX-License-Identifier: Apache-2.0
"""The script ports of a UR controller, 30001 to 30003. They take URScript and send no state here."""

from functools import partial

from groot_ros.sim.control_script import parse_program
from groot_ros.sim.controller import Controller
from groot_ros.sim.sockets import Connection, TcpServer

SCRIPT_PORTS = (30001, 30002, 30003)


class ScriptServer(TcpServer):
    """Starts a program at the line `end` that closes its `def`. Lines outside a program are ignored."""

    name = 'script port'

    def __init__(self, host: str, controller: Controller, port: int) -> None:
        super().__init__(host, port)
        self.controller = controller
        self._texts: dict[Connection, list[str]] = {}

    def on_disconnect(self, connection: Connection) -> None:
        """Discards a program that was sent in part only."""
        self._texts.pop(connection, None)

    def on_data(self, connection: Connection) -> None:
        """Collects the lines from `def` to `end` and starts them as a program."""
        text = self._texts.setdefault(connection, [])
        for line in connection.take_lines():
            if text or line.startswith('def '):
                text.append(line)
            if line.rstrip() == 'end' and text:
                source = '\n'.join(text)
                self.controller.load(partial(parse_program, source, self.controller))
                text.clear()
