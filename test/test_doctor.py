# SPDX-License-Identifier: Apache-2.0
"""`groot-ros doctor` tells what is wrong with a machine; `groot-ros completion` knows every command."""

import json
import shutil
import socket
import subprocess
import tarfile

import pytest

from groot_ros.cli import health
from groot_ros.cli.completion import completion_script
from groot_ros.cli.doctor import shareable_settings
from groot_ros.cli.main import COMMANDS, main
from groot_ros.hardware.realtime import missing_rights


def test_each_check_of_this_machine_has_a_level_and_a_sentence(capsys, tmp_path):
    code = main(['doctor', '--episodes', str(tmp_path / 'none'), '--json', '-'])
    checks = json.loads(capsys.readouterr().out)
    assert {'python', 'files', 'ROS 2', 'DDS file', 'real-time rights', 'disk', 'port 5555'} <= {
        check['name'] for check in checks
    }
    assert code == any(check['level'] == 'fail' for check in checks)
    assert all(check['level'] in ('pass', 'warn', 'fail') and check['text'] for check in checks)


def test_an_old_python_fails():
    assert health.check_python((3, 10)).level == 'fail'


@pytest.mark.parametrize(
    ('max_priority', 'nice_limit', 'privileged', 'missing'),
    [
        (0, 0, False, 'real-time priority 30 or the nice value -15'),
        (29, 35, False, 'real-time priority 30:'),
        (30, 34, False, 'the nice value -15:'),
        (30, 35, False, ''),
        (-1, -1, False, ''),
        (0, 0, True, ''),
    ],
)
def test_rights_to_priorities_that_are_missing_are_named(max_priority, nice_limit, privileged, missing):
    problem = missing_rights(max_priority, nice_limit, privileged)
    assert missing in problem
    assert bool(problem) == bool(missing)
    assert health.check_realtime(problem).level == ('warn' if problem else 'pass')


def test_a_dds_file_that_does_not_exist_fails(tmp_path):
    name = 'FASTDDS_DEFAULT_PROFILES_FILE'
    found = health.check_dds_profile({name: str(tmp_path / 'none.xml')})
    assert (found.level, name in found.text) == ('fail', True)
    (tmp_path / 'mine.xml').touch()
    assert health.check_dds_profile({name: str(tmp_path / 'mine.xml')}).level == 'pass'


def test_ports_are_told_as_free_in_use_and_silent():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        port = server.getsockname()[1]
        assert health.check_robot_port('127.0.0.1', 'RTDE', port).level == 'fail'
        server.listen()
        assert health.check_port(port).level == 'warn'
        assert health.check_robot_port('127.0.0.1', 'RTDE', port).level == 'pass'
    assert health.check_port(port).level == 'pass'


def test_a_bundle_has_verdicts_and_settings_but_no_image_and_no_token(bags, tmp_path, monkeypatch):
    shutil.copytree(bags, tmp_path / 'episodes')
    (tmp_path / 'episodes/episode_000000/verdict.json').write_text('{}')
    (tmp_path / 'log').mkdir()
    (tmp_path / 'log/node.log').write_text('a line\n')
    monkeypatch.setenv('ROS_LOG_DIR', str(tmp_path / 'log'))
    monkeypatch.setenv('GROOT_ROS_API_TOKEN', 'dontshow')
    bundle = tmp_path / 'help.tar.gz'
    main(['doctor', '--quiet', '--episodes', str(tmp_path / 'episodes'), '--bundle', str(bundle)])
    with tarfile.open(bundle) as packed:
        contents = {member.name: packed.extractfile(member).read() for member in packed}
    assert {'groot_ros/doctor.json', 'groot_ros/packages.txt', 'groot_ros/log/node.log'} <= contents.keys()
    assert 'groot_ros/episode_000000/verdict.json' in contents
    assert not [name for name in contents if name.endswith('.mcap')]
    assert not [name for name, content in contents.items() if b'dontshow' in content]


def test_only_settings_of_ros_are_shared():
    shared = list(shareable_settings({'HOME': '/root', 'ROS_DOMAIN_ID': '3', 'GROOT_ROS_API_TOKEN': 'x'}))
    assert shared == ['ROS_DOMAIN_ID=3', 'GROOT_ROS_API_TOKEN=(set, not shown)']


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        (['in'], 'inspect'),
        (['convert', '--wor'], '--workers'),
        (['up', 'col'], 'collect'),
        (['embodiment', 'c'], 'check'),
    ],
)
def test_the_shell_completes_commands_and_options(words, expected, capsys):
    assert main(['completion', 'bash']) == 0
    script = capsys.readouterr().out
    line = f'COMP_WORDS=(groot-ros {" ".join(words)}); COMP_CWORD={len(words)}; _groot_ros'
    line += '; echo "${COMPREPLY[@]}"'
    done = subprocess.run(['bash', '-c', f'{script}\n{line}'], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected]


def test_the_completion_names_every_command():
    commands = {command.__name__.rsplit('.', 1)[1].replace('_', '-') for command in COMMANDS}
    from groot_ros.cli.main import parser

    choices = next(action.choices for action in parser()._actions if action.dest == 'command')
    assert commands == set(choices)
    assert all(f'      {name}) ' in completion_script(choices) for name in commands)
