# SPDX-License-Identifier: Apache-2.0
"""Typical mistakes of a newcomer: each is told in one sentence, with what is right or the nearest name."""

import json
import shutil
import socket

import pytest

from groot_ros.cli.main import main
from groot_ros.cli.output import colour_levels

# What is typed after groot-ros, and parts of the sentence that answers.
MISTAKES = [
    # A word that is nearly right, or missing.
    ('', 'the following arguments are required: COMMAND'),
    ('inspcet episodes', "'inspcet' is not known", 'the nearest is inspect'),
    ('up colect', "'colect' is not known", 'the nearest is collect'),
    ('convert episodes', 'are required: --output'),
    ('convert episodes --output new --worker 2', '--worker is not known; the nearest is --workers'),
    ('convert episodes --output new --task pick up', "'up' is one too many: put a text with spaces"),
    ('validate dataset extra', "the argument 'extra' is one too many"),
    ('inspect episodes/episode_000000 --embodiment ur5e', 'the nearest is ur5e_ro'),
    ('inspect episodes/episode_000000 --embodiment ur5e_robotiq_zd', 'the nearest is ur5e_robotiq_zed'),
    ('validate dataset --gr00t-version 1.7', 'use one of n1.5, n1.6, n1.7; the nearest is n1.7'),
    ('modality-config --gr00t-version N1.5', 'the nearest is n1.5'),
    ('convert episodes --output new --format v2', 'use one of v2.1, v3.0; the nearest is v2.1'),
    ('convert episodes --output new --codec h265', 'use one of h264, hevc, av1; the nearest is h264'),
    # Another path than the command wants.
    ('inspect episodes', 'is a folder of 2 bags, such as episodes/episode_00000'),
    ('inspect episode_000000', 'does not exist; the nearest is episodes/episode_000000'),
    ('inspect episodes/episode_00000', 'does not exist; the nearest is episode_000000'),
    ('inspect nowhere/episode_000000', 'does not exist, and neither does the folder nowhere'),
    ('inspect episodes/episode_000000/episode_000000.mcap', 'is a file of the bag episodes/episode_000000'),
    ('inspect dataset', 'is a LeRobot dataset v2.1: give the folder of one bag'),
    ('inspect file.txt', 'is a file: give the folder of a bag'),
    ('inspect empty', 'is an empty folder'),
    ('inspect torn', 'its recording was cut off: run `groot-ros recover torn`'),
    ('validate episodes', 'is a folder of 2 bags', 'give the folder of a dataset'),
    ('validate datset', 'does not exist; the nearest is dataset'),
    ('validate dataset/data', 'is a part of the dataset'),
    ('validate v3', 'is a LeRobot dataset v3.0, and GR00T reads v2.1', '--format v2.1'),
    ('recover episodes', 'is a folder of 2 bags', 'give the folder of one damaged bag'),
    ('recover episodes/episode_000000', 'is complete: there is nothing to recover'),
    ('convert empty --output new', 'holds no bag'),
    ('convert episode --output new', 'does not exist; the nearest is episodes'),
    ('convert dataset --output new', 'ur5e_robotiq_zed names no columns, it is for bags'),
    ('convert episodes --output dataset', 'exists already', '--append', '--overwrite'),
    ('serve episodes', 'is a folder of 2 bags', 'give the folder of a checkpoint'),
    ('serve hodl', 'does not exist', 'the nearest is hold'),
    ('serve dataset --episode 99', 'has no episode 99: it has 2, counted from 0'),
    ('evaluate nowhere', 'does not exist: give the folder of a dataset or of a bag'),
    # Another robot, or a wrong file of it.
    ('inspect episodes/episode_000000 --embodiment so101_dualcam', 'is for tables (HDF5, LeRobot)'),
    ('convert episodes --output new --keep-failed --embodiment other.yaml', 'arm/joints'),
    ('embodiment check none.yaml', 'none.yaml cannot be read'),
    ('embodiment check misspelt.yaml', 'wrong at fsp: this key is not known; the nearest is fps'),
    ('embodiment check unnamed.yaml', 'wrong at name: this key is missing'),
    ('embodiment check broken.yaml', 'is not YAML at line 1'),
    ('inspect episodes/episode_000000 --quality-thresholds file.txt', 'The file of thresholds file.txt'),
    # Numbers out of range.
    ('convert episodes --output new --workers 0', "--workers: '0' is not a whole number of at least 1"),
    ('convert episodes --output new --workers all', "--workers: 'all' is not a whole number of at least 1"),
    ('convert episodes --output new --fps 0', "--fps: '0' is not a number above 0"),
    ('validate dataset --horizon 0', "--horizon: '0' is not a whole number of at least 1"),
    ('evaluate dataset --stride 0', "--stride: '0' is not a whole number of at least 1"),
    ('evaluate dataset --episodes 7', 'has no episode 7: it has 2, counted from 0'),
    ('serve hold --port 99999', "--port: '99999' is not a whole number from 0 to 65535"),
    ('demo --episodes 0', "--episodes: '0' is not a whole number of at least 1"),
    # Where the result goes, and who answers.
    ('inspect episodes/episode_000000 --json nowhere/x.json', '--json: the folder nowhere does not exist'),
    ('convert episodes --output new --report empty', '--report: empty is a folder: give the name of a file'),
    ('inspect episodes/episode_000000 --report -', '--report', 'cannot write to the terminal'),
    ('evaluate dataset --plot errors.txt', '--plot: errors.txt does not end with .png'),
    ('evaluate dataset --policy localhost', 'policy localhost is neither', 'such as 127.0.0.1:5555'),
    ('evaluate dataset --policy 127.0.0.1:70000', 'nor HOST:PORT'),
    ('demo --host 192.168.1.100', 'is not an address of this machine'),
    ('convert episodes --output new --append --overwrite', '--append and --overwrite exclude each other'),
]  # fmt: skip


OTHER_ROBOT = """
base: ur5e_robotiq_zed
name: other
state: [{name: joint_positions, topic: arm/joints}]
"""


@pytest.fixture(scope='module')
def desk(bags, converted, tmp_path_factory):
    """A newcomer's folder: bags, datasets, and files that are not what they seem."""
    folder = tmp_path_factory.mktemp('desk')
    (folder / 'empty').mkdir()
    (folder / 'file.txt').write_text('hello\n')
    shutil.copytree(converted, folder / 'dataset')
    shutil.copytree(converted, folder / 'v3')
    info = json.loads((folder / 'v3/meta/info.json').read_text())
    (folder / 'v3/meta/info.json').write_text(json.dumps({**info, 'codebase_version': 'v3.0'}))
    for index in range(2):
        name = f'episode_{index:06d}'
        shutil.copytree(bags / name, folder / 'episodes' / name)
    shutil.copytree(bags / 'episode_000000', folder / 'torn')
    (folder / 'torn/metadata.yaml').unlink()
    (folder / 'misspelt.yaml').write_text('name: x\nrobot_type: x\nfsp: 30\n')
    (folder / 'unnamed.yaml').write_text('robot_type: x\nfps: 30\n')
    (folder / 'other.yaml').write_text(OTHER_ROBOT)
    (folder / 'broken.yaml').write_text('a: [')
    return folder


@pytest.fixture
def groot(desk, monkeypatch, capsys):
    """Runs groot-ros in that folder; returns the exit code and what it printed."""
    monkeypatch.chdir(desk)

    def run(line):
        try:
            code = main(line.split())
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr()

    return run


@pytest.mark.parametrize(('line', 'parts'), [(line, parts) for line, *parts in MISTAKES])
def test_a_mistake_is_told_in_one_sentence(groot, line, parts):
    code, printed = groot(line)
    assert code in (1, 2)
    assert printed.err.startswith('error: ')
    assert not printed.out
    assert 'Traceback' not in printed.err
    for part in parts:
        assert part in printed.err


def test_the_table_has_forty_mistakes():
    assert len({line for line, *_ in MISTAKES}) >= 40


def test_a_port_in_use_is_named(groot):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        code, printed = groot(f'serve hold --port {taken.getsockname()[1]}')
    assert code == 1
    assert 'choose another --port, or stop the program that uses this one' in printed.err


def test_json_goes_to_the_standard_output_and_the_lines_to_stderr(groot):
    _, printed = groot('inspect episodes/episode_000000 --json -')
    assert json.loads(printed.out)['episode'] == 'episode_000000'
    assert 'episode_000000: ' in printed.err


@pytest.mark.parametrize(
    'line',
    ['inspect episodes/episode_000000', 'validate dataset', 'embodiment check so101_dualcam'],
)
def test_quiet_leaves_the_exit_code_only(groot, line):
    code, printed = groot(f'{line} --quiet')
    assert (code, printed.out, printed.err) == (groot(line)[0], '', '')


def test_an_embodiment_is_checked_and_shown(groot):
    code, printed = groot('embodiment check ur5e_robotiq_zed --json -')
    assert code == 0
    assert json.loads(printed.out)['name'] == 'ur5e_robotiq_zed'
    assert 'gripper' in printed.err


def test_an_error_that_nobody_foresaw_is_one_sentence_that_names_its_place(groot, monkeypatch):
    def fail(path):
        raise ZeroDivisionError('division by zero')

    monkeypatch.setattr('groot_ros.inference.checkpoint_files.is_checkpoint', fail)
    code, printed = groot('inspect episodes/episode_000000')
    assert code == 1
    assert 'ZeroDivisionError: division by zero, in test_mistakes.py:' in printed.err
    assert printed.err.count('\n') == 1
    monkeypatch.setenv('GROOT_ROS_DEBUG', '1')
    with pytest.raises(ZeroDivisionError):
        groot('inspect episodes/episode_000000')


class Terminal:
    def isatty(self):
        return True


def test_no_color_keeps_a_terminal_plain(monkeypatch):
    monkeypatch.delenv('NO_COLOR', raising=False)
    assert (
        colour_levels('episode_000000: fail, 3 rows', Terminal())
        == 'episode_000000: \033[1;31mfail,\033[0m 3 rows'
    )
    monkeypatch.setenv('NO_COLOR', '1')
    assert colour_levels('error: no', Terminal()) == 'error: no'
