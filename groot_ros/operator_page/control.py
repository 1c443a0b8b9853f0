# SPDX-License-Identifier: Apache-2.0
"""One controller of the cell; all other browsers look on."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

# A reload of the page comes back within this time, and keeps the control.
_KEPT_S = 5.0


@dataclass
class Controller:
    """Who controls: at most one client, by the name that its browser gave, and the address for people.

    The first one that connects controls. A client that is away for 5 s loses the control.
    """

    clock: Callable[[], float] = time.monotonic
    holder: str = ''
    address: str = ''
    _connected: dict[str, str] = field(default_factory=dict)
    _left_s: float = 0.0

    def connect(self, client: str, address: str) -> None:
        """A browser opened its connection."""
        self._connected[client] = address
        if self._is_free():
            self._give(client)

    def disconnect(self, client: str) -> None:
        """The connection of a browser was closed."""
        self._connected.pop(client, None)
        if client == self.holder:
            self._left_s = self.clock()

    def take(self, client: str) -> str:
        """Gives the control to a client that asks for it; returns a sentence for it."""
        before = self.address
        was_free = self._is_free()
        if client == self.holder and not was_free:
            return 'this page controls already'
        self._give(client)
        return 'this page controls' if was_free else f'this page controls; {before} looks on now'

    def is_held_by(self, client: str) -> bool:
        """Whether a client controls now."""
        if self._is_free() and client in self._connected:
            self._give(client)
        return client == self.holder

    def is_connected(self, client: str) -> bool:
        """Whether a client has an open connection."""
        return client in self._connected

    def refusal(self, client: str) -> str:
        """Why an order of a client is not carried out; empty if it is."""
        if self.is_held_by(client):
            return ''
        return f'{self.address} controls, and this page looks on: take the control first (G).'

    def _is_free(self) -> bool:
        if not self.holder:
            return True
        return self.holder not in self._connected and self.clock() - self._left_s > _KEPT_S

    def _give(self, client: str) -> None:
        self.holder = client
        self.address = self._connected.get(client, 'another page')
