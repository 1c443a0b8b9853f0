# SPDX-License-Identifier: Apache-2.0
"""Damaged recordings: an error that names the topic and what to do, and nothing half-written."""

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from groot_ros.bags.message_types import time_message, typestore
from groot_ros.cli.main import main
from groot_ros.dataset.convert import convert
from groot_ros.dataset.convert_recording import ConversionJob
from groot_ros.dataset.executors import run_jobs
from groot_ros.dataset.options import ConversionOptions
from groot_ros.dataset.sources.recording import Recording
from groot_ros.dataset.validation.validate import validate
from groot_ros.errors import GrootRosError
from groot_ros.message_fields import header_stamp_ns

TYPES = typestore().types


def of(topic, change):
    """Changes every message of a topic; `change` may return another one."""

    def apply(entries):
        for entry in entries:
            if entry[1] == topic:
                entry[2] = change(entry[0], entry[2]) or entry[2]
        return entries

    return apply


def stamped(topic, time_ns):
    def change(arrival_ns, message):
        message.header = type(message.header)(
            time_message(time_ns(arrival_ns, message)), message.header.frame_id
        )

    return of(topic, change)


def own_stamp(message):
    return header_stamp_ns(message)


def smaller(arrival_ns, message):
    if arrival_ns > 1e9:
        size = {'height': 240, 'width': 320, 'step': 960, 'data': np.zeros(240 * 960, np.uint8)}
        return type(message)(**{**vars(message), **size})
    return None


def not_a_number(arrival_ns, message):
    if 1.0e9 < arrival_ns < 1.02e9:
        message.position[2] = np.nan


def other_type(arrival_ns, message):
    return TYPES['sensor_msgs/msg/Temperature'](message.header, 20.0, 0.0)


FAULTS = {
    'stamps of zero': (stamped('tcp_pose', lambda arrival_ns, message: 0), {}, r'tcp_pose .*stamp of zero'),
    'camera stamps of zero': (
        stamped('zed/image', lambda arrival_ns, message: 0),
        {},
        r'zed/image .*stamp of zero',
    ),
    'a clock that was set': (
        stamped(
            'zed/image',
            lambda arrival_ns, message: own_stamp(message) - (60 * 10**9 if arrival_ns > 1e9 else 0),
        ),
        {},
        'the clock was set',
    ),
    'an image of another size': (
        of('zed/image', smaller),
        {},
        r'zed/image changes from 640x480 to 320x240.*--ranges',
    ),
    'NaN among the joints': (
        of('joint_states', not_a_number),
        {},
        r'joint_positions is NaN or infinite at row',
    ),
    'a wrong type': (
        of('tcp_pose', other_type),
        {'tcp_pose': 'sensor_msgs/msg/Temperature'},
        'tcp_pose is of type sensor_msgs/msg/Temperature',
    ),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_fault_is_reported_in_one_sentence(tmp_path, synthetic, embodiment, fault):
    change, types, reason = FAULTS[fault]
    source = synthetic(seconds=2.0)
    source.write_plain(tmp_path / 'bag', change(source.entries()), types)
    with pytest.raises(GrootRosError, match=reason) as refused:
        convert([tmp_path / 'bag'], tmp_path / 'set', embodiment)
    assert str(tmp_path / 'bag') in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ['bag']


def test_nan_in_a_bag_of_ours_is_found_too(tmp_path, synthetic, embodiment):
    source = synthetic(seconds=2.0)
    source.record(tmp_path / 'bag', entries=of('joint_states', not_a_number)(source.entries()))
    with pytest.raises(GrootRosError, match='joint_positions is NaN or infinite at row'):
        convert([tmp_path / 'bag'], tmp_path / 'set', embodiment)


def test_stamps_that_go_back_for_a_message_are_left_out(tmp_path, synthetic, embodiment):
    source = synthetic(seconds=2.0)
    entries = source.entries()
    joints = [entry for entry in entries if entry[1] == 'joint_states']
    joints[60][2].header.stamp = joints[50][2].header.stamp
    source.write_plain(tmp_path / 'bag', entries)
    assert convert([tmp_path / 'bag'], tmp_path / 'set', embodiment).episodes == 1


def test_sqlite_that_was_cut_off(tmp_path, synthetic, embodiment):
    synthetic().write_plain(tmp_path / 'bag', plugin=StoragePlugin.SQLITE3)
    (database,) = (tmp_path / 'bag').glob('*.db3')
    database.with_name(f'{database.name}-journal').write_bytes(b'something')
    with pytest.raises(GrootRosError, match=r'was not closed: .*db3 has a journal.*integrity_check'):
        convert([tmp_path / 'bag'], tmp_path / 'set', embodiment)


@pytest.mark.parametrize('task', ['把立方体放进箱子 🤖 "quotes" \\ and\nlines', 'word ' * 2000])
def test_texts_of_any_kind_come_through(tmp_path, synthetic, embodiment, task):
    synthetic().record(tmp_path / 'bag', task=task)
    convert([tmp_path / 'bag'], tmp_path / 'set', embodiment)
    assert json.loads((tmp_path / 'set/meta/tasks.jsonl').read_text().split('\n')[0])['task'] == task
    assert validate(tmp_path / 'set').errors == 0


def test_an_output_below_a_file(tmp_path, bags, capsys):
    (tmp_path / 'file').write_text('')
    assert main(['convert', str(bags), '--output', str(tmp_path / 'file/set')]) == 1
    assert 'cannot be written' in capsys.readouterr().err


def test_a_disk_that_fills_up(tmp_path, bags):
    """A limit on the size of files simulates a full disk."""
    convert_bags = f'{sys.executable} -m groot_ros.cli convert {bags} --output {tmp_path / "set"}'
    command = f'trap "" XFSZ; ulimit -f 8; exec {convert_bags}'
    done = subprocess.run(['bash', '-c', command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    assert done.stderr.count('error:') == 1
    assert list(tmp_path.iterdir()) == []


def is_running(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_with_workers_ends_everything_and_the_same_command_goes_on(tmp_path, synthetic, eventually):
    for index in range(8):
        synthetic(seconds=3, place_m=index / 100).record(tmp_path / 'bags' / f'episode_{index:06d}')
    command = [
        sys.executable,
        '-m',
        'groot_ros.cli',
        'convert',
        str(tmp_path / 'bags'),
        '--output',
        str(tmp_path / 'set'),
        '--workers',
        '2',
    ]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert eventually(lambda: list((tmp_path / '.set.partial/parts').glob('*/done.json')))
    os.killpg(running.pid, signal.SIGINT)
    _, text = running.communicate(timeout=60)
    assert running.returncode in (0, 130)  # 0: it was done already
    assert 'Traceback' not in text
    assert eventually(lambda: not is_running(running.pid))
    if running.returncode:
        assert 'Run the same command again to continue' in text
        assert not (tmp_path / 'set').exists()
        assert main(command[3:]) == 0
    assert (tmp_path / 'set/meta/info.json').exists()


def session_of(process):
    """The session of a process, 0 if it has ended."""
    try:
        state, _, _, session = Path(f'/proc/{process}/stat').read_text().rsplit(')')[-1].split()[:4]
    except FileNotFoundError:
        return 0
    return 0 if state == 'Z' else int(session)


def children_of(process):
    """The living processes of the session that a process has begun."""
    others = {int(path.name) for path in Path('/proc').glob('[0-9]*')} - {process}
    return {other for other in others if session_of(other) == process}


def test_workers_end_with_a_converter_that_is_killed(tmp_path, synthetic, eventually):
    for index in range(8):
        synthetic(seconds=3, place_m=index / 100).record(tmp_path / 'bags' / f'episode_{index:06d}')
    convert_bags = [sys.executable, '-m', 'groot_ros.cli', 'convert', str(tmp_path / 'bags')]
    running = subprocess.Popen(
        [*convert_bags, '--output', str(tmp_path / 'set'), '--workers', '2'],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert eventually(lambda: list((tmp_path / '.set.partial/parts').glob('*/done.json')))
    workers = children_of(running.pid)
    running.kill()
    running.wait()
    assert len(workers) >= 2
    assert eventually(lambda: not any(map(session_of, workers)))


def test_a_second_conversion_to_an_output_is_refused(tmp_path, bags, embodiment):
    def second(parts, count):
        with pytest.raises(GrootRosError, match='Another conversion writes to'):
            convert([bags], tmp_path / 'set', embodiment)
        yield from parts

    assert convert([bags], tmp_path / 'set', embodiment, progress=second).episodes == 3
    assert validate(tmp_path / 'set').errors == 0
    assert [path.name for path in tmp_path.iterdir()] == ['set']


def test_a_lock_that_was_left_behind_is_taken(tmp_path, bags, embodiment):
    (tmp_path / '.set.lock').write_text('')
    assert convert([bags], tmp_path / 'set', embodiment).episodes == 3
    (tmp_path / 'other').write_text('mine')
    (tmp_path / '.again.lock').symlink_to(tmp_path / 'other')
    with pytest.raises(GrootRosError, match='cannot be written'):
        convert([bags], tmp_path / 'again', embodiment)
    assert (tmp_path / 'other').read_text() == 'mine'


DIES = """
import os, signal
from groot_ros.dataset.convert_recording import ConversionResult

def dies(job):
    if job.recording.name.endswith('1'):
        os.kill(os.getpid(), signal.SIGKILL)
    return ConversionResult()
"""


def test_a_worker_that_dies_costs_one_recording(tmp_path, monkeypatch, embodiment):
    """As a library that crashes over one recording."""
    (tmp_path / 'dying_converter.py').write_text(DIES)
    monkeypatch.syspath_prepend(tmp_path)
    dies = importlib.import_module('dying_converter').dies
    options = ConversionOptions(skip_bad=True)
    names = ['episode_0', 'episode_1', 'episode_3', 'episode_4']
    jobs = [ConversionJob(Recording('bag', name), tmp_path, embodiment, options) for name in names]
    with run_jobs(dies, jobs, 2, 'processes') as results:
        problems = [result.problem for result in results]
    assert [bool(problem) for problem in problems] == [False, True, False, False]
    assert 'episode_1 cannot be converted: its worker died' in problems[1]


@pytest.mark.parametrize('error', [RecursionError(), MemoryError(), ZeroDivisionError(), TypeError('odd')])
def test_whatever_goes_wrong_with_one_bag_stays_with_it(tmp_path, bags, embodiment, monkeypatch, error):
    from groot_ros.dataset.sources.bag import BagFormat

    segments = BagFormat.segments

    def sometimes(self, recording, *arguments):
        if recording.name == 'episode_000001':
            raise error
        return segments(self, recording, *arguments)

    monkeypatch.setattr(BagFormat, 'segments', sometimes)
    report = convert([bags], tmp_path / 'set', embodiment, ConversionOptions(skip_bad=True))
    assert report.episodes == 2
    ((name, reason),) = report.skipped.items()
    assert name.endswith('episode_000001')
    assert name in reason
    assert type(error).__name__ in reason


def test_an_unreadable_file_among_others_is_left_out(tmp_path, synthetic, embodiment):
    synthetic().record(tmp_path / 'all' / 'bag')
    (tmp_path / 'all' / 'demos.hdf5').write_text('no HDF5')
    with pytest.raises(GrootRosError, match=r'demos\.hdf5'):
        convert([tmp_path / 'all'], tmp_path / 'set', embodiment)
    report = convert([tmp_path / 'all'], tmp_path / 'set', embodiment, ConversionOptions(skip_bad=True))
    assert report.episodes == 1
    assert list(report.skipped) == [str(tmp_path / 'all' / 'demos.hdf5')]
