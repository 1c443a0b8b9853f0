# SPDX-License-Identifier: Apache-2.0
"""The dashboard server of a UR controller on port 29999, which answers each line with a line.

https://www.universal-robots.com/articles/ur/dashboard-server/dashboard-server-e-series-port-29999/
"""

from collections.abc import Callable

from groot_ros.hardware.ur5e.modes import (
    IDLE,
    NORMAL,
    PAUSED,
    PLAYING,
    POWER_OFF,
    ROBOT_MODES,
    RUNNING,
    SAFETY_MODES,
)
from groot_ros.sim.controller import Controller
from groot_ros.sim.sockets import Connection, TcpServer

_UNLOCK_TOO_EARLY = (
    'Cannot unlock protective stop until 5s after occurrence. '
    'Always inspect cause of protective stop before unlocking'
)


class DashboardServer(TcpServer):
    """Answers the commands that ur_rtde's DashboardClient and RTDEControlInterface send."""

    name = 'dashboard'

    def __init__(self, host: str, controller: Controller, port: int = 29999) -> None:
        super().__init__(host, port)
        self.controller = controller
        version = '.'.join(map(str, controller.model.version))
        self._fixed = {
            'polyscopeversion': f'URSoftware {version}.1000000 (Jan 01 2023)',
            'get serial number': '20235500001',
            'get robot model': controller.model.robot,
            'is in remote control': 'true',
            'get operational mode': 'NONE',
            'get loaded program': 'No program loaded',
            'close popup': 'closing popup',
            'close safety popup': 'closing safety popup',
            'quit': 'Disconnected',
        }
        self._commands: dict[str, Callable[[], str]] = {
            'robotmode': lambda: f'Robotmode: {ROBOT_MODES[controller.robot_mode]}',
            'safetymode': lambda: f'Safetymode: {SAFETY_MODES[controller.safety_mode]}',
            'safetystatus': lambda: f'Safetystatus: {SAFETY_MODES[controller.safety_mode]}',
            'running': lambda: f'Program running: {str(controller.runtime_state == PLAYING).lower()}',
            'programstate': self._program_state,
            'stop': self._stop,
            'play': self._play,
            'pause': self._pause,
            'power on': self._power_on,
            'power off': self._power_off,
            'brake release': self._release_brakes,
            'unlock protective stop': self._unlock,
            'restart safety': self._restart_safety,
        }

    def on_connect(self, connection: Connection) -> None:
        """Sends the greeting of the real server."""
        connection.send(b'Connected: Universal Robots Dashboard Server\n')

    def on_data(self, connection: Connection) -> None:
        """Answers every complete line in the inbox."""
        for line in connection.take_lines():
            connection.send(f'{self._answer(line.strip())}\n'.encode())
            if line.strip().lower() == 'quit':
                connection.open = False

    def _answer(self, line: str) -> str:
        command = line.lower()
        if command.startswith('popup '):
            return 'showing popup'
        if command.startswith('load '):
            return f'File not found: {line[5:]}'
        if command in self._commands:
            return self._commands[command]()
        return self._fixed.get(command, f"could not understand: '{line}'")

    def _program_state(self) -> str:
        name = self.controller.program.name if self.controller.program else '<unnamed>'
        state = {PLAYING: 'PLAYING', PAUSED: 'PAUSED'}.get(self.controller.runtime_state, 'STOPPED')
        return f'{state} {name}'

    def _stop(self) -> str:
        self.controller.stop_program()
        return 'Stopped'

    def _play(self) -> str:
        if self.controller.program is None or self.controller.safety_mode != NORMAL:
            return 'Failed to execute: play'
        self.controller.runtime_state = PLAYING
        return 'Starting program'

    def _pause(self) -> str:
        if self.controller.runtime_state != PLAYING:
            return 'Failed to execute: pause'
        self.controller.runtime_state = PAUSED
        return 'Pausing program'

    def _power_on(self) -> str:
        if self.controller.robot_mode == POWER_OFF and self.controller.safety_mode == NORMAL:
            self.controller.robot_mode = IDLE
        return 'Powering on'

    def _power_off(self) -> str:
        self.controller.power_off()
        return 'Powering off'

    def _release_brakes(self) -> str:
        if self.controller.robot_mode == IDLE:
            self.controller.robot_mode = RUNNING
        return 'Brake releasing'

    def _unlock(self) -> str:
        return 'Protective stop releasing' if self.controller.unlock_protective_stop() else _UNLOCK_TOO_EARLY

    def _restart_safety(self) -> str:
        self.controller.safety_mode = NORMAL
        self.controller.robot_mode = POWER_OFF
        return 'Restarting safety'
