# SPDX-License-Identifier: Apache-2.0
"""The script ports of a UR controller, 30001 to 30003: URScript text in. State streams are not sent on them."""

from groot_ros.sim.control_script import program_of
from groot_ros.sim.controller import Controller
from groot_ros.sim.sockets import Connection, TcpServer

SCRIPT_PORTS = (30001, 30002, 30003)


class ScriptServer(TcpServer):
    """Starts a program at the line `end` that closes its `def`; single lines outside a program are ignored."""

    name = 'script port'

    def __init__(self, host: str, controller: Controller, port: int) -> None:
        super().__init__(host, port)
        self.controller = controller
        self._texts: dict[Connection, list[str]] = {}

    def closed(self, connection: Connection) -> None:
        """Forgets a half-sent program."""
        self._texts.pop(connection, None)

    def received(self, connection: Connection) -> None:
        """Collects lines from `def` to `end`."""
        text = self._texts.setdefault(connection, [])
        for line in connection.lines():
            if text or line.startswith('def '):
                text.append(line)
            if line.rstrip() == 'end' and text:
                self.controller.play(program_of('\n'.join(text), self.controller))
                text.clear()
