# SPDX-License-Identifier: Apache-2.0
"""Runs the page's server in a thread with a loop of its own, next to the executor of ROS."""

import asyncio
import threading

from aiohttp import web

from groot_ros.errors import GrootRosError

_START_S = 10.0
_STOP_S = 3.0


class ServerThread:
    """Serves an application at an address until `stop`. Raises GrootRosError if it cannot listen there."""

    def __init__(self, app: web.Application, host: str, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self._thread = threading.Thread(target=self._run, name='page', daemon=True)
        self._thread.start()
        starting = asyncio.run_coroutine_threadsafe(self._start(host, port), self._loop)
        try:
            self.port = starting.result(_START_S)
        except OSError as error:
            self.stop()
            raise GrootRosError(
                f'The page cannot listen on {host}:{port} ({error.strerror or error}): '
                'stop what does, or choose another page_port.'
            ) from error

    def stop(self) -> None:
        """Closes all connections and ends the thread."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(_STOP_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)
        self._loop.close()

    async def _start(self, host: str, port: int) -> int:
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return self._runner.addresses[0][1]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
