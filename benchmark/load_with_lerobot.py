# SPDX-License-Identifier: Apache-2.0
"""Opens a converted dataset with LeRobot's own loader and decodes every frame; needs lerobot==0.3.3.

python3 -m venv lerobot_env && lerobot_env/bin/pip install lerobot==0.3.3
HF_HUB_OFFLINE=1 lerobot_env/bin/python benchmark/load_with_lerobot.py datasets/cube
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def main(root: Path) -> None:
    dataset = LeRobotDataset(f'local/{root.name}', root=root, video_backend='pyav')
    actions = np.concatenate(
        [
            np.array(pq.read_table(file)['action'].to_pylist())
            for file in sorted(root.glob('data/*/*.parquet'))
        ]
    )
    cameras = [name for name in dataset.features if name.startswith('observation.images.')]
    for index in range(len(dataset)):
        item = dataset[index]
        assert np.allclose(item['action'].numpy(), actions[index], atol=1e-6), (
            f'row {index} has another action'
        )
        assert all(item[camera].shape[0] == 3 for camera in cameras)
    print(
        f'{dataset.num_episodes} episodes, {len(dataset)} rows, every frame of {", ".join(cameras)} decoded'
    )


if __name__ == '__main__':
    main(Path(sys.argv[1]))
