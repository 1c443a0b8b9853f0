# SPDX-License-Identifier: Apache-2.0
"""Writes frames and rows with LeRobot's own add_frame and save_episode in LeRobot's environment.

It prints the seconds that this took.

benchmark/convert_against_lerobot.py starts it: write_with_lerobot.py FOLDER OUTPUT [--streaming]
"""

import argparse
import inspect
import json
import time
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    parser.add_argument('output', type=Path)
    parser.add_argument(
        '--streaming', action='store_true', help='encode while frames are added, which newer releases can'
    )
    options = parser.parse_args()
    rows = np.load(options.folder / 'rows.npz')
    cameras = {file.stem: np.load(file, mmap_mode='r') for file in sorted(options.folder.glob('camera*.npy'))}
    features = {
        name: {'dtype': 'float64', 'shape': rows[name].shape[1:], 'names': None}
        for name in ('observation.state', 'action')
    }
    for name, frames in cameras.items():
        features[f'observation.images.{name}'] = {
            'dtype': 'video',
            'shape': frames.shape[1:],
            'names': ['height', 'width', 'channel'],
        }
    more = {'streaming_encoding': True} if options.streaming else {}
    dataset = LeRobotDataset.create(
        'local/set', fps=int(rows['fps']), features=features, root=options.output, use_videos=True, **more
    )
    takes_task = 'task' in inspect.signature(dataset.add_frame).parameters
    began_s = time.perf_counter()
    for index in range(len(rows['action'])):
        frame = {name: rows[name][index] for name in ('observation.state', 'action')}
        frame |= {f'observation.images.{name}': np.array(frames[index]) for name, frames in cameras.items()}
        if takes_task:
            dataset.add_frame(frame, task='compare')
        else:
            dataset.add_frame({**frame, 'task': 'compare'})
    dataset.save_episode()
    if hasattr(dataset, 'finalize'):
        dataset.finalize()
    print(json.dumps({'seconds': time.perf_counter() - began_s}))


if __name__ == '__main__':
    main()
