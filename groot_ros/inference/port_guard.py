# SPDX-License-Identifier: Apache-2.0
"""Stands between the network and the ZeroMQ socket of a model server, and bounds what a peer may send.

ZeroMQ collects all parts of a message before it gives it to the server, and counts neither the parts nor
their bytes. The guard reads the frames (ZMTP 3, rfc.zeromq.org/spec/23) and passes them on. It closes a
connection that sends too much. It needs only Python, as the server does.
"""

import contextlib
import errno
import socket
import sys
import threading
import time
from dataclasses import dataclass, field

_GREETING_BYTES = 64
_MAX_COMMAND_BYTES = 1 << 16
_MAX_PARTS = 8
_MAX_CONNECTIONS = 32
# Of all messages that are not answered yet. One of 64 MiB, the largest, may be among them.
_MAX_HELD_BYTES = 256 << 20
_BUFFER_BYTES = 256 << 10
_MORE, _LONG, _COMMAND = 1, 2, 4
_TELL_S = 60.0


class FramingError(Exception):
    """What a peer sent may not be passed on; the text says why, as a clause."""


@dataclass
class Framing:
    """Follows the frames of one direction: how many whole messages, and the bytes of the present one."""

    max_bytes: int
    messages: int = 0
    held_bytes: int = 0
    _head: bytearray = field(default_factory=bytearray)
    _greeted: bool = False
    _left: int = 0
    _flags: int = 0
    _parts: int = 0

    def follow(self, data: memoryview) -> None:
        """Takes the next bytes. Raises FramingError if they may not be passed on."""
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                self._end_of_part()
                continue
            self._head.append(data[at])
            at += 1
            if not self._greeted:
                self._greet()
            elif len(self._head) == (9 if self._head[0] & _LONG else 2):
                self._begin_part()

    def _greet(self) -> None:
        head = self._head
        if head[0] != 0xFF or (len(head) > 9 and head[9] != 0x7F) or (len(head) > 10 and head[10] < 3):
            raise FramingError('it does not speak ZeroMQ 4 (ZMTP 3)')
        if len(head) == _GREETING_BYTES:
            self._greeted = True
            head.clear()

    def _begin_part(self) -> None:
        self._flags = self._head[0]
        self._left = int.from_bytes(self._head[1:], 'big')
        self._head.clear()
        if self._flags & _COMMAND:
            if self._left > _MAX_COMMAND_BYTES:
                raise FramingError(f'it sent a command of more than {_MAX_COMMAND_BYTES >> 10} KiB')
        else:
            self._parts += 1
            self.held_bytes += self._left
            if self._parts > _MAX_PARTS:
                raise FramingError(f'it sent a message of more than {_MAX_PARTS} parts')
            if self.held_bytes > self.max_bytes:
                raise FramingError(f'it sent a message of more than {self.max_bytes >> 20} MiB')
        self._end_of_part()

    def _end_of_part(self) -> None:
        if self._left or self._flags & (_COMMAND | _MORE):
            return
        self.messages += 1
        self._parts = 0
        self.held_bytes = 0


class _Connection:
    """A peer and the server's end, with a thread for each direction."""

    def __init__(
        self, guard: 'PortGuard', peer: socket.socket, server: socket.socket, max_bytes: int
    ) -> None:
        self.peer = peer
        self.used_s = time.monotonic()
        self._guard = guard
        self._server = server
        self._requests = Framing(max_bytes)
        self._replies = Framing(sys.maxsize)
        self._news = threading.Condition()
        self._closed = False
        self._running = 2
        self.held_bytes = 0
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._ask, self._answer)]
        for thread in self._threads:
            thread.start()

    @property
    def waits(self) -> bool:
        """Whether a request of this peer is not answered yet."""
        return self._requests.messages > self._replies.messages

    def _ask(self) -> None:
        """Passes requests on. A peer has one request on its way: its next one waits for the answer."""
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        with self._closing():
            while count := self.peer.recv_into(buffer):
                self.used_s = time.monotonic()
                self._requests.follow(buffer[:count])
                self.held_bytes += count
                self._guard.check_held()
                self._server.sendall(buffer[:count])
                with self._news:
                    self._news.wait_for(lambda: not self.waits or self._closed)

    def _answer(self) -> None:
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        with self._closing():
            while count := self._server.recv_into(buffer):
                self._replies.follow(buffer[:count])
                self.peer.sendall(buffer[:count])
                if not self.waits:
                    self.held_bytes = self._requests.held_bytes
                with self._news:
                    self._news.notify_all()

    @contextlib.contextmanager
    def _closing(self):
        try:
            yield
        except FramingError as error:
            self._guard.tell(f'the connection of {self.name()} was closed: {error}')
        except OSError:  # one of the two hung up
            pass
        finally:
            self.close()
            with self._news:
                self._running -= 1
                if not self._running:
                    self.peer.close()
                    self._server.close()

    def name(self) -> str:
        """The address of the peer."""
        with contextlib.suppress(OSError):
            return ':'.join(str(part) for part in self.peer.getpeername()[:2])
        return 'a peer that hung up'

    def close(self) -> None:
        """Hangs up, and ends both threads."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        for end in (self.peer, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._guard.forget(self)

    def join(self, deadline_s: float) -> None:
        """Waits until the server has hung up, and hangs up too."""
        self._threads[1].join(max(deadline_s - time.monotonic(), 0.0))
        self.close()
        for thread in self._threads:
            thread.join()


class PortGuard:
    """Listens at `host` and `port`, and passes what peers send on to the abstract Unix socket `inner`.

    Raises OSError if the address cannot be used. `tell` prints a sentence, each kind of it once a minute.
    """

    def __init__(self, host: str, port: int, inner: str, max_bytes: int) -> None:
        self._inner = inner
        self._max_bytes = max_bytes
        self._lock = threading.RLock()
        self._connections: list[_Connection] = []
        self._told_s: dict[str, float] = {}
        address = '' if host == '*' else host
        family = socket.AF_INET6 if ':' in address else socket.AF_INET
        self._listener = socket.create_server((address, port), family=family, backlog=_MAX_CONNECTIONS)
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self, wait_s: float) -> None:
        """Stops to listen, and hangs up when the server has sent its last answers, or after `wait_s`."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        deadline_s = time.monotonic() + wait_s
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.join(deadline_s)

    def check_held(self) -> None:
        """Hangs up on the peer that holds most memory, while all hold more than they may."""
        with self._lock:
            while sum(connection.held_bytes for connection in self._connections) > _MAX_HELD_BYTES:
                largest = max(self._connections, key=lambda connection: connection.held_bytes)
                self.tell(
                    f'the connection of {largest.name()} was closed: unanswered messages have more than '
                    f'{_MAX_HELD_BYTES >> 20} MiB'
                )
                largest.close()

    def forget(self, connection: _Connection) -> None:
        """Leaves out a connection that was closed."""
        with self._lock:
            if connection in self._connections:
                self._connections.remove(connection)

    def tell(self, sentence: str) -> None:
        """Prints a sentence, unless one of the same kind was printed in the last minute."""
        kind = sentence.rpartition(': ')[2]
        now_s = time.monotonic()
        with self._lock:
            if now_s - self._told_s.get(kind, -_TELL_S) < _TELL_S:
                return
            self._told_s[kind] = now_s
        print(f'{sentence[0].upper()}{sentence[1:]}.', file=sys.stderr, flush=True)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED):
                    time.sleep(0.1)
                    continue
                return
            self._make_room()
            try:
                self._connect(peer)
            except OSError as error:
                self.tell(f'a connection could not be taken: {error}')
                peer.close()

    def _connect(self, peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(f'\0{self._inner}')
        except OSError:
            server.close()
            raise
        with self._lock:
            self._connections.append(_Connection(self, peer, server, self._max_bytes))

    def _make_room(self) -> None:
        """Hangs up on the peer that has been silent for longest, if there are too many."""
        with self._lock:
            if len(self._connections) < _MAX_CONNECTIONS:
                return
            idle = [connection for connection in self._connections if not connection.waits]
            oldest = min(idle or self._connections, key=lambda connection: connection.used_s)
            self.tell(
                f'the connection of {oldest.name()} was closed: more than {_MAX_CONNECTIONS} peers '
                'are connected'
            )
            oldest.close()
