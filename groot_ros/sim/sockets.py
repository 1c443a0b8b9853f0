# SPDX-License-Identifier: Apache-2.0
"""Non-blocking TCP servers that one loop serves between ticks. Each protocol of the cell is a subclass of TcpServer."""

import select
import socket

from groot_ros.errors import GrootRosError

_UNSENT_LIMIT = 1 << 20


class Connection:
    """One client; what cannot be sent at once waits, and a client that never reads loses data, not the loop."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.inbox = bytearray()
        self._outbox = bytearray()
        self.open = True

    @property
    def waiting(self) -> bool:
        """Whether data wait to be sent."""
        return bool(self._outbox)

    def send(self, data: bytes) -> None:
        """Queues data and sends what the socket takes now."""
        if len(self._outbox) < _UNSENT_LIMIT:
            self._outbox += data
        self.flush()

    def flush(self) -> None:
        """Sends what still waits."""
        try:
            while self._outbox:
                del self._outbox[: self.socket.send(self._outbox)]
        except BlockingIOError:
            return
        except OSError:
            self.open = False

    def lines(self) -> list[str]:
        """The complete lines received so far, without their line ends."""
        *complete, rest = bytes(self.inbox).split(b'\n')
        self.inbox[:] = rest
        return [line.decode('utf-8', 'replace').rstrip('\r') for line in complete]


class TcpServer:
    """A listening port; subclasses answer in `received` and may greet in `connected` and clean up in `closed`."""

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
                f'{self.name} cannot listen on {host}:{port} ({error.strerror}): stop the program that uses it, '
                'or choose another address with --host 127.0.0.2.'
            ) from error
        self._listener.listen(8)
        self._listener.setblocking(False)

    def connected(self, connection: Connection) -> None:
        """A client arrived."""

    def received(self, connection: Connection) -> None:
        """New bytes lie in connection.inbox."""

    def closed(self, connection: Connection) -> None:
        """A client left."""

    def sockets(self) -> list[int]:
        """File descriptors to wait for."""
        return [self._listener.fileno(), *self.connections]

    def serve(self, descriptor: int) -> None:
        """Reads what arrived on one of `sockets`."""
        if descriptor == self._listener.fileno():
            self._accept()
        elif descriptor in self.connections:
            self._read(self.connections[descriptor])

    def flush(self) -> None:
        """Sends what could not be sent at once."""
        for connection in list(self.connections.values()):
            if connection.waiting:
                connection.flush()

    def drop(self, connection: Connection) -> None:
        """Closes one client."""
        self.connections.pop(connection.socket.fileno(), None)
        connection.open = False
        connection.socket.close()
        self.closed(connection)

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
        self.connected(connection)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(65536)
            # ur_rtde leaves Nagle's algorithm on; quick acknowledgements spare it the 40 ms wait.
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        if data:
            connection.inbox += data
            self.received(connection)
        if not data or not connection.open:
            self.drop(connection)


def serve_until(servers: list[TcpServer], deadline_s: float, clock) -> None:
    """Serves all ports until `clock()` (seconds) reaches the deadline."""
    owners = {descriptor: server for server in servers for descriptor in server.sockets()}
    wait = max(deadline_s - clock(), 0.0)
    while True:
        # select(), because epoll rounds its time-outs up to 1 ms, half a tick.
        ready, _, _ = select.select(list(owners), [], [], wait)
        for descriptor in ready:
            owners[descriptor].serve(descriptor)
        wait = deadline_s - clock()
        if wait <= 0:
            return
        if ready:
            owners = {descriptor: server for server in servers for descriptor in server.sockets()}
