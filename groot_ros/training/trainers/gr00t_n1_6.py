# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's trainer of GR00T N1.6: gr00t/experiment/launch_finetune.py of Isaac-GR00T's branch n1d6."""

from groot_ros.training.job import FinetuneJob, TrainerCommand
from groot_ros.training.probe import Probe
from groot_ros.training.trainers import TrainerInfo
from groot_ros.training.trainers.gr00t_common import launch_finetune

TRAINER = TrainerInfo(
    label='GR00T N1.6',
    package='gr00t',
    python='>=3.10,<3.13',
    # Training fails with 4.57, which the inference of N1.6 wants.
    versions={'transformers': '==4.51.3', 'lmdb': '', 'scipy': ''},
    dataset_version='v2',
    gr00t_version='n1.6',
    programs=('ffmpeg', 'ffprobe'),
    ignored_options=('use_percentiles', 'shortest_image_edge', 'crop_fraction'),
)
BASE_MODEL = 'nvidia/GR00T-N1.6-3B'


def command(job: FinetuneJob, probe: Probe) -> TrainerCommand:
    """The command line of a run."""
    return launch_finetune(job, TRAINER.gr00t_version, BASE_MODEL)
