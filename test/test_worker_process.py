# SPDX-License-Identifier: Apache-2.0
"""The supervision of a worker process: no exception of a callback ends it."""

import numpy as np
import pytest

from groot_ros.hardware.ur5e.ipc import BEAT, STATE
from groot_ros.hardware.ur5e.record_check import read_beat, read_state
from groot_ros.hardware.worker_process import WorkerProcess

CHATTER = """
import time
from groot_ros.hardware.worker_process import run_worker

def work(end):
    with end.deadline('a call', 5.0):
        pass
    while True:
        list(end.orders())
        end.send(b'record')
        time.sleep(0.01)

run_worker(work)
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Starts workers that send a record every 10 ms, and ends them."""
    (tmp_path / 'chatter.py').write_text(CHATTER)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    monkeypatch.setattr('groot_ros.hardware.worker_process._FIRST_DELAY_S', 0.01)
    made = []

    def start(on_record, on_loss, **options):
        made.append(WorkerProcess('chatter', {}, on_record, on_loss, 5.0, **options))

    yield start
    for process in made:
        process.close()


def test_an_exception_for_a_record_is_a_loss_and_the_worker_is_started_again(worker, eventually):
    records, losses = [], []

    def take(record):
        records.append(record)
        if len(records) == 3:
            raise ValueError('a bad record\nand its details')

    worker(take, losses.append)
    assert eventually(lambda: len(records) > 5)
    assert losses == ['its data could not be used: a bad record']


def test_an_exception_while_a_loss_is_reported_does_not_end_the_supervision(worker, eventually):
    records = []

    def take(record):
        records.append(record)
        if len(records) == 1:
            raise OSError('the publisher failed')

    def fail(reason):
        raise RuntimeError(reason)

    worker(take, fail)
    assert eventually(lambda: len(records) > 3)


def test_announced_calls_are_reported(worker, eventually):
    calls = []
    worker(lambda record: None, lambda reason: None, on_call=calls.append)
    assert eventually(lambda: calls == ['a call'])


@pytest.mark.parametrize('name', ['joint_positions', 'joint_velocities', 'tcp_pose', 'robot_time_s'])
def test_a_state_that_is_not_finite_is_refused(name):
    state = np.zeros(1, STATE)
    assert read_state(state.tobytes()) == state[0]
    state[name] = np.nan
    with pytest.raises(ValueError, match=f'{name}.*not finite'):
        read_state(state.tobytes())


def test_numbers_that_no_robot_has_are_refused():
    state = np.zeros(1, STATE)
    state['joint_positions'][0, 2] = 1e300
    with pytest.raises(ValueError, match='joint_positions'):
        read_state(state.tobytes())
    beat = np.zeros(1, BEAT)
    beat['setpoint'][0, 0] = np.inf
    with pytest.raises(ValueError, match='setpoint'):
        read_beat(beat.tobytes())
