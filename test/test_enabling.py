# SPDX-License-Identifier: Apache-2.0
"""Who enables the arm: a person who is told how, or `groot-ros up collect --sim --enable` in simulation."""

import json
import math
import signal
import subprocess
import sys
from types import SimpleNamespace
from unittest import mock

import pytest

from groot_ros.bringup import enabling
from groot_ros.bringup.enabling import Enabling, check_enable
from groot_ros.bringup.profiles import PROFILES, Options
from groot_ros.cli.main import main
from groot_ros.control.command_gate import GateState
from groot_ros.errors import GrootRosError
from groot_ros.nodes import ur5e_driver
from groot_ros.resources import share_directory


@pytest.mark.parametrize('robot_ip', [Options.robot_ip, '127.0.0.1', '127.9.0.1', '::1', 'localhost'])
def test_a_simulated_arm_on_this_machine_may_be_enabled_without_a_person(robot_ip):
    check_enable('collect', Options(sim=True, robot_ip=robot_ip))


@pytest.mark.parametrize(
    ('profile', 'options'),
    [
        ('collect', Options()),
        ('collect', Options(robot_ip='127.0.0.1')),
        ('collect', Options(sim=True, robot_ip='192.168.1.7')),
        ('collect', Options(sim=True, robot_ip='robot')),
        *((profile, Options(sim=True)) for profile in PROFILES if profile != 'collect'),
    ],
)
def test_any_other_arm_needs_a_person(profile, options):
    with pytest.raises(GrootRosError, match='on a real robot a person'):
        check_enable(profile, options)


def test_up_refuses_to_enable_a_real_arm_before_the_first_process_starts(monkeypatch, capsys):
    monkeypatch.setattr(subprocess, 'Popen', mock.Mock(side_effect=AssertionError('started')))
    assert main(['up', 'collect', '--enable']) == 1
    assert 'error: The option enable is for `groot-ros up collect --sim`' in capsys.readouterr().err


class Calls:
    """Stands in for the processes of `groot-ros call enable`, in made-up time."""

    def __init__(self, monkeypatch) -> None:
        self.now_s = 50.0
        self.started = []
        self.killed = 0
        monkeypatch.setattr(enabling, 'time', SimpleNamespace(monotonic=lambda: self.now_s))
        monkeypatch.setattr(subprocess, 'Popen', self._open)

    def _open(self, command, **_):
        call = SimpleNamespace(command=command, returncode=None)
        call.poll = lambda: call.returncode
        call.communicate = lambda: ('', 'error: refused: no fresh data from the robot')
        call.kill = self._kill
        self.started.append(call)
        return call

    def _kill(self):
        self.killed += 1

    def end(self, returncode):
        self.started[-1].returncode = returncode


def test_enabling_is_tried_until_the_driver_agrees(monkeypatch):
    calls = Calls(monkeypatch)
    tried = Enabling(Options(sim=True, namespace='cell_1'), {})
    for returncode in (1, 1, 0):
        for _ in range(5):
            tried.poll()
        calls.end(returncode)
        tried.poll()
        calls.now_s += 1.0
    for _ in range(5):
        tried.poll()
    assert tried.done
    assert len(calls.started) == 3
    assert calls.started[0].command[3:] == ['call', 'enable', '--timeout=30', '--namespace=cell_1']
    tried.close()
    assert calls.killed == 0


def test_enabling_gives_up_with_the_reason_and_its_end_ends_the_call(monkeypatch):
    calls = Calls(monkeypatch)
    tried = Enabling(Options(sim=True), {})
    tried.poll()
    calls.now_s += 121.0
    calls.end(1)
    with pytest.raises(GrootRosError, match=r'could not be enabled: .*no fresh data'):
        tried.poll()
    calls.now_s += 1.0
    tried.poll()
    tried.close()
    assert calls.killed == 1


def waiting_driver(state=GateState.DISABLED, active=True, compared=True):
    node = mock.Mock(active=active, _compared=compared, _told_s=-math.inf)
    node._session.gate.state = state
    node.get_fully_qualified_name.return_value = '/cell_1/ur5e_driver'
    node.get_namespace.return_value = '/cell_1'
    return node


def told(node) -> list[str]:
    return [call.args[0] for call in node.get_logger().info.call_args_list]


def test_the_driver_tells_what_it_waits_for_and_again_each_minute(monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: clock.now_s, now_s=10.0)
    monkeypatch.setattr(ur5e_driver, 'time', clock)
    node = waiting_driver()
    for clock.now_s in (10.0, 10.05, 69.0, 70.0, 71.0):
        ur5e_driver.Ur5eDriver._say_what_is_awaited(node)
    assert len(told(node)) == 2
    assert told(node)[0].startswith(
        'waiting for cell_1/ur5e_driver/enable: groot-ros call enable --namespace /cell_1 (or: ros2 service'
    )
    node._session.gate.state = GateState.ENABLED
    ur5e_driver.Ur5eDriver._say_what_is_awaited(node)
    node._session.gate.state = GateState.DISABLED
    ur5e_driver.Ur5eDriver._say_what_is_awaited(node)
    assert len(told(node)) == 3


@pytest.mark.parametrize(
    'wrong',
    [{'state': GateState.ENABLED}, {'state': GateState.STOPPED}, {'active': False}, {'compared': False}],
)
def test_a_driver_that_waits_for_nobody_tells_nothing(wrong):
    node = waiting_driver(**wrong)
    ur5e_driver.Ur5eDriver._say_what_is_awaited(node)
    assert told(node) == []


@pytest.mark.long
@pytest.mark.cell
def test_a_simulated_cell_that_enables_itself_records_without_a_person(loopback, tmp_path, eventually):
    options = ['--sim', '--enable', '--robot-ip', loopback, '--episodes', '1', '--output-dir', str(tmp_path)]
    patient = ['--params-file', str(share_directory() / 'config' / 'demo.yaml')]
    command = [sys.executable, '-m', 'groot_ros.cli', 'up', 'collect', *options, *patient]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    index = tmp_path / 'episodes.json'

    def recorded():
        return index.is_file() and json.loads(index.read_text())['episodes']

    try:
        for _ in range(4):
            if eventually(recorded, 60):
                break
            # The arm may have stopped on a computer that was held up.
            assert running.poll() is None, running.communicate()[1]
            subprocess.run([*command[:3], 'call', 'enable', '--timeout', '30'], check=False)
        assert recorded()
    finally:
        running.send_signal(signal.SIGINT)
        _, text = running.communicate(timeout=60)
    assert 'waiting for ur5e_driver/enable: groot-ros call enable' in text
    assert 'Traceback' not in text
