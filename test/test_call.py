# SPDX-License-Identifier: Apache-2.0
"""`groot-ros call` and `groot-ros status`, with a node that stands in for the cell."""

import json
import threading

import pytest
import rclpy
from groot_ros.msg import EpisodeStatus, RobotStatus
from groot_ros.srv import StartEpisode, StopEpisode
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import SetBool, Trigger

from groot_ros.cli import call as command
from groot_ros.cli.main import main
from groot_ros.ros import call
from groot_ros.ros.qos import STATUS_QOS


class Cell:
    """A node in a context of its own that notes requests and publishes both statuses."""

    def __init__(self) -> None:
        self.requests = []
        self.refusal = ''
        self._context = Context()
        rclpy.init(args=[], context=self._context)
        self._node = rclpy.create_node('cell', namespace='made_up', context=self._context)
        for kind, name in (
            (SetBool, 'ur5e_driver/enable'),
            (StartEpisode, 'recorder/start'),
            (StopEpisode, 'recorder/stop'),
            (Trigger, 'recorder/next_task'),
            (Trigger, 'recorder/skip_task'),
        ):
            self._node.create_service(kind, name, self._answer)
        arm = self._node.create_publisher(RobotStatus, 'robot_status', STATUS_QOS)
        arm.publish(RobotStatus(state=RobotStatus.STOPPED, reason='the policy was silent'))
        recorder = self._node.create_publisher(EpisodeStatus, 'episode_status', STATUS_QOS)
        recorder.publish(EpisodeStatus(state=EpisodeStatus.RECORDING, task='stack', rows=20, saved=3))
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def _answer(self, request, response):
        self.requests.append(request)
        response.success = not self.refusal
        response.message = self.refusal or 'done as asked'
        return response

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    made = Cell()
    yield made
    made.close()


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        (['enable'], SetBool.Request(data=True)),
        (['disable'], SetBool.Request(data=False)),
        (['start', '--task', 'stack'], StartEpisode.Request(task='stack')),
        (['stop'], StopEpisode.Request(succeeded=True)),
        (['next-task'], Trigger.Request()),
        (['skip-task'], Trigger.Request()),
        (['fail'], StopEpisode.Request(succeeded=False)),
    ],
)
def test_a_call_reaches_its_node_and_prints_the_answer(stand_in, capsys, words, expected):
    assert main(['call', *words, '--namespace', 'made_up']) == 0
    assert stand_in.requests == [expected]
    assert capsys.readouterr().out == 'done as asked\n'


def test_a_refusal_is_an_error_with_its_reason(stand_in, capsys):
    stand_in.refusal = 'an emergency stop is pressed'
    assert main(['call', 'enable', '--namespace', 'made_up']) == 1
    assert '/made_up/ur5e_driver/enable refused: an emergency stop is pressed' in capsys.readouterr().err


def test_the_status_names_states_and_reasons(stand_in, capsys):
    assert main(['status', '--namespace', 'made_up']) == 0
    assert capsys.readouterr().out.splitlines() == [
        'arm: STOPPED: the policy was silent',
        "recorder: RECORDING, 20 rows, 3 saved, task 'stack'",
    ]


def test_programs_get_status_and_answers_as_json(stand_in, capsys):
    assert main(['status', '--namespace', 'made_up', '--json', '-']) == 0
    assert json.loads(capsys.readouterr().out) == {
        'arm': {'state': 'STOPPED', 'source': '', 'reason': 'the policy was silent'},
        'recorder': {'state': 'RECORDING', 'rows': 20, 'saved': 3, 'task': 'stack', 'problems': []},
    }
    assert main(['call', 'enable', '--namespace', 'made_up', '--json', '-']) == 0
    assert json.loads(capsys.readouterr().out) == {'name': 'enable', 'answer': 'done as asked'}
    assert main(['call', 'enable', '--namespace', 'made_up', '--quiet']) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ('', '')


@pytest.mark.parametrize('words', [['call', 'enable'], ['status']])
def test_a_cell_that_does_not_run_is_told(capsys, words):
    assert main([*words, '--namespace', 'nowhere', '--timeout', '0.2']) == 1
    assert 'Nothing offers /nowhere/' in capsys.readouterr().err


def test_the_help_lists_every_call():
    assert list(command.CALLS) == list(call.CALLS)


@pytest.mark.parametrize(('words', 'printed'), [(['--json', '-'], True), (['--quiet'], False)])
def test_the_demo_gives_its_metrics_to_programs(monkeypatch, capsys, tmp_path, words, printed):
    def run_demo(output, episodes, host):
        print('==> cell up')
        (output / 'metrics.json').write_text('[{"name": "rows"}]')
        return 0

    monkeypatch.setattr('groot_ros.sim.nodes.demo.run_demo', run_demo)
    assert main(['demo', '--output', str(tmp_path), *words]) == 0
    captured = capsys.readouterr()
    assert captured.out == ('[\n  {\n    "name": "rows"\n  }\n]\n' if printed else '')
    assert ('==> cell up' in captured.err) == printed
