# SPDX-License-Identifier: Apache-2.0
"""`groot-ros up`: one sentence for what goes wrong, an orderly end, and nothing left running."""

import errno
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from groot_ros.bringup import supervisor
from groot_ros.bringup.profiles import PROFILES, Options, Process, build_processes, discovery_environment
from groot_ros.bringup.restarts import Restarts
from groot_ros.bringup.supervisor import ProcessGroup, make_command
from groot_ros.cli.main import COMMANDS, main
from groot_ros.errors import GrootRosError, explain_error
from groot_ros.inference import checkpoint_files
from groot_ros.inference.protocol import TOKEN_VARIABLE
from groot_ros.resources import share_directory
from groot_ros.small_policy.spec import SPEC_FILE
from groot_ros.supervised_process import find_program

STARTED: list[subprocess.Popen] = []


def start_up(*arguments: str) -> subprocess.Popen:
    STARTED.append(
        subprocess.Popen(
            [sys.executable, '-m', 'groot_ros.cli', 'up', *arguments], stderr=subprocess.PIPE, text=True
        )
    )
    return STARTED[-1]


@pytest.fixture(autouse=True)
def _nothing_is_left():
    """A test that fails stops its cell, so that the next tests have the machine to themselves."""
    yield
    while STARTED:
        running = STARTED.pop()
        if running.poll() is None:
            running.terminate()
            running.communicate(timeout=60)


def processes_with(word: str) -> list[str]:
    """Command lines of running processes that mention a word, this one left out."""
    found = []
    for entry in Path('/proc').glob('[0-9]*'):
        try:
            line = (entry / 'cmdline').read_bytes().replace(b'\0', b' ').decode('utf-8', 'replace')
        except OSError:
            continue
        if word in line and int(entry.name) != os.getpid():
            found.append(line)
    return found


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=0.2).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_everything_in_order(number, loopback, tmp_path, eventually):
    running = start_up('record', '--sim', '--robot-ip', loopback, '--output-dir', str(tmp_path))
    assert eventually(lambda: (tmp_path / '.recorder.lock').exists(), 60)
    running.send_signal(number)
    _, text = running.communicate(timeout=60)
    assert running.returncode == 0
    stopped = [line.split()[-1] for line in text.splitlines() if '] stopping' in line]
    assert stopped == ['recorder', 'camera_driver', 'robotiq_driver', 'ur5e_driver', 'sim_cell']
    assert 'Traceback' not in text
    assert eventually(lambda: not processes_with(loopback))


def test_a_killed_cell_stops_the_others_and_is_named(loopback, tmp_path, eventually):
    running = start_up('drivers', '--sim', '--robot-ip', loopback)
    assert eventually(lambda: answers(loopback, 40000), 60)
    assert eventually(lambda: bool(processes_with(f'robot_ip:="{loopback}"')))
    cell = next(int(e.name) for e in Path('/proc').glob('[0-9]*') if _is_cell(e, loopback))
    os.kill(cell, signal.SIGKILL)
    _, text = running.communicate(timeout=60)
    assert running.returncode == 1
    assert 'error: sim_cell was killed by SIGKILL' in text
    assert eventually(lambda: not processes_with(loopback))


def _is_cell(entry: Path, host: str) -> bool:
    try:
        return b'groot_ros.nodes.sim_cell\0--host\0' + host.encode() in (entry / 'cmdline').read_bytes()
    except OSError:
        return False


def test_a_port_in_use_is_named(loopback):
    with socket.create_server((loopback, 30004)):
        running = start_up('sim', '--sim', '--robot-ip', loopback)
        _, text = running.communicate(timeout=60)
    assert running.returncode == 1
    assert f'RTDE cannot listen on {loopback}:30004' in text
    assert '--host 127.0.0.2' in text
    assert 'Traceback' not in text


def test_a_machine_that_cannot_render_reports_what_to_install(loopback):
    environment = {
        **os.environ,
        'MUJOCO_GL': 'egl',
        '__EGL_VENDOR_LIBRARY_FILENAMES': '/nonexistent',
        'PYOPENGL_PLATFORM': 'egl',
    }
    command = [sys.executable, '-m', 'groot_ros.nodes.sim_cell', '--host', loopback]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert 'error: The simulated camera cannot render' in done.stderr
    assert 'libegl1' in done.stderr


@pytest.mark.parametrize('profile', PROFILES)
def test_a_simulated_profile_commands_nothing_outside_loopback(profile, dataset):
    options = Options(sim=True, dataset=str(dataset))
    words = [word for process in build_processes(profile, options) for word in make_command(process, options)]
    assert not [word for word in words if '192.168' in word]


@pytest.mark.parametrize('profile', PROFILES)
def test_every_profile_can_serve_the_page_and_does_not_by_itself(profile, dataset):
    options = Options(sim=True, dataset=str(dataset), output_dir='here')
    *without, page = build_processes(profile, replace(options, page=True, page_port=9000))
    assert without == build_processes(profile, options)
    assert page.executable == 'operator_page'
    assert page.restarts and page.optional
    assert (page.parameters['page_host'], page.parameters['page_port']) == ('127.0.0.1', 9000)
    assert page.parameters['episodes_dir'] == 'here'


def test_profiles_say_which_options_are_missing():
    with pytest.raises(GrootRosError, match='dataset'):
        build_processes('deploy', Options(sim=True))
    with pytest.raises(GrootRosError, match='--sim'):
        build_processes('collect', Options(teleop='scripted'))
    with pytest.raises(GrootRosError, match='terminal of its own'):
        build_processes('collect', Options(teleop='keyboard'))


def test_each_camera_of_the_embodiment_has_a_driver_of_its_own(tmp_path):
    text = (share_directory() / 'config/embodiments/ur5e_robotiq_zed.yaml').read_text()
    camera = '  - name: {0}_camera\n    topic: {0}/image\n    width: 640\n    height: 480\n'
    text = text.replace(
        camera.format('zed'),
        camera.format('zed')
        + camera.format('wrist')
        + camera.format('side/left')
        + camera.format('side/right'),
    )
    (tmp_path / 'three.yaml').write_text(text.replace('name: side/', 'name: side_'))
    drivers = [
        p
        for p in build_processes('drivers', Options(embodiment=str(tmp_path / 'three.yaml')))
        if p.executable == 'camera_driver'
    ]
    assert [p.node_name for p in drivers] == ['zed_driver', 'wrist_driver', 'side_driver']
    assert drivers[2].parameters['eye'] == 'both'


def test_each_driver_of_the_simulated_cell_shows_its_own_camera():
    options = Options(sim=True, embodiment='ur5e_robotiq_zed_wrist')
    drivers = [p for p in build_processes('drivers', options) if p.executable == 'camera_driver']
    assert [p.parameters['sim_camera'] for p in drivers] == ['zed', 'wrist']
    assert all(p.parameters['sim_width'] == 320 and p.parameters['sim_height'] == 240 for p in drivers)


def test_a_namespace_reaches_every_node():
    options = Options(sim=True, namespace='cell1')
    for process in build_processes('collect', options):
        assert '__ns:=/cell1' in make_command(process, options)


RANGE = 'ROS_AUTOMATIC_DISCOVERY_RANGE'


@pytest.mark.parametrize(
    ('option', 'environment', 'expected'),
    [
        ('', {}, 'LOCALHOST'),
        ('', {RANGE: ''}, 'LOCALHOST'),
        ('', {RANGE: 'SUBNET'}, 'SUBNET'),
        ('subnet', {}, 'SUBNET'),
        ('localhost', {RANGE: 'SUBNET'}, 'LOCALHOST'),
        ('System_Default', {}, 'SYSTEM_DEFAULT'),
    ],
)
def test_nodes_are_found_on_this_machine_only_unless_the_user_says_otherwise(option, environment, expected):
    assert discovery_environment(Options(discovery_range=option), environment) == {RANGE: expected}


def test_an_unknown_discovery_range_is_named_with_the_known_ones():
    with pytest.raises(GrootRosError, match=r"'lan'.*localhost, subnet, system_default, off"):
        discovery_environment(Options(discovery_range='lan'))


class Ended:
    """A process that has ended, as the supervisor sees it."""

    pid = 2**30

    def poll(self):
        return 0

    def wait(self, timeout_s):
        return 0


def started_environments(monkeypatch, options):
    """The environment that the supervisor gives to a process."""
    seen = []

    def popen(command, env, **_):
        seen.append(env)
        return Ended()

    monkeypatch.setattr(subprocess, 'Popen', popen)
    group = ProcessGroup('sim', options, quiet=True)
    group.start(Process('sim_cell'))
    group.stop()
    return seen


class Cell:
    """A group of made-up processes in made-up time. `popens` are those that were started, in their order."""

    def __init__(self, monkeypatch, **options) -> None:
        self.now_s = 100.0
        self.popens = []
        monkeypatch.setattr(supervisor, 'time', SimpleNamespace(monotonic=lambda: self.now_s))
        monkeypatch.setattr(subprocess, 'Popen', self._open)
        self.group = ProcessGroup('drivers', Options(**options))
        for process in build_processes('drivers', self.group.options):
            self.group.start(process)

    def _open(self, command, **_):
        popen = SimpleNamespace(command=command, code=None, pid=2**30)
        popen.poll = lambda: popen.code
        self.popens.append(popen)
        return popen

    def end(self, executable, code=-9) -> None:
        found = [popen for popen in self.popens if f'groot_ros.nodes.{executable}' in popen.command]
        found[-1].code = code

    def pass_time(self, seconds) -> int:
        """Lets time pass in steps of 0.5 s; returns how many processes were started."""
        before = len(self.popens)
        for _ in range(int(2 * seconds)):
            self.now_s += 0.5
            self.group.check()
        return len(self.popens) - before


@pytest.mark.parametrize('executable', ['camera_driver', 'robotiq_driver'])
def test_a_camera_or_gripper_that_dies_is_started_again_and_told_once(executable, monkeypatch, capsys):
    cell = Cell(monkeypatch)
    assert cell.pass_time(60) == 0
    cell.end(executable)
    capsys.readouterr()
    cell.group.check()
    assert cell.pass_time(0.5) == 0
    assert cell.pass_time(60) == 1
    assert f'groot_ros.nodes.{executable}' in cell.popens[-1].command
    name = 'zed_driver' if executable == 'camera_driver' else executable
    assert capsys.readouterr().err.splitlines() == [
        f'[groot-ros] {name} was killed by SIGKILL: it is started again in 1 s, the others go on',
        f'[groot-ros] starting {name} again',
    ]


def test_a_camera_that_goes_on_dying_is_given_up_and_the_cell_goes_on(monkeypatch, capsys):
    cell = Cell(monkeypatch)
    cell.pass_time(60)
    starts = 0
    for _ in range(10):
        cell.end('camera_driver', 1)
        starts += cell.pass_time(20)
    assert starts == 6
    assert capsys.readouterr().err.count('too often') == 1


@pytest.mark.parametrize('executable', ['camera_driver', 'ur5e_driver'])
def test_a_camera_that_cannot_start_ends_the_cell_and_so_does_the_arm(executable, monkeypatch):
    cell = Cell(monkeypatch)
    cell.end(executable, 1)
    with pytest.raises(GrootRosError, match='ended with exit code 1'):
        cell.group.check()


def test_the_page_never_ends_the_cell_not_even_before_it_has_worked(monkeypatch, capsys):
    cell = Cell(monkeypatch, page=True)
    starts = 0
    for _ in range(10):
        cell.end('operator_page', 1)
        starts += cell.pass_time(20)
    assert starts == 6
    assert 'the cell goes on without it' in capsys.readouterr().err


def test_the_arms_driver_is_never_started_again(monkeypatch):
    cell = Cell(monkeypatch)
    cell.pass_time(60)
    cell.end('ur5e_driver')
    with pytest.raises(GrootRosError, match='ur5e_driver was killed by SIGKILL'):
        cell.group.check()


def test_the_delay_before_a_restart_doubles_and_a_long_run_sets_it_back():
    restarts = Restarts()
    assert [restarts.delay_after(ran_s) for ran_s in (10, 5, 5, 5, 5)] == [1, 2, 4, 8, 16]
    assert restarts.delay_after(29.9) == 16
    assert restarts.delay_after(30) == 1


def test_a_process_that_never_worked_is_not_started_again():
    assert Restarts().delay_after(9.9) is None


def test_up_gives_the_discovery_range_to_every_process(monkeypatch):
    monkeypatch.delenv(RANGE)
    assert started_environments(monkeypatch, Options())[0][RANGE] == 'LOCALHOST'
    assert started_environments(monkeypatch, Options(discovery_range='subnet'))[0][RANGE] == 'SUBNET'
    assert RANGE not in os.environ


def launch_stubs():
    """Stands in for the packages launch and launch_ros, which the wheels of ROS 2 do not have."""
    record = SimpleNamespace

    def argument(name, **content):
        return record(name=name, **content)

    def configuration(name):
        return record(perform=lambda context: context[name])

    return {
        'launch': record(Action=object, LaunchContext=dict, LaunchDescription=list),
        'launch.actions': record(
            DeclareLaunchArgument=argument,
            LogInfo=record,
            OpaqueFunction=lambda function: function,
            SetEnvironmentVariable=lambda name, value: (name, value),
            Shutdown=record,
            TimerAction=record,
        ),
        'launch.substitutions': record(LaunchConfiguration=configuration),
        'launch_ros.actions': record(Node=record),
    }


@pytest.fixture
def describe(monkeypatch):
    """The function that makes a launch description, with the stand-ins for the package launch."""
    for name, module in launch_stubs().items():
        monkeypatch.setitem(sys.modules, name, module)
    name = 'groot_ros.ros.launch_description'
    monkeypatch.setitem(sys.modules, name, None)  # so that the import with the stubs is forgotten again
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.delenv(RANGE, raising=False)
    from groot_ros.ros.launch_description import describe

    return describe


@pytest.mark.parametrize(('chosen', 'expected'), [('', 'LOCALHOST'), ('subnet', 'SUBNET')])
def test_launch_files_set_the_discovery_range_before_the_first_node(describe, chosen, expected):
    *arguments, add_nodes = describe('drivers')
    texts = {argument.name: argument.default_value for argument in arguments}
    actions = add_nodes(texts | {'discovery_range': chosen})
    assert actions[0] == (RANGE, expected)
    assert [node.executable for node in actions[1:]] == ['ur5e_driver', 'robotiq_driver', 'camera_driver']


def test_a_node_that_fails_ends_a_launch_with_an_error(describe):
    """launch catches the exception, stops the other processes and returns 1."""
    *arguments, add_nodes = describe('drivers')
    node = add_nodes({argument.name: argument.default_value for argument in arguments})[1]
    running = SimpleNamespace(is_shutdown=False)
    ends = SimpleNamespace(is_shutdown=True)
    with pytest.raises(GrootRosError, match='ur5e_driver ended with exit code 1'):
        node.on_exit(SimpleNamespace(returncode=1), running)
    assert node.on_exit(SimpleNamespace(returncode=0), running).reason == 'ur5e_driver ended'
    assert node.on_exit(SimpleNamespace(returncode=-9), ends).reason == 'ur5e_driver ended'


class Launched:
    """The nodes of a launch in made-up time. `end` returns what launch is told to do next."""

    def __init__(self, describe, monkeypatch, profile, **changes) -> None:
        from groot_ros.ros import launch_description

        self.now_s = 100.0
        clock = SimpleNamespace(monotonic=lambda: self.now_s)
        monkeypatch.setattr(launch_description, 'time', clock)
        *arguments, add_nodes = describe(profile)
        actions = add_nodes({argument.name: argument.default_value for argument in arguments} | changes)
        self.nodes = {node.executable: node for node in actions[1:]}

    def end(self, executable, ran_s, returncode=-9, ending=False):
        self.now_s += ran_s
        event = SimpleNamespace(returncode=returncode)
        return self.nodes[executable].on_exit(event, SimpleNamespace(is_shutdown=ending))

    def start_again(self, executable, timer):
        (start,) = timer.actions
        self.now_s += timer.period
        (self.nodes[executable],) = start(None)


@pytest.mark.parametrize('executable', ['camera_driver', 'robotiq_driver'])
def test_a_launch_starts_cameras_and_gripper_again_with_a_delay_that_grows_to_a_limit(
    describe, monkeypatch, executable
):
    cell = Launched(describe, monkeypatch, 'record')
    first = cell.nodes[executable]
    delays = []
    for ran_s in (60.0, 1.0, 1.0, 1.0, 1.0, 1.0):
        told, timer = cell.end(executable, ran_s)
        delays.append(timer.period)
        assert 'was killed by SIGKILL: it is started again in' in told.msg
        cell.start_again(executable, timer)
    assert delays == [1, 2, 4, 8, 16, 16]
    assert cell.nodes[executable].parameters == first.parameters
    (told,) = cell.end(executable, 1.0)
    assert 'too often and is not started again: the cell goes on' in told.msg


@pytest.mark.parametrize('executable', ['camera_driver', 'robotiq_driver'])
def test_a_camera_or_gripper_that_cannot_start_ends_a_launch(describe, monkeypatch, executable):
    cell = Launched(describe, monkeypatch, 'record')
    with pytest.raises(GrootRosError, match='ended with exit code 1: see its messages'):
        cell.end(executable, 3.0, returncode=1)


def test_a_page_that_cannot_start_never_ends_a_launch(describe, monkeypatch):
    cell = Launched(describe, monkeypatch, 'record', page='true')
    for _ in range(6):
        _, timer = cell.end('operator_page', 1.0, returncode=1)
        cell.start_again('operator_page', timer)
    (told,) = cell.end('operator_page', 1.0, returncode=1)
    assert 'the cell goes on without it' in told.msg


def test_a_launch_that_ends_starts_nothing_again(describe, monkeypatch):
    cell = Launched(describe, monkeypatch, 'record')
    assert cell.end('camera_driver', 60.0, ending=True) == []


def test_a_launch_ends_with_any_other_node(describe, monkeypatch):
    cell = Launched(describe, monkeypatch, 'record')
    for executable in ('ur5e_driver', 'recorder'):
        assert cell.end(executable, 60.0, returncode=0).reason == f'{executable} ended'


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (
            Options(params_file='/nowhere/cell.yaml'),
            'The parameter file /nowhere/cell.yaml cannot be read: No such',
        ),
        (Options(camera='skd'), "camera 'skd' is not known.*nearest is sdk"),
        (Options(policy='gro0t'), "policy 'gro0t' is not known.*nearest is gr00t"),
        (Options(teleop='jooy'), "no teleoperation device 'jooy'"),
        (Options(episode=-1), 'The option episode is -1: give at least 0'),
        (Options(episodes=0), 'The option episodes is 0: give at least 1'),
        (Options(policy_port=70_000), 'The option policy_port is 70000: give at most 65535'),
        (Options(policy_gr00t_version='1.7'), "policy_gr00t_version '1.7' is not known.*nearest is n1.7"),
        (Options(teleop_map='keybord'), "no teleop map 'keybord'.*nearest is keyboard"),
        (Options(discovery_range='subnt'), "no discovery range 'subnt'.*nearest is subnet"),
        (
            Options(embodiment='ur5e_robotiq'),
            'embodiment .* is not known.*nearest is ur5e_robotiq_zed',
        ),
        (Options(namespace='cell-1'), "The option namespace is 'cell-1': give letters"),
        (Options(namespace='cell__1'), "The option namespace is 'cell__1'"),
        (Options(tf_prefix='left arm'), "The option tf_prefix is 'left arm'"),
        (Options(robot_ip='192.168.1.100 '), "The option robot_ip is '192.168.1.100 '"),
        (Options(policy_host=''), "The option policy_host is '': give an address"),
        (Options(truth='/nowhere/truth.npz'), 'The option truth is .* the folder /nowhere does not exist'),
        (Options(output_dir='/etc/passwd/episodes'), 'output_dir is .* and /etc/passwd is a file'),
        (Options(checkpoint='/nowhere/run'), 'The option checkpoint is /nowhere/run, which does not exist'),
        (Options(policy_python='/nowhere/python'), 'policy_python is /nowhere/python, which does not exist'),
        (Options(policy_python='/etc/passwd'), 'is /etc/passwd, which is a file that cannot be executed'),
    ],
)
@pytest.mark.parametrize('profile', PROFILES)
def test_every_option_is_checked_before_the_first_process_starts(profile, options, text):
    with pytest.raises(GrootRosError, match=text):
        build_processes(profile, options)


def test_an_option_with_a_path_names_what_is_there_and_the_nearest(tmp_path, dataset):
    near = dataset.parent / f'{dataset.name}s'
    for profile, options in (('deploy', {}), ('collect', {'shadow': True, 'sim': True})):
        with pytest.raises(GrootRosError, match='The option dataset is /nowhere, which does not exist'):
            build_processes(profile, Options(dataset='/nowhere', **options))
    with pytest.raises(GrootRosError, match=f'dataset is {near}, which does not exist; the nearest is'):
        build_processes('deploy', Options(dataset=str(near)))
    with pytest.raises(GrootRosError, match=r'checkpoint is .*, which is a LeRobot dataset v2.1: give'):
        build_processes('deploy', Options(policy='gr00t', checkpoint=str(dataset)))
    with pytest.raises(GrootRosError, match=r'The option episode is 99, and .* has the episodes 0 to \d'):
        build_processes('deploy', Options(dataset=str(dataset), episode=99))


def write_checkpoint(folder, **files):
    folder.mkdir()
    for name, text in files.items():
        (folder / f'{name}.json').write_text(text)
    return str(folder)


def test_a_checkpoint_of_another_backend_is_named_with_the_right_policy(tmp_path):
    lerobot = write_checkpoint(tmp_path / 'act', config='{"type": "act", "input_features": {}}')
    gr00t = write_checkpoint(tmp_path / 'n17', processor_config='{}', config='{"type": 3}')
    small = write_checkpoint(tmp_path / 'small', small_policy='{}')
    own = {'lerobot': lerobot, 'gr00t': gr00t, 'small': small}
    for policy, checkpoint in own.items():
        build_processes('deploy', Options(policy=policy, checkpoint=checkpoint, policy_python=sys.executable))
        for backend, other in own.items():
            if backend != policy:
                with pytest.raises(GrootRosError, match=f'which is for the policy {backend}, and the option'):
                    build_processes('deploy', Options(policy=policy, checkpoint=other))
    broken = write_checkpoint(tmp_path / 'broken', config='[')
    with pytest.raises(GrootRosError, match=r'config\.json cannot be read'):
        build_processes('deploy', Options(policy='gr00t', checkpoint=broken))


def test_the_file_by_which_a_small_policy_is_recognised_is_its_spec():
    assert checkpoint_files._SMALL_SPEC_FILE == SPEC_FILE


def test_a_policy_python_may_be_a_name_or_lie_in_the_home_folder(tmp_path, monkeypatch):
    (tmp_path / 'python').symlink_to(sys.executable)
    monkeypatch.setenv('HOME', str(tmp_path))
    assert find_program('~/python') == str(tmp_path / 'python')
    for python in ('~/python', 'python3', sys.executable):
        build_processes('sim', Options(policy_python=python))


@pytest.mark.parametrize('task', ['say "hi"', 'a \\n b', 'größer', "it's: {a}", 'true', ''])
def test_a_text_reaches_its_node_as_it_is(task):
    options = Options(sim=True, policy='hold', task=task)
    words = make_command(build_processes('deploy', options)[-1], options)
    (word,) = [word for word in words if word.startswith('task:=')]
    assert yaml.safe_load(word.removeprefix('task:=')) == task


@pytest.mark.parametrize('content', ['', '- a', 'word'])
def test_a_parameter_file_that_is_no_mapping_is_named(tmp_path, content):
    path = tmp_path / 'cell.yaml'
    path.write_text(content)
    with pytest.raises(GrootRosError, match=r'The parameter file .*cell\.yaml is no mapping'):
        build_processes('sim', Options(params_file=str(path)))


def launch_texts(arguments, **chosen):
    return {argument.name: argument.default_value for argument in arguments} | chosen


@pytest.mark.parametrize('text', ['true', 'True ', '1', ' yes', 'ON'])
def test_a_launch_reads_every_way_to_write_true(describe, text):
    *arguments, add_nodes = describe('drivers')
    nodes = add_nodes(launch_texts(arguments, sim=text))[1:]
    assert nodes[0].executable == 'sim_cell'


@pytest.mark.parametrize('text', ['false', 'False', '0', 'no ', 'off'])
def test_a_launch_reads_every_way_to_write_false(describe, text):
    *arguments, add_nodes = describe('drivers')
    nodes = add_nodes(launch_texts(arguments, sim=text))[1:]
    assert nodes[0].executable == 'ur5e_driver'


@pytest.mark.parametrize(('name', 'text'), [('sim', 'ture'), ('sim', ''), ('episode', 'x')])
def test_a_launch_names_the_argument_that_it_cannot_read(describe, name, text):
    *arguments, add_nodes = describe('drivers')
    with pytest.raises(GrootRosError, match=f'{name}:={text} is n'):
        add_nodes(launch_texts(arguments, **{name: text}))


def test_a_launch_starts_the_drivers_when_the_simulated_cell_answers(describe, monkeypatch):
    """Drivers that start before the cell warned that a cable is loose."""
    from groot_ros.ros import launch_description

    answers = iter([False, True])
    monkeypatch.setattr(launch_description, 'accepts_connections', lambda address: next(answers))
    *arguments, add_nodes = describe('drivers')
    _, cell, look = add_nodes(launch_texts(arguments, sim='true'))
    assert cell.executable == 'sim_cell'
    (timer,) = look(None)
    (look_again,) = timer.actions
    nodes = look_again(None)
    assert [node.executable for node in nodes] == ['ur5e_driver', 'robotiq_driver', 'camera_driver']


@pytest.mark.parametrize('command', ['', *(module.__name__.split('.')[-1] for module in COMMANDS)])
def test_help_explains(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command.replace('_', '-').split(), '--help'])
    assert ended.value.code == 0
    assert 'usage: groot-ros' in capsys.readouterr().out


def test_errors_are_one_sentence_and_exit_code_1(tmp_path, capsys):
    assert main(['convert', str(tmp_path / 'none'), '--output', str(tmp_path / 'set')]) == 1
    assert main(['validate', str(tmp_path)]) == 1
    assert main(['recover', str(tmp_path / 'none')]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith('error: ') for line in lines)


@pytest.mark.parametrize('arguments', [['up', 'sim', '--sim'], ['demo']])
def test_a_workstation_without_ros_reports_that(arguments, monkeypatch, capsys):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert main(arguments) == 1
    assert 'needs ROS 2' in capsys.readouterr().err


def test_validate_writes_its_findings_as_json(dataset, tmp_path, capsys):
    import json

    assert main(['validate', str(dataset), '--json', str(tmp_path / 'findings.json')]) == 0
    assert json.loads((tmp_path / 'findings.json').read_text())['rows'] == 58
    (dataset / 'meta/stats.json').unlink()
    assert main(['validate', str(dataset)]) == 1
    assert 'stats.json' in capsys.readouterr().out


@pytest.mark.parametrize('profile', PROFILES)
def test_each_profile_has_a_launch_file_of_its_name(profile):
    assert f"describe('{profile}'" in (share_directory() / f'launch/{profile}.launch.py').read_text()


@pytest.mark.parametrize(
    ('error', 'text'),
    [
        (OSError(errno.ENOSPC, 'No space left on device'), 'The disk is full. Free some space'),
        (PermissionError(errno.EACCES, 'Permission denied', '/x'), '/x: permission denied. Change'),
        (IsADirectoryError(errno.EISDIR, 'Is a directory', '/x'), '/x: this is a folder'),
        (OSError(errno.EIO, 'Input/output error', '/x'), '/x: Input/output error.'),
        (OSError('something else'), 'Something else.'),
    ],
)
def test_an_error_of_the_system_is_explained_by_its_number(error, text):
    assert explain_error(error).startswith(text)


def test_the_help_of_serve_names_the_variable_of_the_token(capsys):
    with pytest.raises(SystemExit):
        main(['serve', '--help'])
    assert TOKEN_VARIABLE in capsys.readouterr().out
