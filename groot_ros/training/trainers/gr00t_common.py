# SPDX-License-Identifier: Apache-2.0
"""What the trainers of GR00T share: options in the form of tyro, and our launcher in front of the script."""

import json
from pathlib import Path
from typing import Any

from groot_ros.dataset.modality_config import modality_config
from groot_ros.training.job import FinetuneJob, TrainerCommand
from groot_ros.training.preset import Preset, TrainedParts

LAUNCHER_FILE = Path(__file__).resolve().parents[1] / 'launcher.py'
_MODULE = 'gr00t.experiment.launch_finetune'
_CONFIG_FILE = 'modality_config.py'
_OPTIMIZERS = {'adamw': '', 'adamw_8bit': 'adamw_bnb_8bit'}


def launch_finetune(job: FinetuneJob, gr00t_version: str, base_model: str) -> TrainerCommand:
    """The command line of launch_finetune.py, which N1.6 and N1.7 have in common."""
    preset = job.preset
    output = job.output.resolve()
    options = named_options(
        {
            'base_model_path': preset.base_model or base_model,
            'dataset_path': job.dataset.resolve(),
            'embodiment_tag': preset.embodiment_tag.upper(),
            'modality_config_path': output / _CONFIG_FILE,
            'output_dir': output,
            'num_gpus': preset.gpus,
            'global_batch_size': preset.batch_size * preset.gpus,
            'gradient_accumulation_steps': preset.accumulation,
            'learning_rate': preset.learning_rate,
            'weight_decay': preset.weight_decay,
            'warmup_ratio': preset.warmup_ratio,
            'max_steps': preset.steps,
            'save_steps': preset.save_steps,
            'save_total_limit': preset.keep_checkpoints,
            'dataloader_num_workers': preset.loader_workers,
        }
    )
    config = modality_config(job.embodiment, gr00t_version, preset.horizon, preset.relative)
    arguments = [*options, *part_flags(preset.parts), *trainer_options(preset)]
    return TrainerCommand(
        launched(job, ['--module', _MODULE], arguments), environment(preset), {_CONFIG_FILE: config}
    )


def launched(job: FinetuneJob, script: list[str], arguments: list[str]) -> list[str]:
    """The trainer's script under our launcher; on several GPUs as one process each, by torchrun.

    The launcher sets what the script has no option for: the optimizer, gradient checkpointing, and resuming.
    """
    preset = job.preset
    settings = {
        'optimizer': _OPTIMIZERS[preset.optimizer],
        'gradient_checkpointing': preset.gradient_checkpointing,
        'keep_checkpoints': preset.keep_checkpoints,
        'resume': job.resume,
    }
    start = [job.python]
    if preset.gpus > 1:
        start += ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={preset.gpus}']
    return [*start, str(LAUNCHER_FILE), json.dumps(settings), *script, *arguments]


def environment(preset: Preset) -> dict[str, str]:
    """What the trainer's process finds in its environment in addition."""
    allocator = {'PYTORCH_CUDA_ALLOC_CONF': 'expandable_segments:True'} if preset.expandable_segments else {}
    return {'PYTHONUNBUFFERED': '1', 'TOKENIZERS_PARALLELISM': 'false', **allocator}


def named_options(values: dict[str, Any]) -> list[str]:
    """`--name value` for each entry, with dashes in the name."""
    arguments: list[str] = []
    for name, value in values.items():
        arguments += [f'--{name.replace("_", "-")}', str(value)]
    return arguments


def part_flags(parts: TrainedParts) -> list[str]:
    """`--tune-llm` or `--no-tune-llm` for each part of the model: these options have no value."""
    return [_toggle(f'tune-{name.replace("_", "-")}', on) for name, on in parts.model_dump().items()]


def trainer_options(preset: Preset) -> list[str]:
    """The options that the preset gives to the trainer as they are; true and false become toggles."""
    arguments: list[str] = []
    for name, value in preset.trainer_options.items():
        option = name.replace('_', '-')
        arguments += [_toggle(option, value)] if isinstance(value, bool) else [f'--{option}', str(value)]
    return arguments


def _toggle(option: str, on: bool) -> str:
    return f'--{option}' if on else f'--no-{option}'
