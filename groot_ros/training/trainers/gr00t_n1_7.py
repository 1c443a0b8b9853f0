# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's trainer of GR00T N1.7: gr00t/experiment/launch_finetune.py of Isaac-GR00T's main branch."""

from groot_ros.training.job import FinetuneJob, TrainerCommand
from groot_ros.training.probe import Probe
from groot_ros.training.trainers import TrainerInfo
from groot_ros.training.trainers.gr00t_common import launch_finetune

TRAINER = TrainerInfo(
    label='GR00T N1.7',
    package='gr00t',
    python='>=3.12,<3.13',
    versions={'transformers': '==4.57.3'},
    dataset_version='v2',
    gr00t_version='n1.7',
    gated='nvidia/Cosmos-Reason2-2B',
    tags=(
        'new_embodiment', 'oxe_droid_relative_eef_relative_joint', 'xdof', 'xdof_subtask', 'real_g1',
        'real_r1_pro_sharpa', 'unitree_g1', 'unitree_g1_sonic', 'simpler_env_google', 'simpler_env_widowx',
        'libero_panda', 'libero_sim', 'robocasa_panda_omron', 'robocasa_gr1_tabletop',
    ),
    programs=('ffmpeg',),
    # The values of the base checkpoint's processor_config.json are used instead, without a word.
    ignored_options=(
        'use_percentiles', 'shortest_image_edge', 'crop_fraction', 'formalize_language', 'letter_box',
    ),
)  # fmt: skip
BASE_MODEL = 'nvidia/GR00T-N1.7-3B'


def command(job: FinetuneJob, probe: Probe) -> TrainerCommand:
    """The command line of a run."""
    return launch_finetune(job, TRAINER.gr00t_version, BASE_MODEL)
