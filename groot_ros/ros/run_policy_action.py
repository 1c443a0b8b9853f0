# SPDX-License-Identifier: Apache-2.0
"""The action ~/run of the policy server: one run, until it ends, times out, is cancelled or succeeds."""

import time
from collections.abc import Callable

from rclpy.action.server import ServerGoalHandle
from rclpy.subscription import Subscription
from rclpy.task import Future
from std_msgs.msg import Bool

from groot_ros.action import RunPolicy
from groot_ros.errors import GrootRosError
from groot_ros.msg import PolicyStatus
from groot_ros.ros.guarded_node import GuardedNode
from groot_ros.ros.qos import COMMAND_QOS

_SUCCESSFUL = (PolicyStatus.DONE, PolicyStatus.READY)


class RunPolicyAction:
    """Serves one goal at a time.

    `begin(task)` starts a run, and returns why it cannot (empty if it runs). `is_running` says whether one
    runs. `on_success` is called when the goal's success topic reports success.
    """

    def __init__(
        self,
        node: GuardedNode,
        begin: Callable[[str], str],
        is_running: Callable[[], bool],
        on_success: Callable[[], None],
    ) -> None:
        self._node = node
        self._begin = begin
        self._is_running = is_running
        self._on_success = on_success
        self._handle: ServerGoalHandle | None = None
        self._ended: Future | None = None
        self._until_s = float('inf')
        self._server = node.create_action_server(RunPolicy, '~/run', self._execute, self._refusal)

    def end_reason(self) -> str:
        """Why the goal must end now; empty if it may go on or there is none."""
        if self._handle is None:
            return ''
        if self._handle.is_cancel_requested:
            return 'cancelled'
        return 'the time is over' if time.monotonic() > self._until_s else ''

    def finish(self, state: int, reason: str) -> None:
        """Ends the goal, if there is one, with a state of PolicyStatus and its reason."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result((state, reason))

    def publish_feedback(self, status: PolicyStatus) -> None:
        """Sends the status to the client of the goal, if there is one."""
        if self._handle is not None:
            self._handle.publish_feedback(RunPolicy.Feedback(status=status))

    def _refusal(self) -> str:
        return 'a policy runs already' if self._is_running() else ''

    async def _execute(self, handle: ServerGoalHandle) -> RunPolicy.Result:
        """Runs the policy for a goal, once nothing is wrong with the goal itself."""
        goal = handle.request
        if not goal.time_limit >= 0.0:
            raise GrootRosError(f'time_limit is {goal.time_limit:g} s: give 0 (no limit) or more')
        subscription = self._subscribe(goal.success_topic)
        try:
            if reason := self._begin(goal.task.strip()):
                return RunPolicy.Result(message=reason)
            self._until_s = time.monotonic() + (goal.time_limit or float('inf'))
            self._ended = Future()
            self._handle = handle
            state, message = await self._ended
        finally:
            self._handle = None
            self._ended = None
            if subscription is not None:
                self._node.destroy_subscription(subscription)
        return RunPolicy.Result(success=state in _SUCCESSFUL, message=message)

    def _subscribe(self, topic: str) -> Subscription | None:
        """Listens for success. Raises GrootRosError if `topic` is no topic of std_msgs/Bool."""
        if not topic:
            return None
        try:
            return self._node.create_subscription(Bool, topic, self._on_success_message, COMMAND_QOS)
        except Exception as error:
            raise GrootRosError(
                f'success_topic {topic!r} cannot be subscribed to: give a topic of std_msgs/Bool, or nothing '
                f'({error})'.replace('\n', ' ')
            ) from error

    def _on_success_message(self, message: Bool) -> None:
        if message.data:
            self._on_success()
