# SPDX-License-Identifier: Apache-2.0
"""The whole loop once: record, convert, validate, replay, report."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from groot_ros.cli.main import main
from groot_ros.geometry import integrate_deltas
from groot_ros.sim.demo.metrics import TimedPath, match_replay

# Metrics that do not depend on the load of the machine. `make demo` checks the others.
STEADY = (
    'frames without a row, or rows without a frame',
    'timestamps that are not exactly k/fps',
    'sign jumps of the quaternion',
    'validation errors',
    'numbers that differ between live rows and converted rows',
    'messages lost',
    'replays that did not place the cube in the bin',
)
# Metrics that do, and how bad they may be on any computer that keeps up.
BOUNDS = {
    'replayed against recorded TCP path, mean distance': 30,
    'TCP error against truth beyond 1 ms of motion, max': 30,
}


def demo_command(host: str, output: Path) -> list[str]:
    options = ['--episodes', '1', '--host', host, '--output', str(output)]
    return [sys.executable, '-m', 'groot_ros.cli', 'demo', *options]


def shortcomings(folder: Path) -> list[str]:
    """What a run of the demo did not reach, or that it left no report."""
    if not (folder / 'report.html').exists():
        return ['report.html']
    metrics = {entry['name']: entry for entry in json.loads((folder / 'metrics.json').read_text())}
    found = [name for name in STEADY if not metrics[name]['good']]
    for name, bound in BOUNDS.items():
        if not metrics[name]['value'] < bound:
            found.append(name)
    return found


def test_the_loop_closes(tmp_path, loopback):
    environment = {key: value for key, value in os.environ.items() if key != 'ROS_DOMAIN_ID'}
    command = demo_command(loopback, tmp_path / 'demo')
    for _ in range(2):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=140, check=False
        )
        missed = shortcomings(tmp_path / 'demo')
        # The recorder says that streams come too slowly only where the computer is too slow for the cell.
        if not missed or 'Hz instead of' not in done.stderr:
            break
        shutil.rmtree(tmp_path / 'demo')
    else:
        pytest.skip(f'this computer is too slow now for a cell with a camera in real time: {missed}')
    assert not missed, done.stdout + done.stderr
    metrics = json.loads((tmp_path / 'demo/metrics.json').read_text())
    assert next(entry['value'] for entry in metrics if entry['name'] == 'ticks recorded') > 100
    assert (tmp_path / 'demo/report.html').read_text().count('data:image/') == 3


@pytest.mark.parametrize(
    'stage', [pytest.param('==> cell up', marks=pytest.mark.long), 'Recording episode_000000']
)
def test_an_interrupt_in_a_stage_leaves_nothing_running(stage, tmp_path, loopback):
    command = demo_command(loopback, tmp_path / 'demo')
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in running.stdout:
        if stage in line:
            running.send_signal(signal.SIGINT)
            break
    rest = running.stdout.read()
    assert running.wait(60) == 130
    assert 'Traceback' not in rest
    assert not (tmp_path / 'demo/dataset').exists()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / 'episodes').mkdir()
    (tmp_path / 'episodes' / 'days_of_work').write_text('precious')
    assert main(['demo', '--output', str(tmp_path)]) == 1
    assert 'choose another --output' in capsys.readouterr().err
    assert (tmp_path / 'episodes' / 'days_of_work').exists()


def test_a_lag_is_found_and_removed():
    """A replay that is 120 ms late and 1 mm away from the recording."""
    fps = 20
    start = np.array([0, 0, 0.2, 0, 1, 0, 0.0])
    speeds = np.sin(np.linspace(0, np.pi, 60))
    recorded = integrate_deltas(start, np.column_stack([0.01 * speeds, *[np.zeros(60)] * 5]))[:-1]
    times = np.arange(-100, 600) / 100
    x = np.interp(times - 0.12, np.arange(60) / fps, recorded[:, 0])
    poses = np.column_stack([x, np.full(700, 0.001), np.full(700, 0.2), np.tile(start[3:], (700, 1))])
    match = match_replay(recorded, fps, 0.0, TimedPath(times, poses))
    assert match.lag_s == pytest.approx(0.12, abs=0.002)
    assert match.distances_m.mean() == pytest.approx(0.001, abs=2e-4)
