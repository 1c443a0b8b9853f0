# SPDX-License-Identifier: Apache-2.0
"""The same frames through our converter and LeRobot's own writer, each version in its own environment."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np

from benchmark.bags import recorded
from groot_ros.bags.reader import EpisodeBag
from groot_ros.dataset.convert import convert
from groot_ros.dataset.meta import column_to_array
from groot_ros.dataset.writers.lerobot_v2 import data_file, video_file
from groot_ros.recording.episode_recorder import RecordingSettings

ENVIRONMENTS = Path(__file__).parents[1] / 'build'
SECONDS = 10
# Version, arguments of pip, minimum version of Python, and whether frames are encoded as they come.
VERSIONS = {
    '0.3.3': (['lerobot==0.3.3', 'torch<2.8'], (3, 10), (False,)),
    '0.6.1': (['lerobot[dataset]==0.6.1'], (3, 12), (False, True)),
}


def environment(version: str, python: str) -> Path:
    """Returns the Python of an environment with LeRobot, which is made if it does not exist."""
    place = ENVIRONMENTS / f'lerobot_{version}'
    if not (place / 'bin/python').exists():
        print(f'  making {place} (minutes, some GB)', flush=True)
        subprocess.run([python, '-m', 'venv', place], check=True)
        subprocess.run(
            [
                place / 'bin/python',
                '-m',
                'pip',
                'install',
                '-q',
                '--disable-pip-version-check',
                *VERSIONS[version][0],
            ],
            check=True,
        )
    return place / 'bin/python'


def frames_of(folder: Path, embodiment, dataset: Path) -> int:
    """Writes rows and decoded frames of a dataset for LeRobot's writer, and returns how many."""
    import pyarrow.parquet as pq

    table = pq.read_table(data_file(dataset, 0))
    np.savez(
        folder / 'rows.npz',
        fps=embodiment.fps,
        **{name: column_to_array(table, name) for name in ('observation.state', 'action')},
    )
    for camera in embodiment.cameras:
        with av.open(str(video_file(dataset, camera.feature, 0))) as container:
            np.save(
                folder / f'{camera.name}.npy',
                np.stack([frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]),
            )
    return table.num_rows


def figures(folder: Path, newer_python: str) -> list[tuple[str, float, str]]:
    """Rows a second of ours, copying and encoding, and of LeRobot's, with the ratios."""
    folder = folder / 'against'
    folder.mkdir()
    ours = {}
    for video in ('h264', 'raw'):
        embodiment = recorded(folder / video, SECONDS, settings=RecordingSettings(video=video))
        report = convert([folder / video], folder / f'{video}_set', embodiment)
        ours[video] = report.rows / report.elapsed_s
    with EpisodeBag(folder / 'raw') as bag:
        assert bag.has_rows
    (folder / 'frames').mkdir()
    rows = frames_of(folder / 'frames', embodiment, folder / 'raw_set')
    found = [
        ('ours, packets copied', ours['h264'], 'rows/s'),
        ('ours, from raw images', ours['raw'], 'rows/s'),
    ]
    for version, (_, min_python, ways) in VERSIONS.items():
        python = sys.executable if sys.version_info[:2] >= min_python else newer_python
        if not python:
            print(f'  LeRobot {version} needs Python {min_python[0]}.{min_python[1]}: give --newer-python')
            continue
        for streaming in ways:
            output = folder / f'lerobot_{version}_{streaming}'
            command = [
                environment(version, python),
                Path(__file__).with_name('write_with_lerobot.py'),
                folder / 'frames',
                output,
            ]
            done = subprocess.run(
                [*command, *['--streaming'] * streaming],
                capture_output=True,
                text=True,
                check=True,
                env={'HF_HUB_OFFLINE': '1'},
            )
            rate = rows / json.loads(done.stdout.splitlines()[-1])['seconds']
            name = f'LeRobot {version}{", encoding while frames come" if streaming else ""}'
            found += [(name, rate, 'rows/s'), (f'ours from raw images, over {name}', ours['raw'] / rate, '')]
            shutil.rmtree(output)
    return found
