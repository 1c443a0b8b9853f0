# SPDX-License-Identifier: Apache-2.0
"""The HTTP server of the page: files, the live connection with orders, and the images of the cameras."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from aiohttp import WSCloseCode, WSMsgType, web

from groot_ros.errors import GrootRosError, explain_error
from groot_ros.operator_page.access import SESSION_COOKIE, Access
from groot_ros.operator_page.cameras import CameraImages, frame_period_s
from groot_ros.operator_page.commands import FREE_ORDERS, MAX_ORDER_BYTES, OrderError, parse_order
from groot_ros.operator_page.control import Controller
from groot_ros.operator_page.episode_routes import EpisodeRoutes
from groot_ros.operator_page.episodes import EpisodeLibrary

_STATIC = Path(__file__).parent / 'static'
_TYPES = {'.css': 'text/css', '.js': 'text/javascript'}
# Only these names are served: no path of a request reaches the disk.
_FILES = {path.name: path for path in _STATIC.iterdir() if path.suffix in _TYPES}
_CLIENT_NAME = re.compile(r'^[A-Za-z0-9-]{8,64}$')
# The newest state goes out at least this often, so that a page knows within a second that it is lost.
_PUSH_S = 0.2
_HEARTBEAT_S = 2.0
_MAX_WAITING_ORDERS = 16
_MAX_LOGIN_BYTES = 4096
_WRONG_TOKEN_S = 0.5
_OPENED_AGAIN = 4001
_HEADERS = {
    'Content-Security-Policy': "default-src 'self'; img-src 'self' blob: data:; media-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    'X-Content-Type-Options': 'nosniff',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'X-Frame-Options': 'DENY',
    'Referrer-Policy': 'no-referrer',
    'Cache-Control': 'no-store',
}


class Cell(Protocol):
    """What the server needs of the node; `carry_out` raises GrootRosError for an order that is refused."""

    def state(self) -> dict[str, Any]:
        """What is known of the cell now, for JSON."""

    async def carry_out(self, order: Any) -> tuple[bool, str]:
        """Passes an order on to a node, and returns whether it succeeded and what the node answered."""


class PageServer:
    """One page: `app` serves it. All methods but `changed` are for the loop that runs `app`."""

    def __init__(
        self,
        cell: Cell,
        access: Access,
        images: CameraImages,
        library: EpisodeLibrary,
        report_fault: Callable[[str, Exception], Any],
    ) -> None:
        self.controller = Controller()
        self._cell = cell
        self._access = access
        self._images = images
        self._episodes = EpisodeRoutes(library)
        self._report_fault = report_fault
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._connections: dict[str, web.WebSocketResponse] = {}
        self._login_turn = asyncio.Lock()
        self.app = web.Application(
            middlewares=[self._guard], client_max_size=MAX_ORDER_BYTES, handler_args={'max_field_size': 8190}
        )
        self.app.add_routes(
            [
                web.get('/', self._index),
                web.post('/login', self._log_in),
                web.get('/static/{name}', self._static),
                web.get('/live', self._live),
                web.get('/cameras', self._stream_cameras),
                *self._episodes.routes,
            ]
        )
        self.app.on_startup.append(self._on_startup)
        self.app.on_shutdown.append(self._on_shutdown)

    def changed(self) -> None:
        """Sends the state to all pages at once. Called from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    async def _on_startup(self, _: web.Application) -> None:
        self._loop = asyncio.get_running_loop()
        self._images.attach(self._loop)

    async def _on_shutdown(self, _: web.Application) -> None:
        for socket in list(self._connections.values()):
            await socket.close(code=WSCloseCode.GOING_AWAY, message=b'the page is stopped')
        self._images.close()
        self._episodes.close()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refuses other sites and unknown sessions; turns errors into one sentence."""
        try:
            self._check(request)
            response = await handler(request)
        except web.HTTPException as error:
            error.headers.update(_HEADERS)
            raise
        except GrootRosError as error:
            return web.Response(status=400, text=str(error), headers=_HEADERS)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # one request ends here with its reason, the page goes on
            self._report_fault('the page', error)
            return web.Response(status=500, text=explain_error(error), headers=_HEADERS)
        if not response.prepared:
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
        return response

    def _check(self, request: web.Request) -> None:
        if refusal := self._access.host_refusal(request.host):
            raise web.HTTPForbidden(text=refusal)
        may_command = request.method != 'GET' or request.path in ('/live', '/cameras')
        refusal = self._access.origin_refusal(request.headers.get('Origin'), request.host)
        if may_command and refusal:
            raise web.HTTPForbidden(text=refusal)
        is_open = request.path in ('/', '/login', '/static/page.css', '/static/login.js')
        if not is_open and not self._is_known(request):
            raise web.HTTPUnauthorized(text='Log in first: the page asks for its token.')

    def _is_known(self, request: web.Request) -> bool:
        return self._access.knows(request.cookies.get(SESSION_COOKIE, ''))

    async def _index(self, request: web.Request) -> web.Response:
        name = 'index.html' if self._is_known(request) else 'login.html'
        return web.Response(text=(_STATIC / name).read_text(), content_type='text/html')

    async def _static(self, request: web.Request) -> web.Response:
        name = request.match_info['name']
        if name not in _FILES:
            raise web.HTTPNotFound(text='There is no such file.')
        path = _FILES[name]
        return web.Response(text=path.read_text(), content_type=_TYPES[path.suffix])

    async def _log_in(self, request: web.Request) -> web.Response:
        if (request.content_length or 0) > _MAX_LOGIN_BYTES:
            raise web.HTTPRequestEntityTooLarge(max_size=_MAX_LOGIN_BYTES, actual_size=0)
        token = str((await request.post()).get('token', ''))
        async with self._login_turn:  # one after the other, so that nobody tries many
            try:
                session = self._access.log_in(token)
            except GrootRosError as error:
                await asyncio.sleep(_WRONG_TOKEN_S)
                raise web.HTTPForbidden(text=str(error)) from error
        response = web.Response(text='welcome')
        response.set_cookie(SESSION_COOKIE, session, httponly=True, samesite='Strict')
        return response

    async def _live(self, request: web.Request) -> web.WebSocketResponse:
        client = request.query.get('client', '')
        if not _CLIENT_NAME.match(client):
            raise web.HTTPBadRequest(text='The page gave itself no name: load it again.')
        socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_S, max_msg_size=MAX_ORDER_BYTES)
        await socket.prepare(request)
        before = self._connections.get(client)
        self._connections[client] = socket
        self.controller.connect(client, request.remote or 'another page')
        if before is not None:
            await before.close(code=_OPENED_AGAIN, message=b'opened again')
        pushing = asyncio.create_task(self._push(socket, client))
        try:
            await self._take_orders(socket, client)
        finally:
            pushing.cancel()
            if self._connections.get(client) is socket:
                del self._connections[client]
                self.controller.disconnect(client)
                self._changed.set()
        return socket

    async def _push(self, socket: web.WebSocketResponse, client: str) -> None:
        """Sends the state when it changes, and five times a second; one slow page delays no other."""
        while not socket.closed:
            state = self._cell.state()
            controls = self.controller.is_held_by(client)
            control = {'mine': controls, 'holder': self.controller.address}
            try:
                await socket.send_json({'kind': 'state', 'control': control, **state}, dumps=_dumps)
            except (ConnectionError, RuntimeError):  # closed meanwhile
                return
            await self._wait_for_change()

    async def _wait_for_change(self) -> None:
        try:
            await asyncio.wait_for(self._changed.wait(), _PUSH_S)
        except TimeoutError:
            return
        await asyncio.sleep(0)  # all pages have seen the change when it is cleared
        self._changed.clear()

    async def _take_orders(self, socket: web.WebSocketResponse, client: str) -> None:
        waiting: set[asyncio.Task] = set()
        async for message in socket:
            if message.type != WSMsgType.TEXT:
                continue
            if len(waiting) >= _MAX_WAITING_ORDERS:
                await self._answer(socket, -1, False, 'Too many orders wait for their answer: wait a moment.')
                continue
            # In a task: an order to stop never waits for the answer to another one.
            task = asyncio.create_task(self._obey(socket, client, message.data))
            waiting.add(task)
            task.add_done_callback(waiting.discard)

    async def _obey(self, socket: web.WebSocketResponse, client: str, text: str) -> None:
        try:
            order = parse_order(text)
        except OrderError as error:
            await self._answer(socket, error.number, False, str(error))
            return
        try:
            success, message = await self._carry_out(client, order)
        except GrootRosError as error:
            success, message = False, str(error)
        except Exception as error:
            self._report_fault(order.order, error)
            success, message = False, explain_error(error)
        await self._answer(socket, order.number, success, message)

    async def _carry_out(self, client: str, order: Any) -> tuple[bool, str]:
        if order.order == 'take_control':
            message = self.controller.take(client)
            self._changed.set()
            return True, message
        refusal = self.controller.refusal(client)
        if refusal and order.order not in FREE_ORDERS:
            return False, refusal
        return await self._cell.carry_out(order)

    async def _answer(self, socket: web.WebSocketResponse, number: int, success: bool, message: str) -> None:
        answer = {'kind': 'answer', 'number': number, 'success': success, 'message': message}
        try:
            await socket.send_json(answer, dumps=_dumps)
        except (ConnectionError, RuntimeError):  # closed meanwhile: the node has answered all the same
            return

    async def _stream_cameras(self, request: web.Request) -> web.WebSocketResponse:
        """Sends images of all cameras. The page acknowledges each, so that a slow link has no old ones."""
        socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_S, max_msg_size=64, compress=False)
        await socket.prepare(request)
        seen = [asyncio.Event() for _ in self._images.topics]
        names = {str(k): k for k in range(len(seen))}
        sending = [asyncio.create_task(self._send_images(socket, k, seen[k])) for k in names.values()]
        try:
            async for message in socket:
                if message.type == WSMsgType.TEXT and message.data in names:
                    seen[names[message.data]].set()
        finally:
            for task in sending:
                task.cancel()
        return socket

    async def _send_images(self, socket: web.WebSocketResponse, index: int, seen: asyncio.Event) -> None:
        self._images.watch(index, 1)
        number = 0
        loop = asyncio.get_running_loop()
        try:
            while not socket.closed:
                began_s = loop.time()
                try:
                    number, packet = await self._images.next_packet(index, number)
                except GrootRosError as error:
                    await socket.send_json({'camera': index, 'problem': str(error)}, dumps=_dumps)
                    await asyncio.sleep(1.0)
                    continue
                seen.clear()
                await socket.send_bytes(packet)
                await seen.wait()
                await asyncio.sleep(max(0.0, began_s + frame_period_s() - loop.time()))
        except (ConnectionError, RuntimeError):  # closed meanwhile
            return
        finally:
            self._images.watch(index, -1)


def _dumps(content: Any) -> str:
    """JSON without NaN, which browsers refuse."""
    return json.dumps(content, allow_nan=False, separators=(',', ':'))
