# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's trainer of GR00T N1.5: scripts/gr00t_finetune.py of Isaac-GR00T's tag n1.5-release."""

from groot_ros.dataset.modality_config import find_two_valued, modality_config
from groot_ros.training.job import FinetuneJob, TrainerCommand
from groot_ros.training.probe import Probe
from groot_ros.training.trainers import TrainerInfo
from groot_ros.training.trainers.gr00t_common import (
    environment,
    launched,
    named_options,
    part_flags,
    trainer_options,
)

TRAINER = TrainerInfo(
    label='GR00T N1.5',
    package='gr00t',
    python='>=3.10,<3.11',
    versions={'transformers': '==4.51.3'},
    dataset_version='v2',
    gr00t_version='n1.5',
    tags=('new_embodiment', 'oxe_droid', 'gr1', 'agibot_genie1'),
    programs=('ffmpeg',),
    has_lora=True,
)
BASE_MODEL = 'nvidia/GR00T-N1.5-3B'
# The script is not part of the package: it is in the checkout that the package was installed from.
_SCRIPT = 'scripts/gr00t_finetune.py'


def command(job: FinetuneJob, probe: Probe) -> TrainerCommand:
    """The command line of a run. The data config is the preset's, or made from the dataset's embodiment."""
    preset = job.preset
    files = {}
    data_config = preset.data_config
    if not data_config:
        module = f'{job.embodiment.name}_n1_5'
        two_valued = find_two_valued(job.meta, job.embodiment)
        files[f'{module}.py'] = modality_config(job.embodiment, 'n1.5', preset.horizon, two_valued=two_valued)
        class_name = ''.join(word.capitalize() for word in job.embodiment.name.split('_')) + 'DataConfig'
        data_config = f'{module}:{class_name}'
    options = named_options(
        {
            'dataset_path': job.dataset.resolve(),
            'output_dir': job.output.resolve(),
            'data_config': data_config,
            'base_model_path': preset.base_model or BASE_MODEL,
            'embodiment_tag': preset.embodiment_tag,
            'num_gpus': preset.gpus,
            'batch_size': preset.batch_size,
            'gradient_accumulation_steps': preset.accumulation,
            'max_steps': preset.steps,
            'save_steps': preset.save_steps,
            'learning_rate': preset.learning_rate,
            'weight_decay': preset.weight_decay,
            'warmup_ratio': preset.warmup_ratio,
            'dataloader_num_workers': preset.loader_workers,
            'report_to': 'tensorboard',
            'lora_rank': preset.lora.rank,
            'lora_alpha': preset.lora.alpha,
            'lora_dropout': preset.lora.dropout,
        }
    )
    script = f'{probe.package_folders.get("gr00t", "ISAAC_GR00T")}/{_SCRIPT}'
    arguments = [*options, *part_flags(preset.parts), *trainer_options(preset)]
    if job.resume:
        arguments.append('--resume')
    return TrainerCommand(
        launched(job, ['--file', script], arguments),
        {**environment(preset), 'PYTHONPATH': str(job.output.resolve())},
        files,
    )
