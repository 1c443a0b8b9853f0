# SPDX-License-Identifier: Apache-2.0
"""The policy server on real rclpy in this process, with a made-up arm: nothing is started or waited for."""

import time
from types import SimpleNamespace

import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from groot_ros.action import RunPolicy
from groot_ros.msg import PolicyStatus, RobotStatus
from std_srvs.srv import SetBool

from groot_ros.nodes.policy_server import PolicyServer
from groot_ros.ros.time import to_time_msg


@pytest.fixture
def server(eventually):
    """Makes policy servers in this process, on their own rclpy."""
    nodes = []

    def make(**parameters) -> PolicyServer:
        overrides = [word for name, value in parameters.items() for word in ('-p', f'{name}:={value}')]
        rclpy.init(args=['--ros-args', *overrides] if overrides else [])
        node = PolicyServer()
        nodes.append(node)
        node.start()
        wait_for_the_policy(node, eventually)
        return node

    yield make
    for node in nodes:
        node.shutdown()
        node.destroy_node()
    rclpy.try_shutdown()


def wait_for_the_policy(node, eventually) -> None:
    """Polls the loader as its timer does."""

    def loaded():
        node._poll_loader()
        return not node._loader.busy

    assert eventually(loaded)


def receive(node, topic, message) -> None:
    next(s for s in node.subscriptions if s.topic_name.endswith(topic)).callback(message)


def rest(node) -> None:
    """The arm is enabled and at rest, as two targets of its driver show."""
    receive(node, 'robot_status', RobotStatus(state=RobotStatus.ENABLED, connected=True, speed_scaling=1.0))
    for age_ns in (400_000_000, 0):
        target = PoseStamped()
        target.header.stamp = to_time_msg(time.time_ns() - age_ns)
        target.pose.position.x = 0.4
        target.pose.orientation.w = 1.0
        receive(node, 'tcp_target', target)


def enable(node, on=True):
    return node._on_enable(SetBool.Request(data=on), SetBool.Response())


class Goal:
    """A handle of an action goal, as rclpy gives it to the server."""

    def __init__(self, **goal) -> None:
        self.request = RunPolicy.Goal(**goal)
        self.is_cancel_requested = False
        self.ended = ''

    def publish_feedback(self, feedback) -> None:
        pass

    def __getattr__(self, name):
        return lambda: setattr(self, 'ended', name)


def begin(node, goal):
    """Executes a goal up to its end or its first wait; returns the result, or None while it runs."""
    coroutine = node._run_action._server._execute_callback(goal)
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    goal.coroutine = coroutine
    return None


@pytest.mark.parametrize('topic', ['a b', '/1', 'x//y', '~~', 'é'])
def test_a_goal_whose_success_topic_is_no_topic_starts_no_policy(server, topic):
    node = server(backend='hold')
    rest(node)
    goal = Goal(success_topic=topic)
    result = begin(node, goal)
    assert (goal.ended, result.success) == ('abort', False)
    assert f'success_topic {topic!r}' in result.message
    assert node._state == PolicyStatus.IDLE


@pytest.mark.parametrize('limit_s', [-1.0, float('nan')])
def test_a_goal_without_a_sensible_time_limit_starts_no_policy(server, limit_s):
    node = server(backend='hold')
    rest(node)
    assert 'time_limit' in begin(node, Goal(time_limit=limit_s)).message
    assert node._state == PolicyStatus.IDLE


def test_a_goal_that_fails_stops_its_policy(server, monkeypatch):
    node = server(backend='hold')
    rest(node)
    monkeypatch.setattr(node, '_publish_status', failing_once(node._publish_status))
    goal = Goal()
    result = begin(node, goal)
    assert (goal.ended, result.message) == ('abort', '~/run failed: RuntimeError: the middleware is gone.')
    assert node._state == PolicyStatus.STOPPED


def failing_once(work):
    """A function that fails at its first call, and then does its work."""
    calls = []

    def call():
        calls.append(True)
        if len(calls) == 1:
            raise RuntimeError('the middleware is gone')
        work()

    return call


def test_a_goal_is_cancelled_during_a_pause_too(server):
    node = server(backend='hold')
    rest(node)
    goal = Goal()
    assert begin(node, goal) is None
    receive(node, 'robot_status', RobotStatus(state=RobotStatus.ENABLED, connected=True, speed_scaling=0.0))
    assert node._state == PolicyStatus.PAUSED
    goal.is_cancel_requested = True
    node._tick()
    assert (node._state, node._reason) == (PolicyStatus.STOPPED, 'cancelled')
    with pytest.raises(StopIteration):
        goal.coroutine.send(None)
    assert goal.ended == 'canceled'


def test_a_policy_server_that_comes_back_runs_its_policy(server, eventually):
    """Its policy is loaded by each configuration, and forgotten by each cleanup."""
    node = server(backend='scripted')
    for _ in range(3):
        rest(node)
        assert enable(node).success
        commands = []
        node._deltas = SimpleNamespace(publish=commands.append)
        assert eventually(lambda: node._tick() or node._runner.scheduler.stats.chunks > 0)
        assert commands
        node.trigger_deactivate()
        assert (node._state, commands[-1].released) == (PolicyStatus.STOPPED, True)
        assert enable(node).message == 'the policy server is not active'
        node.trigger_cleanup()
        assert enable(node).message == 'the policy server is not configured'
        assert not node._on_load(SimpleNamespace(), None).success
        node.trigger_configure()
        wait_for_the_policy(node, eventually)
        node.trigger_activate()


def test_a_replay_is_played_again_after_its_end_and_after_a_stop(server, converted, eventually):
    node = server(backend='replay', dataset=converted)
    for _ in range(3):
        rest(node)
        assert enable(node).success
        assert node._state == PolicyStatus.RUNNING
        assert node._runner.approaching
        assert enable(node, False).success


def test_a_policy_that_is_still_loaded_when_it_is_not_wanted_is_closed(server, monkeypatch, eventually):
    node = server(backend='hold')
    closed = []
    made = node._worker.policy
    monkeypatch.setattr(made, 'close', lambda: closed.append(True))
    node._loader.start(lambda: time.sleep(0.1) or made)
    node._loader.abandon()
    assert not node._loader.busy
    assert eventually(lambda: closed)
    assert node._loader.poll() is None
