# SPDX-License-Identifier: Apache-2.0
"""What the page asks of saved episodes: their table, and thumbnail, video, curves and report of each."""

import asyncio
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from aiohttp import web

from groot_ros.errors import GrootRosError, explain_error
from groot_ros.operator_page.episodes import EpisodeLibrary

_NICENESS = 10
_json = partial(web.json_response, dumps=partial(json.dumps, allow_nan=False))
# A report has its style and its images inside; it runs no script and loads nothing.
_REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"


class EpisodeRoutes:
    """Answers from a library, one after the other, in a thread that leaves the processor to the cell."""

    def __init__(self, library: EpisodeLibrary) -> None:
        self._library = library
        self._reader = ThreadPoolExecutor(1, 'episodes', initializer=_be_nice)

    @property
    def routes(self) -> list[web.RouteDef]:
        """The addresses; `name` reaches the disk only after the library has checked it."""
        return [
            web.get('/episodes', self._table),
            web.get('/episodes/{name}/thumbnail', self._thumbnail),
            web.get('/episodes/{name}/replay', self._replay),
            web.get('/episodes/{name}/video/{camera:[0-9]{1,3}}', self._video),
            web.get('/episodes/{name}/report', self._report),
        ]

    def close(self) -> None:
        """Ends the thread; what still waits for it is not answered."""
        self._reader.shutdown(wait=False, cancel_futures=True)

    async def _read(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """What `work` returns. Raises GrootRosError, for an episode that was deleted meanwhile too."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, work, *arguments)
        except OSError as error:
            raise GrootRosError(explain_error(error)) from error

    async def _table(self, _: web.Request) -> web.Response:
        return _json(await self._read(self._library.table))

    async def _thumbnail(self, request: web.Request) -> web.Response:
        jpeg = await self._read(self._library.thumbnail, request.match_info['name'])
        return web.Response(body=jpeg, content_type='image/jpeg')

    async def _replay(self, request: web.Request) -> web.Response:
        return _json(await self._read(self._library.replay, request.match_info['name']))

    async def _video(self, request: web.Request) -> web.FileResponse:
        camera = int(request.match_info['camera'])
        path = await self._read(self._library.video, request.match_info['name'], camera)
        return web.FileResponse(path, headers={'Content-Type': 'video/mp4'})

    async def _report(self, request: web.Request) -> web.FileResponse:
        path = await self._read(self._library.report, request.match_info['name'])
        headers = {'Content-Type': 'text/html; charset=utf-8', 'Content-Security-Policy': _REPORT_POLICY}
        return web.FileResponse(path, headers=headers)


def _be_nice() -> None:
    """Lowers the priority of the thread that calls it."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
