# SPDX-License-Identifier: Apache-2.0
"""How the process of a node begins and ends: signals, exit codes, and what is printed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groot_ros.ros import run

TEMPLATE = Path(__file__).parents[1] / 'cmake' / 'executable.py.in'
NODE = """
import os, sys, threading, time
from rclpy.lifecycle import LifecycleNode
from groot_ros.errors import GrootRosError
from groot_ros.ros.lifecycle_node import GrootNode
from groot_ros.ros.run import run_node

class Slow(GrootNode):
    def __init__(self):
        super().__init__('slow', {})
        say('made')

    def activate(self):
        say('active')

    def deactivate(self):
        assert self.context.ok(), 'ROS is down: nothing can be published any more'
        say('deactivates')
        sys.stdin.readline()  # until the test says so; a signal does not end it

    def cleanup(self):
        say('closed')

def say(text):
    print(text, flush=True)

"""


class Process:
    """A process of a node, whose lines are read as they come."""

    def __init__(self, script: str, *arguments: str) -> None:
        command = [sys.executable, '-c', script, *arguments]
        pipes = dict.fromkeys(('stdin', 'stdout', 'stderr'), subprocess.PIPE)
        self.popen = subprocess.Popen(command, text=True, start_new_session=True, **pipes)

    def wait_for(self, line: str) -> None:
        while (text := self.popen.stdout.readline()) != f'{line}\n':
            assert text, self.popen.communicate()[1]

    def press(self) -> None:
        """Ctrl-C as launch gives it: to the group, and once more forwarded."""
        os.killpg(self.popen.pid, signal.SIGINT)
        self.popen.send_signal(signal.SIGINT)

    def go_on(self) -> tuple[int, str, str]:
        output, errors = self.popen.communicate('go on\n', timeout=60)
        return self.popen.returncode, output, errors


@pytest.fixture
def start():
    """Starts processes, and kills those that are left."""
    processes = []

    def start(script: str, *arguments: str) -> Process:
        processes.append(Process(script, *arguments))
        return processes[-1]

    yield start
    for process in processes:
        process.popen.kill()
        process.popen.wait()


@pytest.mark.parametrize('second', [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_cut_the_end_of_a_node_short(start, second):
    process = start(NODE + 'sys.exit(run_node(Slow))')
    process.wait_for('active')
    process.press()
    process.wait_for('deactivates')
    time.sleep(1.5 * run._SAME_PRESS_S)
    process.popen.send_signal(second)
    code, output, errors = process.go_on()
    assert (code, output, errors) == (0, 'closed\n', '')


def test_a_third_signal_ends_a_node_that_hangs(start):
    process = start(NODE + 'sys.exit(run_node(Slow))')
    process.wait_for('active')
    process.press()
    process.wait_for('deactivates')
    for _ in range(2):
        time.sleep(1.5 * run._SAME_PRESS_S)
        process.press()
    assert process.popen.wait(30) == 130
    assert process.popen.stderr.read() == ''


def test_a_signal_before_a_node_has_started_ends_it_without_opening_anything(start):
    script = (
        NODE
        + """
class Early(Slow):
    def __init__(self):
        super().__init__()
        os.kill(os.getpid(), 2)

sys.exit(run_node(Early))
"""
    )
    assert start(script).go_on() == (0, 'made\n', '')


@pytest.mark.parametrize(
    ('body', 'message'),
    [
        (
            "def cleanup(self): raise ZeroDivisionError('x')",
            'slow did not end in order: ZeroDivisionError: x.',
        ),
        ("def configure(self): raise GrootRosError('the cable is broken.')", 'the cable is broken.'),
        ("def configure(self): raise KeyError('x')", "configure of slow failed: KeyError: 'x'."),
        ("def __init__(self): raise KeyError('x')", "KeyError: 'x'."),
        ("def activate(self): self.fail('the end.'); super().activate()", 'the end.'),
    ],
)
def test_whatever_fails_is_one_sentence_and_exit_code_1(start, body, message):
    script = NODE + f'class Failing(Slow):\n    {body}\n\nsys.exit(run_node(Failing))'
    process = start(script)
    if 'cleanup' in body:
        process.wait_for('active')
        process.press()
    code, _, errors = process.go_on()
    assert (code, errors) == (1, f'error: {message}\n')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['/nowhere/slow.yaml'], 'The parameter file /nowhere/slow.yaml cannot be read: No such file'),
        (['/etc/hostname'], 'The parameter file /etc/hostname is no mapping'),
        (['-p', 'autostart:=true'], 'The option --params-file has no value'),
        ([], 'The option --params-file has no value'),
    ],
)
def test_a_parameter_file_that_cannot_be_used_is_named_in_one_sentence(start, arguments, message):
    process = start(NODE + 'sys.exit(run_node(Slow))', '--ros-args', '--params-file', *arguments)
    code, output, errors = process.go_on()
    assert (code, output) == (1, '')
    assert errors.startswith(f'error: {message}')
    assert errors.count('\n') == 1


def test_a_parameter_file_that_can_be_used_is_read(start, tmp_path):
    (tmp_path / 'slow.yaml').write_text('slow: {ros__parameters: {autostart: false}}')
    path = str(tmp_path / 'slow.yaml')
    process = start(NODE + 'sys.exit(run_node(Slow))', '--ros-args', '--params-file', path)
    process.wait_for('made')
    process.press()
    assert process.go_on() == (0, '', '')


def test_an_exception_in_an_unguarded_callback_or_a_thread_is_told_and_the_node_goes_on(start):
    script = (
        NODE
        + """
class Failing(Slow):
    def activate(self):
        threading.Thread(target=lambda: 1 / 0, name='camera').start()
        LifecycleNode.create_timer(self, 0.05, work)  # unguarded

    def on_fault(self, reason):
        say(reason)
        if 'a callback' in reason:
            self.finished = True

def work():
    raise KeyError('lost')

sys.exit(run_node(Failing))
"""
    )
    process = start(script)
    process.wait_for("the thread 'camera' failed: ZeroDivisionError: division by zero.")
    process.wait_for("a callback failed: KeyError: 'lost'.")
    code, _, errors = process.go_on()
    assert code == 0
    assert 'Traceback' not in errors


@pytest.mark.parametrize(
    ('module', 'code'),
    [
        ('import os; os.kill(os.getpid(), 2)\nimport nowhere', 130),
        ('import os\ndef main(): os.kill(os.getpid(), 2)', 130),
        ('def main(): return 3', 3),
    ],
)
def test_an_interrupt_during_the_imports_of_an_executable_shows_no_traceback(tmp_path, module, code):
    (tmp_path / 'made_up.py').write_text(module)
    text = TEMPLATE.read_text().replace('@EXECUTABLE_PYTHON@', sys.executable).replace('@MODULE@', 'made_up')
    (tmp_path / 'executable').write_text(text)
    done = subprocess.run(
        [sys.executable, tmp_path / 'executable'], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (code, '')


def test_signals_that_come_together_are_one(monkeypatch):
    cut = []
    monkeypatch.setattr(os, '_exit', cut.append)
    now_s = [0.0]
    stop = run.StopSignals(lambda: now_s[0])
    for at_s, wanted in ((0.0, []), (0.05, []), (0.2, []), (1.0, []), (1.1, []), (2.0, [130])):
        now_s[0] = at_s
        stop(signal.SIGINT, None)
        assert stop.wanted
        assert cut == wanted
