# SPDX-License-Identifier: Apache-2.0
"""Non-blocking TCP servers that one loop serves between ticks; each protocol of the cell is a subclass."""

import select
import socket

from groot_ros.errors import GrootRosError

_UNSENT_LIMIT = 1 << 20


class Connection:
    """One client. Data that its socket does not take now is kept, up to a limit."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.inbox = bytearray()
        self._outbox = bytearray()
        self.open = True

    @property
    def has_unsent_data(self) -> bool:
        """Whether data is kept that the socket did not take yet."""
        return bool(self._outbox)

    def send(self, data: bytes) -> None:
        """Queues data and sends what the socket takes now."""
        if len(self._outbox) < _UNSENT_LIMIT:
            self._outbox += data
        self.flush()

    def flush(self) -> None:
        """Sends the kept data, as far as the socket takes it."""
        try:
            while self._outbox:
                del self._outbox[: self.socket.send(self._outbox)]
        except BlockingIOError:
            return
        except OSError:
            self.open = False

    def take_lines(self) -> list[str]:
        """Removes and returns the complete lines in the inbox, without their line ends."""
        *complete, rest = bytes(self.inbox).split(b'\n')
        self.inbox[:] = rest
        return [line.decode('utf-8', 'replace').rstrip('\r') for line in complete]


class TcpServer:
    """A listening port. Subclasses implement `on_data`, and `on_connect` and `on_disconnect` if needed."""

    name = 'server'

    def __init__(self, host: str, port: int) -> None:
        self.connections: dict[int, Connection] = {}
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind((host, port))
        except OSError as error:
            self._listener.close()
            raise GrootRosError(
                f'{self.name} cannot listen on {host}:{port} ({error.strerror}): '
                'stop the program that uses it, or choose another address with --host 127.0.0.2.'
            ) from error
        self._listener.listen(8)
        self._listener.setblocking(False)

    def on_connect(self, connection: Connection) -> None:
        """Called when a client has connected."""

    def on_data(self, connection: Connection) -> None:
        """Called when there are new bytes in `connection.inbox`."""

    def on_disconnect(self, connection: Connection) -> None:
        """Called when a client is gone."""

    def descriptors(self) -> list[int]:
        """File descriptors of the listening socket and of every client, for select()."""
        return [self._listener.fileno(), *self.connections]

    def serve(self, descriptor: int) -> None:
        """Accepts a client, or reads its data, on one of `descriptors`."""
        if descriptor == self._listener.fileno():
            self._accept()
        elif descriptor in self.connections:
            self._read(self.connections[descriptor])

    def flush(self) -> None:
        """Sends the data that was kept for clients."""
        for connection in list(self.connections.values()):
            if connection.has_unsent_data:
                connection.flush()

    def drop(self, connection: Connection) -> None:
        """Closes the connection of one client."""
        self.connections.pop(connection.socket.fileno(), None)
        connection.open = False
        connection.socket.close()
        self.on_disconnect(connection)

    def close(self) -> None:
        """Closes the port and every client."""
        for connection in list(self.connections.values()):
            self.drop(connection)
        self._listener.close()

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock)
        self.connections[sock.fileno()] = connection
        self.on_connect(connection)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(65536)
            # ur_rtde leaves Nagle's algorithm on; quick acknowledgements save it the wait of 40 ms.
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        if data:
            connection.inbox += data
            self.on_data(connection)
        if not data or not connection.open:
            self.drop(connection)


def serve_until(servers: list[TcpServer], deadline_s: float, clock) -> None:
    """Serves all ports until `clock()` (seconds) reaches the deadline."""
    owners = _owners(servers)
    wait_s = max(deadline_s - clock(), 0.0)
    while True:
        # select(), because epoll rounds its timeouts up to 1 ms, which is half a tick.
        ready, _, _ = select.select(list(owners), [], [], wait_s)
        for descriptor in ready:
            owners[descriptor].serve(descriptor)
        wait_s = deadline_s - clock()
        if wait_s <= 0:
            return
        if ready:
            owners = _owners(servers)


def _owners(servers: list[TcpServer]) -> dict[int, TcpServer]:
    return {descriptor: server for server in servers for descriptor in server.descriptors()}
