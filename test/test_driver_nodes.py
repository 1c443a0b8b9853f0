# SPDX-License-Identifier: Apache-2.0
"""The drivers' topics and services on real rclpy, with made-up devices: nothing is started or waited for."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from groot_ros.msg import RobotStatus, TcpDelta
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import SetBool, Trigger

from groot_ros.control.command_gate import GateState
from groot_ros.errors import GrootRosError
from groot_ros.geometry import rotvec_from_pose
from groot_ros.hardware.robotiq.gripper import GripperSettings
from groot_ros.hardware.ur5e.ipc import BEAT, STATE
from groot_ros.hardware.ur5e.modes import NORMAL, POWER_OFF, PROTECTIVE_STOP, RUNNING
from groot_ros.nodes import robotiq_driver, ur5e_driver
from groot_ros.ros.guarded_node import GuardedNode
from groot_ros.ros.qos import COMMAND_QOS
from groot_ros.ros.services import create_waiting_service
from groot_ros.ros.time import to_time_msg
from groot_ros.ur5e_kinematics import DEFAULT_TCP_OFFSET, forward

JOINTS = np.array([-1.57, -1.57, -1.57, -1.57, 1.57, 0.0])


@pytest.fixture
def ros():
    """rclpy; nodes that are put into the list are destroyed."""
    rclpy.init(args=[])
    nodes = []
    yield nodes
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown()


class Noted:
    """A device that notes its calls and answers each with ''."""

    def __init__(self, *arguments, **options) -> None:
        self.calls = []
        self.settings = GripperSettings()

    def __getattr__(self, name):
        def call(*arguments, **options):
            self.calls.append((name, *arguments))
            return ''

        return call

    def names(self):
        return [name for name, *_ in self.calls]


@pytest.fixture
def arm(ros, monkeypatch):
    """An enabled ur5e_driver with a made-up arm."""
    monkeypatch.setattr(ur5e_driver, 'Ur5e', Noted)
    monkeypatch.setattr(ur5e_driver, '_DISCOVERY_S', 0.0)
    node = ur5e_driver.Ur5eDriver()
    ros.append(node)
    node.start()
    session = node._session
    session._last_state_s = time.monotonic() + 1000.0
    session._last_command_s = time.monotonic()
    session.gate.enable(forward(JOINTS, DEFAULT_TCP_OFFSET), JOINTS)
    return node


def delta(source, **fields) -> TcpDelta:
    message = TcpDelta(source=source, sequence=1, opening=float('nan'), duration=0.05)
    message.header.stamp = to_time_msg(time.time_ns())
    message.translation = np.array([0.001, 0.0, 0.0])
    message.header.frame_id = fields.pop('frame_id', '')
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def receive(node, topic, message) -> None:
    next(s for s in node.subscriptions if s.topic_name.endswith(topic)).callback(message)


def test_a_driver_with_a_robot_says_each_minute_how_the_arm_is_enabled(arm, monkeypatch):
    told = []
    now_s = [100.0]
    state = np.zeros(1, STATE)[0]
    state['robot_mode'] = RUNNING
    state['safety_mode'] = NORMAL
    monkeypatch.setattr(ur5e_driver, 'differences', lambda *_: [])
    monkeypatch.setattr(ur5e_driver.time, 'monotonic', lambda: now_s[0])
    logger = SimpleNamespace(info=told.append, warning=lambda text: None)
    monkeypatch.setattr(arm, 'get_logger', lambda: logger)
    arm._session.gate.disable()
    arm._say_what_is_awaited()
    assert told == []  # no robot was seen yet
    arm._compare_installation(state)
    for now_s[0] in (100.0, 101.0, 159.0, 161.0):
        arm._say_what_is_awaited()
    assert len(told) == 2
    assert 'ros2 service call /ur5e_driver/enable std_srvs/srv/SetBool "{data: true}"' in told[0]


def test_a_driver_without_rights_to_priorities_warns(arm, monkeypatch):
    told = []
    monkeypatch.setattr(ur5e_driver, 'priority_problem', lambda: 'this user may not have them')
    monkeypatch.setattr(arm, 'warn', told.append)
    arm.configure()
    assert told == ['On a busy computer the arm may move unevenly and stop: this user may not have them.']


@pytest.mark.parametrize(
    ('topic', 'source', 'other'),
    [('policy/tcp_delta', 'policy', 'teleop'), ('teleop/tcp_delta', 'teleop', 'policy')],
)
def test_a_topic_of_commands_belongs_to_its_source(arm, topic, source, other):
    receive(arm, topic, delta(other))
    assert arm._session.gate.counters.refused == 1
    assert arm._session.arm.names() == []
    receive(arm, topic, delta(source))
    assert arm._session.arm.names() == ['move']


def test_a_release_in_the_name_of_another_source_is_not_obeyed(arm):
    receive(arm, 'teleop/tcp_delta', delta('teleop'))
    receive(arm, 'policy/tcp_delta', delta('teleop', released=True))
    assert arm._session.gate.source == 'teleop'
    receive(arm, 'teleop/tcp_delta', delta('teleop', sequence=2, released=True))
    assert arm._session.gate.source == ''


def test_the_rest_after_a_release_is_published_as_the_new_target(arm, monkeypatch):
    published = []
    monkeypatch.setattr(arm, 'publish', lambda publisher, message: published.append(message))
    receive(arm, 'teleop/tcp_delta', delta('teleop'))
    receive(arm, 'teleop/tcp_delta', delta('teleop', sequence=2, released=True))
    assert arm._session.arm.names() == ['move', 'hold']
    rest = arm._session.gate.target + np.array([0.0004, 0, 0, 0, 0, 0, 0])
    beat = np.zeros(1, BEAT)
    beat['servoing'] = True
    beat['holds'] = 1
    beat['rest'] = rest
    published.clear()
    arm._on_beat(beat[0])
    echo = next(message for message in published if isinstance(message, TcpDelta))
    assert (echo.source, echo.sequence, echo.released) == ('teleop', 2, True)
    np.testing.assert_array_equal(echo.target, rest)
    assert np.isnan(echo.opening)


@pytest.mark.parametrize(('frame_id', 'moves'), [('', 1), ('base', 1), ('base_link', 0), ('tool0', 0)])
def test_commands_in_another_frame_than_base_are_refused(arm, frame_id, moves):
    receive(arm, 'teleop/tcp_delta', delta('teleop', frame_id=frame_id))
    assert len(arm._session.arm.calls) == moves
    assert arm._session.gate.counters.refused == 1 - moves


def test_a_second_publisher_of_commands_is_refused_and_named_in_the_status(arm, ros, monkeypatch, eventually):
    for name in ('first', 'second'):
        ros.append(rclpy.create_node(name))
        ros[-1].create_publisher(TcpDelta, 'policy/tcp_delta', COMMAND_QOS)
    assert eventually(lambda: arm.count_publishers('policy/tcp_delta') == 2)
    published = []
    monkeypatch.setattr(arm, 'publish', lambda publisher, message: published.append(message))
    receive(arm, 'policy/tcp_delta', delta('policy', sequence=1))
    receive(arm, 'policy/tcp_delta', delta('policy', sequence=90_000))
    receive(arm, 'policy/tcp_delta', delta('policy', sequence=90_001, released=True))
    receive(arm, 'policy/tcp_delta', delta('policy', sequence=2))
    assert arm._session.arm.names() == ['move', 'move']
    assert arm._session.gate.state is GateState.ENABLED
    status = [message for message in published if isinstance(message, RobotStatus)][-1]
    assert status.state == RobotStatus.ENABLED
    assert status.source == 'policy'
    assert '/first' in status.reason
    assert '/second' in status.reason
    commands = next(health for health in arm.diagnose() if health.part == 'commands')
    assert commands.level == 1
    assert '/second' in commands.text


def test_a_second_driver_of_the_same_name_does_not_start(ros, monkeypatch, eventually):
    monkeypatch.setattr(ur5e_driver, 'Ur5e', Noted)
    ros.append(rclpy.create_node('ur5e_driver'))
    ros[-1].create_service(SetBool, '~/enable', lambda request, response: response)
    node = ur5e_driver.Ur5eDriver()
    ros.append(node)
    assert eventually(lambda: node.count_services('/ur5e_driver/enable') == 2)
    with pytest.raises(GrootRosError, match='Another node serves /ur5e_driver/enable'):
        node.start()
    assert node._session.arm is None


def test_a_state_is_judged_before_it_is_published(arm, monkeypatch):
    """A publisher that fails must not keep the stop from the arm."""
    state = np.zeros(1, STATE)[0]
    state['robot_mode'], state['safety_mode'], state['speed_scaling'] = RUNNING, PROTECTIVE_STOP, 1.0
    monkeypatch.setattr(arm, 'publish', fail)
    with pytest.raises(RuntimeError):
        arm._on_state(state)
    assert arm._session.gate.state is GateState.STOPPED
    assert arm._session.arm.names() == ['brake']


def test_another_tool_on_the_robot_is_told_once_and_only_when_the_robot_has_power(arm, monkeypatch):
    warnings = []
    monkeypatch.setattr(arm, 'warn', warnings.append)
    state = np.zeros(1, STATE)[0]
    state['robot_mode'], state['safety_mode'], state['speed_scaling'] = POWER_OFF, NORMAL, 1.0
    state['tcp_pose'] = rotvec_from_pose(forward(np.zeros(6), np.zeros(6)))
    state['payload_kg'] = 2.0
    arm._on_state(state)
    assert not [text for text in warnings if 'tcp_offset' in text]
    state['robot_mode'] = RUNNING
    for _ in range(3):
        arm._on_state(state)
    assert len([text for text in warnings if 'tcp_offset is [0.000, 0.000, 0.174' in text]) == 1
    assert len([text for text in warnings if 'payload_kg is 0.94' in text]) == 1


def fail(*arguments):
    raise RuntimeError('the history is full')


def test_a_service_that_waits_lets_the_executor_go_on(ros):
    node = GuardedNode('server')
    caller = rclpy.create_node('caller')
    ros += [node, caller]
    released = threading.Event()

    def wait(request, response):
        if request.data:
            assert released.wait(20.0)
        response.success = request.data
        return response

    create_waiting_service(node, SetBool, 'call', wait)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    executor.add_node(caller)
    client = caller.create_client(SetBool, 'call')
    assert client.wait_for_service(20.0)
    slow = client.call_async(SetBool.Request(data=True))
    fast = client.call_async(SetBool.Request(data=False))
    executor.spin_until_future_complete(fast, 20.0)
    assert fast.done()
    assert not slow.done()
    released.set()
    executor.spin_until_future_complete(slow, 20.0)
    assert slow.result().success


@pytest.fixture
def gripper(ros, monkeypatch):
    """An active robotiq_driver with a made-up gripper."""
    monkeypatch.setattr(robotiq_driver, 'Robotiq', Noted)
    node = robotiq_driver.RobotiqDriver()
    ros.append(node)
    node.trigger_configure()
    assert node._gripper.calls == []
    node.trigger_activate()
    assert node._gripper.calls == []
    return node


def status(state) -> RobotStatus:
    return RobotStatus(state=state)


@pytest.mark.parametrize(
    ('state', 'calls'),
    [
        (RobotStatus.DISABLED, ['start']),
        (RobotStatus.STOPPED, ['start']),
        (RobotStatus.ENABLED, []),
        (RobotStatus.FREEDRIVE, []),
    ],
)
def test_a_gripper_driver_that_starts_beside_an_enabled_arm_does_not_move_the_fingers(gripper, state, calls):
    gripper._activate_at_rest()
    assert gripper._gripper.names() == []
    receive(gripper, 'robot_status', status(state))
    gripper._gripper.calls.clear()
    gripper._activate_at_rest()
    receive(gripper, 'robot_status', status(RobotStatus.DISABLED))
    gripper._activate_at_rest()
    assert [name for name in gripper._gripper.names() if name == 'start'] == calls


def test_a_gripper_without_a_driver_of_the_arm_is_activated_after_a_wait(gripper, monkeypatch):
    monkeypatch.setattr(gripper, 'count_publishers', lambda topic: 0)
    later_s = time.monotonic() + 3.0
    monkeypatch.setattr(robotiq_driver, 'time', SimpleNamespace(monotonic=lambda: later_s))
    gripper._activate_at_rest()
    gripper._activate_at_rest()
    assert gripper._gripper.names() == ['start']


def test_the_gripper_obeys_only_while_the_arm_is_enabled_or_guided(gripper, monkeypatch):
    command = delta('teleop', opening=0.5)
    receive(gripper, 'command/tcp_delta', command)
    receive(gripper, 'robot_status', status(RobotStatus.DISABLED))
    receive(gripper, 'command/tcp_delta', command)
    assert 'move' not in gripper._gripper.names()
    for state in (RobotStatus.ENABLED, RobotStatus.FREEDRIVE):
        gripper._gripper.calls.clear()
        receive(gripper, 'robot_status', status(state))
        receive(gripper, 'command/tcp_delta', command)
        assert gripper._gripper.calls == [('move', 0.5)]
    receive(gripper, 'robot_status', status(RobotStatus.STOPPED))
    assert gripper._gripper.names()[-1] == 'forget_target'
    receive(gripper, 'command/tcp_delta', command)
    assert gripper._gripper.names()[-1] == 'forget_target'


def test_the_status_of_a_driver_that_died_does_not_enable_the_gripper(gripper, monkeypatch):
    receive(gripper, 'robot_status', status(RobotStatus.ENABLED))
    later_s = time.monotonic() + 3.0
    monkeypatch.setattr(robotiq_driver, 'time', SimpleNamespace(monotonic=lambda: later_s))
    receive(gripper, 'command/tcp_delta', delta('teleop', opening=0.5))
    assert 'move' not in gripper._gripper.names()


@pytest.mark.parametrize('service', ['activate', 'calibrate'])
def test_the_gripper_is_not_calibrated_while_the_arm_is_enabled(gripper, service):
    call = getattr(gripper, f'_on_{service}')
    receive(gripper, 'robot_status', status(RobotStatus.ENABLED))
    answer = call(Trigger.Request(), Trigger.Response())
    assert not answer.success
    assert 'enabled' in answer.message
    receive(gripper, 'robot_status', status(RobotStatus.DISABLED))
    assert call(Trigger.Request(), Trigger.Response()).success
    assert gripper._gripper.calls[-1] == (service, False)
