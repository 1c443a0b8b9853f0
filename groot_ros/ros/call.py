# SPDX-License-Identifier: Apache-2.0
"""One call of a service of our nodes, or one look at their status, without the command `ros2`."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import rclpy
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from groot_ros.errors import GrootRosError
from groot_ros.msg import EpisodeStatus, RobotStatus
from groot_ros.ros.fastdds import configure_fastdds_profile
from groot_ros.ros.qos import STATUS_QOS
from groot_ros.srv import StartEpisode, StopEpisode

_SPIN_S = 0.1
_ARM_STATES = {
    RobotStatus.DISABLED: 'DISABLED',
    RobotStatus.ENABLED: 'ENABLED',
    RobotStatus.STOPPED: 'STOPPED',
    RobotStatus.FREEDRIVE: 'FREEDRIVE',
}
_EPISODE_STATES = {
    EpisodeStatus.IDLE: 'IDLE',
    EpisodeStatus.RECORDING: 'RECORDING',
    EpisodeStatus.PAUSED: 'PAUSED',
}


@dataclass(frozen=True)
class Call:
    """A service of one of our nodes, and how its request is made from the task in words."""

    service_type: Any
    service: str
    request: Callable[[str], Any]


CALLS = {
    'enable': Call(SetBool, 'ur5e_driver/enable', lambda task: SetBool.Request(data=True)),
    'disable': Call(SetBool, 'ur5e_driver/enable', lambda task: SetBool.Request(data=False)),
    'recover': Call(Trigger, 'ur5e_driver/recover', lambda task: Trigger.Request()),
    'start': Call(StartEpisode, 'recorder/start', lambda task: StartEpisode.Request(task=task)),
    'stop': Call(StopEpisode, 'recorder/stop', lambda task: StopEpisode.Request(succeeded=True)),
    'fail': Call(StopEpisode, 'recorder/stop', lambda task: StopEpisode.Request(succeeded=False)),
    'discard': Call(Trigger, 'recorder/discard', lambda task: Trigger.Request()),
    'next-task': Call(Trigger, 'recorder/next_task', lambda task: Trigger.Request()),
    'skip-task': Call(Trigger, 'recorder/skip_task', lambda task: Trigger.Request()),
    'run-policy': Call(SetBool, 'policy_server/enable', lambda task: SetBool.Request(data=True)),
    'stop-policy': Call(SetBool, 'policy_server/enable', lambda task: SetBool.Request(data=False)),
}


def call(name: str, task: str, namespace: str, timeout_s: float) -> str:
    """Calls a service of CALLS and returns its answer in words.

    Raises GrootRosError if no node offers it, if it refuses, or if it does not answer within `timeout_s`.
    """
    chosen = CALLS[name]
    with _made_node(namespace) as node:
        service = node.resolve_service_name(chosen.service)
        client = node.create_client(chosen.service_type, chosen.service)
        if not client.wait_for_service(timeout_s):
            raise GrootRosError(_absent(service))
        future = client.call_async(chosen.request(task))
        rclpy.spin_until_future_complete(node, future, timeout_sec=timeout_s)
        if not future.done():
            raise GrootRosError(
                f'{service} has not answered for {timeout_s:g} s: see the messages of its node.'
            )
        answer = future.result()
    if not answer.success:
        raise GrootRosError(f'{service} refused: {answer.message}')
    return answer.message


def read_status(namespace: str, timeout_s: float) -> tuple[RobotStatus | None, EpisodeStatus | None]:
    """What arm and recorder report. Raises GrootRosError if neither reports in time."""
    newest: dict[str, Any] = {}
    with _made_node(namespace) as node:
        _listen(node, RobotStatus, 'robot_status', newest)
        _listen(node, EpisodeStatus, 'episode_status', newest)
        deadline_s = time.monotonic() + timeout_s
        while len(newest) < 2 and time.monotonic() < deadline_s:
            rclpy.spin_once(node, timeout_sec=_SPIN_S)
        if not newest:
            raise GrootRosError(_absent(node.resolve_topic_name('robot_status')))
    return newest.get('robot_status'), newest.get('episode_status')


def status_document(arm: RobotStatus | None, recorder: EpisodeStatus | None) -> dict[str, Any]:
    """The same as arm_line and recorder_line, for programs; None for what does not report."""
    document: dict[str, Any] = {'arm': None, 'recorder': None}
    if arm is not None:
        document['arm'] = {'state': _ARM_STATES[arm.state], 'source': arm.source, 'reason': arm.reason}
    if recorder is not None:
        document['recorder'] = {
            'state': _EPISODE_STATES[recorder.state],
            'rows': int(recorder.rows),
            'saved': int(recorder.saved),
            'task': recorder.task,
            'problems': list(recorder.problems),
        }
    return document


def arm_line(status: RobotStatus | None) -> str:
    """The state of the arm in one line, and why it is not enabled."""
    if status is None:
        return 'arm: ur5e_driver does not report'
    source = f', {status.source} commands' if status.source else ''
    reason = f': {status.reason}' if status.reason else ''
    return f'arm: {_ARM_STATES[status.state]}{source}{reason}'


def recorder_line(status: EpisodeStatus | None) -> str:
    """The state of the recorder in one line, and what is against recording."""
    if status is None:
        return 'recorder: does not report'
    state = _EPISODE_STATES[status.state]
    task = f', task {status.task!r}' if status.task else ''
    problems = f': {"; ".join(status.problems)}' if status.problems else ''
    return f'recorder: {state}, {status.rows} rows, {status.saved} saved{task}{problems}'


def _listen(node: Node, message_type: Any, topic: str, newest: dict[str, Any]) -> None:
    def keep(message: Any) -> None:
        newest[topic] = message

    node.create_subscription(message_type, topic, keep, STATUS_QOS)


@contextmanager
def _made_node(namespace: str) -> Iterator[Node]:
    """A node for one call. It finds this machine's nodes only, unless the user has chosen another range."""
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    configure_fastdds_profile()
    rclpy.init(args=[])
    node = rclpy.create_node(f'groot_ros_call_{os.getpid()}', namespace=namespace)
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def _absent(name: str) -> str:
    return (
        f'Nothing offers {name} here: start the cell with `groot-ros up`, or give its --namespace; '
        'for another machine set ROS_AUTOMATIC_DISCOVERY_RANGE and ROS_DOMAIN_ID as there.'
    )
