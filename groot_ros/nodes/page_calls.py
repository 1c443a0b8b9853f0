# SPDX-License-Identifier: Apache-2.0
"""Calls of services and actions from the loop of the page's server, answered by the executor of its node."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from rclpy.client import Client
from rclpy.task import Future

from groot_ros.errors import GrootRosError
from groot_ros.ros.guarded_node import GuardedNode

_POLL_S = 0.1


class PageCalls:
    """Brings answers that come in the thread of the executor to the loop that waits for them."""

    def __init__(self, node: GuardedNode) -> None:
        self._node = node
        self._waiting: deque[Callable[[], None]] = deque()
        node.create_timer(_POLL_S, self._drain)

    async def call(self, client: Client, request: Any, timeout_s: float) -> Any:
        """The answer of a service. The request leaves at once: rclpy guards its clients with a lock.

        Raises GrootRosError if its node does not run, or has not answered after `timeout_s`.
        """
        if not client.service_is_ready():
            raise GrootRosError(f'{client.srv_name} is not available: its node does not run.')
        return await self.result(client.call_async(request), client.srv_name, timeout_s)

    async def result(self, future: Future, what: str, timeout_s: float | None) -> Any:
        """The result of a future of rclpy. Raises GrootRosError if there is none after `timeout_s`."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future = loop.create_future()

        def settle(done: Future) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, answer, done)

        future.add_done_callback(self._node.guarded(what, settle))
        try:
            return await asyncio.wait_for(answer, timeout_s)
        except TimeoutError as error:
            raise GrootRosError(
                f'{what} has not answered for {timeout_s:g} s: see the messages of its node.'
            ) from error

    async def in_executor(self, work: Callable[[], Any]) -> Any:
        """What `work` returns or raises; the executor calls it within 0.1 s.

        For what rclpy guards with no lock, such as clients of actions. Its `EventsExecutor` has no guard
        conditions, so the node looks by a timer.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future = loop.create_future()

        def begin() -> None:
            done = Future()
            try:
                done.set_result(work())
            except Exception as error:  # raised where the answer is waited for
                done.set_exception(error)
            loop.call_soon_threadsafe(_settle, answer, done)

        self._waiting.append(begin)
        return await answer

    def _drain(self) -> None:
        while self._waiting:
            self._waiting.popleft()()


def _settle(answer: asyncio.Future, done: Future) -> None:
    if answer.done():  # nobody waits any more
        return
    if (error := done.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(done.result())
