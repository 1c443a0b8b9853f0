# SPDX-License-Identifier: Apache-2.0
"""Every node walks through random transitions, services, goals and messages, with made-up devices."""

import multiprocessing
import random
import sys
import time

import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from groot_ros.action import ConvertEpisodes, RecordEpisode, RunPolicy
from groot_ros.msg import EpisodeStatus, PolicyStatus, RobotStatus, TcpDelta
from groot_ros.srv import LoadPolicy, Preflight, SetTask, StartEpisode, StopEpisode
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.action import GoalResponse
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from groot_ros.control.limits import Limits
from groot_ros.errors import GrootRosError
from groot_ros.hardware.robotiq.gripper import GripperSettings
from groot_ros.nodes import (
    camera_driver,
    converter,
    policy_server,
    recorder,
    robotiq_driver,
    teleop,
    ur5e_driver,
)
from groot_ros.nodes.sim_cell import SimCellNode
from groot_ros.recording.episode_folder import EpisodeFolder
from groot_ros.ros import arm_feedback
from groot_ros.ros.qos import COMMAND_QOS
from groot_ros.ros.run import make_executor
from groot_ros.ros.time import to_time_msg

from .conftest import TOPIC_TYPES

ANSWERED_S = 30.0
UNCONFIGURED = State.PRIMARY_STATE_UNCONFIGURED
INACTIVE = State.PRIMARY_STATE_INACTIVE
ACTIVE = State.PRIMARY_STATE_ACTIVE
# state, transition -> next state. Shutdown is tried at the end of the walk.
TRANSITIONS = {
    (UNCONFIGURED, Transition.TRANSITION_CONFIGURE): INACTIVE,
    (INACTIVE, Transition.TRANSITION_CLEANUP): UNCONFIGURED,
    (INACTIVE, Transition.TRANSITION_ACTIVATE): ACTIVE,
    (ACTIVE, Transition.TRANSITION_DEACTIVATE): INACTIVE,
}


class Device:
    """A made-up device: answers each call with a refusal, and counts how many are open."""

    open_count = 0
    description = ''
    needs_target = True

    def __init__(self, *arguments, **options) -> None:
        Device.open_count += 1
        self._is_open = True
        self.settings = GripperSettings()
        self.intrinsics = {}

    def __getattr__(self, name):
        assert self._is_open, f'{name} of a closed device was called'
        return lambda *arguments, **options: 'it is made up'

    def frames(self):
        while self._is_open:
            time.sleep(0.002)
            yield camera_driver.Frame(time.time_ns(), {})

    def step(self, *arguments):
        assert self._is_open
        return teleop.OperatorStep(teleop.np.zeros(6), 0.5, held=True)

    def close(self) -> None:
        assert self._is_open, 'a closed device was closed again'
        self._is_open = False
        Device.open_count -= 1


def make_recorder():
    """A recorder that believes that every topic of its embodiment is published."""
    node = recorder.Recorder()
    node._watch.types.update(TOPIC_TYPES)
    return node


def target(age_s):
    """Where the arm is, `age_s` ago."""
    message = PoseStamped()
    message.header.stamp = to_time_msg(time.time_ns() - round(age_s * 1e9))
    message.pose.orientation.w = 1.0
    return message


def find_run_server(node):
    return node._run_action._server


def find_record_server(node):
    return node._record_action


def find_convert_server(node):
    return node._convert_action


def make_sim_cell():
    return SimCellNode(multiprocessing.Pipe(duplex=False)[0])


# The node, its parameters, its services, its actions, and messages that it listens to.
ENABLE = SetBool.Request(data=True)
DISABLE = SetBool.Request()
TRIGGER = Trigger.Request()
ENABLED = RobotStatus(state=RobotStatus.ENABLED, connected=True, speed_scaling=1.0)
NODES = {
    'ur5e_driver': (
        lambda: ur5e_driver.Ur5eDriver(),
        [('enable', ENABLE), ('enable', DISABLE), ('freedrive', ENABLE), ('recover', TRIGGER)],
        [],
        [('teleop/tcp_delta', lambda: TcpDelta(source='teleop', duration=0.05))],
    ),
    'robotiq_driver': (
        lambda: robotiq_driver.RobotiqDriver(),
        [('activate', TRIGGER), ('calibrate', TRIGGER)],
        [],
        [('robot_status', lambda: ENABLED), ('command/tcp_delta', lambda: TcpDelta(opening=0.5))],
    ),
    'camera_driver': (lambda: camera_driver.CameraDriver(), [], [], []),
    'teleop': (
        lambda: teleop.Teleop(),
        [],
        [],
        [
            ('robot_status', lambda: ENABLED), ('robot_status', RobotStatus),
            ('episode_status', EpisodeStatus),
        ],
    ),
    'recorder': (
        make_recorder,
        [
            ('start', StartEpisode.Request(task='move the cube', force=True)),
            ('stop', StopEpisode.Request(succeeded=True)),
            ('discard', TRIGGER), ('redo', TRIGGER), ('pause', ENABLE), ('pause', DISABLE),
            ('next_task', TRIGGER), ('skip_task', TRIGGER),
            ('preflight', Preflight.Request()),
        ],
        [(find_record_server, RecordEpisode.Goal(task='move the cube', force=True, time_limit=0.01))],
        [],
    ),
    'policy_server': (
        lambda: policy_server.PolicyServer(),
        [
            ('enable', ENABLE), ('enable', DISABLE), ('set_task', SetTask.Request(task='wave')),
            ('load', LoadPolicy.Request(backend='scripted')),
            ('load', LoadPolicy.Request(backend='replay', path='/nowhere')),
        ],
        [
            (find_run_server, RunPolicy.Goal(success_topic='a b')),
            (find_run_server, RunPolicy.Goal(time_limit=0.01)),
        ],
        [
            ('robot_status', lambda: ENABLED), ('robot_status', RobotStatus),
            ('tcp_target', lambda: target(0.4)), ('tcp_target', lambda: target(0.0)),
        ],
    ),
    'converter': (
        lambda: converter.ConverterNode(),
        [],
        [
            (find_convert_server, ConvertEpisodes.Goal()),
            (find_convert_server, ConvertEpisodes.Goal(sources=['/nowhere'], output='/nowhere/set')),
        ],
        [],
    ),
    'sim_cell': (make_sim_cell, [], [], []),
}  # fmt: skip
PARAMETERS = {
    'recorder': {'hardware_encoder': False, 'report': False, 'video': 'raw', 'min_free_gb': 0.0},
    'policy_server': {'backend': 'hold'},
}


def what_runs(node):
    """What a node does now: a walk during which it does nothing shows nothing."""
    if isinstance(node, recorder.Recorder):
        return 'records' if node._session.recording is not None else ''
    if isinstance(node, policy_server.PolicyServer):
        return 'commands' if node._state == PolicyStatus.RUNNING else ''
    return ''


# Values of the parameters that may change, and one that each node refuses.
CHANGES = {
    'ur5e_driver': [
        {'max_linear_speed_m_s': 0.1}, {'max_linear_speed_m_s': 0.25}, {'max_angular_speed_rad_s': 0.5},
        {'max_step_m': 0.05}, {'max_step_rad': 0.2}, {'max_joint_speed_rad_s': 1.5},
    ],
    'recorder': [
        {'min_free_gb': 0.0}, {'min_free_gb': 1e-6}, {'operator_feedback': 'none'},
        {'tasks_file': ''}, {'quality_thresholds': ''}, {'report': False},
    ],
    'policy_server': [
        {'task': 'stack'}, {'task': ''}, {'min_speed_scaling': 0.1}, {'min_speed_scaling': 0.05},
        {'resume_after_override': True}, {'resume_after_override': False},
    ],
}  # fmt: skip
REFUSED = {'use_sim_time': 'not a truth value'}
# What sets an active node to work, which chance alone seldom does; and what is seen then.
BEGIN = {
    'recorder': [('call', 'start', StartEpisode.Request(task='move the cube', force=True))],
    'policy_server': [
        ('receive', 'robot_status', lambda: ENABLED), ('receive', 'tcp_target', lambda: target(0.0)),
        ('call', 'enable', ENABLE),
    ],
}  # fmt: skip
MUST_RUN = {'recorder': {'records', ''}, 'policy_server': {'commands', ''}}


class Handle:
    """A goal of an action, as rclpy gives it to the server."""

    is_cancel_requested = False

    def __init__(self, request) -> None:
        self.request = request
        self.ended = ''

    def publish_feedback(self, feedback) -> None:
        pass

    def succeed(self) -> None:
        self.ended = 'succeeded'

    def abort(self) -> None:
        self.ended = 'aborted'


class Walker:
    """Drives one node by the callbacks of its services, actions and topics, and compares its state.

    The middleware is left out: a reply that it loses would hang a test. Timers run in the executor.
    """

    def __init__(self, name, node) -> None:
        self.name = name
        self.node = node
        self.state = UNCONFIGURED
        self._executor = make_executor()
        self._executor.add_node(node)

    def spin_until(self, condition) -> None:
        deadline_s = time.monotonic() + ANSWERED_S
        while not condition():
            assert time.monotonic() < deadline_s, f'{self.name} does not answer'
            self._executor.spin_once(0.01)

    def call(self, name, request):
        service = next(s for s in self.node.services if s.srv_name.endswith(f'/{name}'))
        answer = service.callback(request, service.srv_type.Response())
        if isinstance(answer, tuple):  # a service that waits: its thread calls this
            answer = self.node.answer(name, getattr(self.node, f'_on_{name}'), *answer)
        self._run_timers()
        return answer

    def change(self, transition, label=''):
        request = ChangeState.Request(transition=Transition(id=transition, label=label))
        return self.call('change_state', request).success

    def state_of_node(self):
        return self.call('get_state', GetState.Request()).current_state.id

    def transition(self, transition) -> None:
        expected = TRANSITIONS.get((self.state, transition))
        assert self.change(transition) == (expected is not None)
        self.state = self.state if expected is None else expected
        assert self.state_of_node() == self.state

    def goal(self, find_server, goal) -> None:
        server = find_server(self.node)
        if server._goal_callback(goal) == GoalResponse.REJECT:
            return
        handle = Handle(goal)
        coroutine = server._execute_callback(handle)
        results = []

        def ended():
            try:
                coroutine.send(None)
            except StopIteration as stop:
                results.append(stop.value)
            return results

        self.spin_until(ended)
        assert (handle.ended, results[0].success) == ('aborted', False)
        assert results[0].message

    def receive(self, topic, make_message) -> None:
        subscription = next(s for s in self.node.subscriptions if s.topic_name == f'/walk/{topic}')
        subscription.callback(make_message())
        self._run_timers()

    def begin(self) -> None:
        """Sets the node to work, whatever its state is."""
        for start, step in ((UNCONFIGURED, 'CONFIGURE'), (INACTIVE, 'ACTIVATE')):
            if self.state == start:
                self.transition(getattr(Transition, f'TRANSITION_{step}'))
        for kind, *what in BEGIN.get(self.name, []):
            getattr(self, kind)(*what)

    def set(self, values, accepted) -> None:
        assert [result.successful for result in set_parameters(self, **values)] == [accepted] * len(values)
        if accepted:
            assert {name: self.node.parameter(name) for name in values} == values

    def load_own_dump(self) -> None:
        """What `ros2 param dump` and `ros2 param load` do."""
        names = list(self.node._parameters)
        dump = {item.name: item.value for item in self.node.get_parameters(names)}
        refused = [result.reason for result in set_parameters(self, **dump) if not result.successful]
        assert refused == []

    def _run_timers(self) -> None:
        for _ in range(3):
            self._executor.spin_once(0.001)


@pytest.fixture
def walk(monkeypatch, tmp_path):
    """Makes a node by its name, with made-up devices, and its walker."""
    for module, device in (
        (ur5e_driver, 'Ur5e'),
        (robotiq_driver, 'Robotiq'),
        (camera_driver, 'open_camera'),
        (teleop, 'open_operator'),
    ):
        monkeypatch.setattr(module, device, Device)
    monkeypatch.setattr(ur5e_driver, '_DISCOVERY_S', 0.0)
    monkeypatch.setattr(ur5e_driver.Ur5eDriver, '_twin', lambda self: '')  # the node of the test before
    monkeypatch.setattr(arm_feedback, '_MAX_TARGET_AGE_NS', 10**12)  # whatever this machine does meanwhile
    monkeypatch.setattr(EpisodeFolder, 'write_speed', lambda self: 1e9)
    monkeypatch.chdir(tmp_path)
    Device.open_count = 0
    walkers = []

    def make(name, **parameters) -> Walker:
        chosen = {'autostart': False, **PARAMETERS.get(name, {}), **parameters}
        words = [word for key, value in chosen.items() for word in ('-p', f'{key}:={value}')]
        rclpy.init(args=['--ros-args', '-r', '__ns:=/walk', *words])
        walkers.append(Walker(name, NODES[name][0]()))
        return walkers[-1]

    yield make
    for walker in walkers:
        walker.node.shutdown()
        walker.node.destroy_node()
    rclpy.try_shutdown()


@pytest.mark.parametrize('hidden', ['', 'rclpy.experimental.events_executor'])
@pytest.mark.parametrize('name', NODES)
def test_a_node_survives_every_order_of_transitions_and_calls(
    walk, monkeypatch, request, name, hidden, walk_number
):
    """The second time with the executor of an rclpy that has no EventsExecutor. See `make walk`."""
    if hidden:
        monkeypatch.setitem(sys.modules, hidden, None)
    walker = walk(name)
    _, services, goals, messages = NODES[name]
    rng = random.Random(f'{name} {walk_number}')
    transitions = [transition for _, transition in TRANSITIONS]
    work = [(walker.call, service) for service in services]
    work += [(walker.goal, goal) for goal in goals]
    work += [(walker.receive, message) for message in messages]
    changes = [(walker.set, (values, True)) for values in CHANGES.get(name, [])]
    changes += [(walker.set, (REFUSED, False)), (walker.load_own_dump, ())]
    seen = set()
    for _ in range(request.config.getoption('--walk-steps')):
        chance = rng.random()
        if chance < 0.3 or not (work or chance < 0.45):
            walker.transition(rng.choice(transitions))
        elif chance < 0.4:
            do, what = rng.choice(changes)
            do(*what)
        elif chance < 0.45:
            walker.begin()
        else:
            do, what = rng.choice(work)
            do(*what)
        assert (walker.node.problem, walker.node.failure) == ('', '')
        assert walker.node.active == (walker.state == ACTIVE)
        seen.add(what_runs(walker.node))
    assert seen >= MUST_RUN.get(name, set())
    assert walker.change(0, 'shutdown')
    assert walker.node.finished
    assert walker.node.failure == ''
    assert Device.open_count == 0


@pytest.mark.parametrize('name', NODES)
@pytest.mark.parametrize('part', ['configure', 'activate', 'deactivate', 'cleanup'])
@pytest.mark.parametrize('error', [GrootRosError('the cable is broken.'), KeyError('x')])
def test_a_node_survives_a_transition_that_fails(walk, monkeypatch, name, part, error):
    """What fails is undone, and the node can be configured and activated again."""
    walker = walk(name)
    work = getattr(walker.node, part)

    def fail():
        monkeypatch.setattr(walker.node, part, work)
        work()
        raise error

    fail.__name__ = part
    monkeypatch.setattr(walker.node, part, fail)
    steps = [Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE]
    steps += [Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP]
    succeeded = [walker.change(step) for step in steps]
    assert False in succeeded
    if walker.state_of_node() == INACTIVE:
        assert walker.change(Transition.TRANSITION_CLEANUP)
    assert Device.open_count == 0
    walker.state = UNCONFIGURED
    for step in steps:
        walker.transition(step)
    assert Device.open_count == 0


@pytest.mark.parametrize('name', ['recorder', 'policy_server', 'ur5e_driver', 'teleop'])
def test_an_exception_in_a_timer_a_topic_or_a_service_does_not_end_a_node(walk, monkeypatch, name):
    walker = walk(name)
    node = walker.node
    node.start()

    def fail(*arguments):
        raise ZeroDivisionError('made up')

    stopped = []
    monkeypatch.setattr(node, 'on_fault', stopped.append)
    timer = node.create_timer(0.001, fail)
    walker.spin_until(lambda: len(stopped) > 3)
    node.destroy_timer(timer)
    assert node.problem == "the timer 'fail' failed: ZeroDivisionError: made up."
    node.create_service(Trigger, '~/failing', fail)
    answer = walker.call('failing', TRIGGER)
    assert (answer.success, answer.message) == (False, '~/failing failed: ZeroDivisionError: made up.')
    node.create_subscription(TcpDelta, 'failing', fail, COMMAND_QOS)
    count = len(stopped)
    walker.receive('failing', TcpDelta)
    assert len(stopped) == count + 1
    assert node.failure == ''


def set_parameters(walker, **values):
    """What `ros2 param set` does: one result for each value."""
    wanted = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
    return walker.call('set_parameters', SetParameters.Request(parameters=wanted)).results


@pytest.mark.parametrize('name', NODES)
def test_the_dump_of_a_node_can_be_loaded_again(walk, name):
    walker = walk(name)
    assert {'use_sim_time', 'start_type_description_service', 'autostart'} <= set(walker.node._parameters)
    walker.load_own_dump()


def test_a_parameter_that_is_read_at_the_start_is_refused_by_name(walk):
    walker = walk('ur5e_driver')
    corner = [-0.6, -0.85, 0.1]
    wall, unknown, tool = set_parameters(walker, workspace_min_m=corner, use_sim_time=True, tcp_offset=corner)
    assert not any(result.successful for result in (wall, unknown, tool))
    assert wall.reason.startswith('workspace_min_m is read when the node starts')
    assert unknown.reason.startswith('use_sim_time is read when the node starts')


def test_limits_of_the_arm_are_lowered_and_raised_again_never_above_the_start(walk):
    walker = walk('ur5e_driver', max_linear_speed_m_s=0.2)
    node = walker.node

    def tell(**values):
        return [(result.successful, result.reason) for result in set_parameters(walker, **values)]

    assert tell(max_linear_speed_m_s=0.05, max_step_m=0.01, max_joint_speed_rad_s=1.0) == [(True, '')] * 3
    walker.transition(Transition.TRANSITION_CONFIGURE)  # a new session keeps the limits and what they may be
    limits = node._session.gate.limits
    assert (limits.max_linear_speed_m_s, limits.max_step_m, limits.max_joint_speed_rad_s) == (0.05, 0.01, 1.0)
    assert limits.smoothing_s == Limits(max_linear_speed_m_s=0.2).smoothing_s
    assert tell(max_linear_speed_m_s=0.2) == [(True, '')]
    assert limits.max_speeds == (0.2, 1.0)
    for value in (0.21, 1.0):
        ((accepted, reason),) = tell(max_linear_speed_m_s=value)
        assert not accepted
        assert 'raised again to 0.2, which the node started with' in reason
    for value in (0.0, -1.0, float('nan'), 'slow', 1):
        ((accepted, reason),) = tell(max_linear_speed_m_s=value)
        assert not accepted
        assert reason
    assert (limits.max_linear_speed_m_s, node.parameter('max_linear_speed_m_s')) == (0.2, 0.2)


def test_parameters_of_a_policy_change_while_it_runs(walk):
    walker = walk('policy_server')
    results = set_parameters(walker, task=' stack ', min_speed_scaling=0.5, resume_after_override=True)
    assert all(result.successful for result in results)
    node = walker.node
    assert (node._task, node._arm.min_speed_scaling) == ('stack', 0.5)
    assert node._pause.resume_after_override
    assert node.parameter('min_speed_scaling') == 0.5
    assert not set_parameters(walker, min_speed_scaling=2.0)[0].successful


def test_parameters_of_a_recorder_change_or_keep_their_value(walk, tmp_path):
    walker = walk('recorder')
    (tmp_path / 'tasks.yaml').write_text('tasks: [{text: move the cube, count: 2}]')
    results = set_parameters(walker, tasks_file=str(tmp_path / 'tasks.yaml'), min_free_gb=1.0)
    assert all(result.successful for result in results)
    assert walker.node._settings.task_queue.next_task({}).task.text == 'move the cube'
    assert walker.node._session._settings.min_free_bytes == 1e9
    refused = set_parameters(walker, operator_feedback='whistle', quality_thresholds='/nowhere.yaml')
    assert not any(result.successful for result in refused)
    assert "'whistle' is not known" in refused[0].reason
    assert '/nowhere.yaml' in refused[1].reason
    assert walker.node.parameter('operator_feedback') == 'none'


@pytest.mark.parametrize('name', NODES)
def test_simulated_time_is_refused_where_it_makes_no_sense(walk, name):
    if name == 'converter':
        assert walk(name, use_sim_time=True).node.get_parameter('use_sim_time').value
        return
    with pytest.raises(GrootRosError, match=f'{name} stamps by the clock of this machine'):
        walk(name, use_sim_time=True)


def test_timers_run_while_simulated_time_stands_still(walk):
    walker = walk('converter', use_sim_time=True)
    ticks = []
    walker.node.create_timer(0.01, lambda: ticks.append(True))
    walker.spin_until(lambda: len(ticks) > 2)


def test_bags_of_a_conversion_that_failed_are_tried_again(walk, monkeypatch, tmp_path, embodiment):
    """With the next episode, and when the node is activated again."""
    walker = walk('converter')
    node = walker.node
    node._watching = converter.WatchSettings(
        tmp_path, tmp_path / 'set', embodiment, converter.ConversionOptions()
    )
    asked = []

    def convert(sources, *arguments):
        asked.append([source.name for source in sources])
        raise OSError(28, 'No space left on device')

    bags = [tmp_path / 'a']
    monkeypatch.setattr(converter, 'convert', convert)
    monkeypatch.setattr(converter, 'finished_bags', lambda folder: bags)

    def poll():
        node._poll_folder()
        if node._thread is not None:
            node._thread.join()
        node._follow()

    node.start()
    poll()
    poll()
    assert asked == [['a']]
    bags.append(tmp_path / 'b')
    poll()
    assert asked == [['a'], ['a', 'b']]
    node.trigger_deactivate()
    node.trigger_activate()
    poll()
    assert asked == [['a'], ['a', 'b'], ['a', 'b']]
