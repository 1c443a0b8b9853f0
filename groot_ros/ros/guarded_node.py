# SPDX-License-Identifier: Apache-2.0
"""GuardedNode: an exception in a callback, an action or a thread is told, and never ends the process."""

import threading
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.service import Service
from rclpy.subscription import Subscription
from rclpy.timer import Timer

from groot_ros.errors import GrootRosError, explain_error


class GuardedNode(LifecycleNode):
    """The one place where unforeseen exceptions of our nodes end.

    Each is logged in one sentence and kept in `problem`; `on_fault` brings the node into a safe condition.
    A service answers with that sentence, and a goal of an action is aborted with it. Timers follow the
    steady clock, so that a changed or simulated time does not hold them up.
    """

    def __init__(self, name: str) -> None:
        self.problem = ''
        self._faulting = threading.local()
        super().__init__(name)

    def on_fault(self, reason: str) -> None:
        """Called after an unforeseen exception, from the thread that raised it: stop what must not go on."""

    def fault(self, where: str, error: Exception) -> str:
        """Reports an exception of `where`, and calls `on_fault`. Returns the sentence."""
        text = f'{where} failed: {explain_error(error)}'
        if not self.context.ok():  # Ctrl-C: what is called then may fail
            return text
        if text != self.problem:  # once, since a timer may fail hundreds of times a second
            self.problem = text
            self.get_logger().error(text)
            self.get_logger().debug(''.join(traceback.format_exception(error)))
        self._stop_once(text)
        return text

    def _stop_once(self, reason: str) -> None:
        if getattr(self._faulting, 'now', False):  # a fault of `on_fault` itself
            return
        self._faulting.now = True
        try:
            self.on_fault(reason)
        except Exception as error:
            self.fault('on_fault', error)
        finally:
            self._faulting.now = False

    def guarded(self, where: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The function `work`, whose exceptions are reported as faults of `where`; it then returns None."""

        def call(*arguments: Any) -> Any:
            try:
                return work(*arguments)
            except Exception as error:
                self.fault(where, error)
                return None

        return call

    def create_timer(self, timer_period_sec: float, callback: Callable[[], None], **options: Any) -> Timer:
        """A timer of the steady clock with a guarded callback."""
        guarded = self.guarded(_name_of(callback), callback)
        options.setdefault('clock', Clock(clock_type=ClockType.STEADY_TIME))
        return super().create_timer(timer_period_sec, lambda: guarded(), **options)

    def create_subscription(
        self, msg_type: Any, topic: str, callback: Callable[[Any], None], qos_profile: Any, **options: Any
    ) -> Subscription:
        """A subscription with a guarded callback."""
        guarded = self.guarded(topic, callback)

        def take(message: Any) -> None:  # rclpy counts the arguments of a callback
            guarded(message)

        return super().create_subscription(msg_type, topic, take, qos_profile, **options)

    def create_service(
        self, srv_type: Any, srv_name: str, callback: Callable[[Any, Any], Any], **options: Any
    ) -> Service:
        """A service that answers whatever its callback raises."""
        return super().create_service(srv_type, srv_name, partial(self.answer, srv_name, callback), **options)

    def answer(self, where: str, callback: Callable[[Any, Any], Any], request: Any, response: Any) -> Any:
        """The answer of a service's callback. If that raises, success is false and the message says why."""
        try:
            return callback(request, response)
        except Exception as error:
            text = str(error) if isinstance(error, GrootRosError) else self.fault(where, error)
            refusal = type(response)()
            if hasattr(refusal, 'message'):
                refusal.success = False
                refusal.message = text
            return refusal

    def create_action_server(
        self,
        action_type: Any,
        name: str,
        execute: Callable[[ServerGoalHandle], Awaitable[Any]],
        refusal: Callable[[], str],
    ) -> ActionServer:
        """Serves an action whose results have `success` and `message`.

        `refusal` says why no goal is accepted now (empty if one is); the log has it, since ROS sends no
        reason. `execute` returns the result: a goal ends as cancelled if it was, else it succeeds or is
        aborted, as the result says. Where it raises, the goal is aborted and the message says why.
        """

        def on_goal(_: Any) -> GoalResponse:
            reason = self.guarded(name, refusal)()
            if reason == '':
                return GoalResponse.ACCEPT
            self.get_logger().warning(f'A goal of {name} was rejected: {reason or self.problem}.')
            return GoalResponse.REJECT

        async def run(handle: ServerGoalHandle) -> Any:
            try:
                result = await execute(handle)
            except Exception as error:
                text = str(error) if isinstance(error, GrootRosError) else self.fault(name, error)
                result = action_type.Result(message=text)
            if handle.is_cancel_requested:
                handle.canceled()
            elif result.success:
                handle.succeed()
            else:
                handle.abort()
            return result

        return ActionServer(
            self,
            action_type,
            name,
            run,
            goal_callback=on_goal,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )


def _name_of(callback: Callable[..., Any]) -> str:
    name = getattr(callback, '__name__', '').strip('_').replace('_', ' ')
    return f'the timer {name!r}' if name else 'a timer'
