# SPDX-License-Identifier: Apache-2.0
"""LeRobot's trainer: `lerobot-train`, for its policies (act, diffusion, groot, smolvla) on v3.0 datasets."""

from groot_ros.training.job import FinetuneJob, TrainerCommand
from groot_ros.training.probe import Probe
from groot_ros.training.trainers import TrainerInfo
from groot_ros.training.trainers.gr00t_common import environment

TRAINER = TrainerInfo(
    label='LeRobot',
    package='lerobot',
    python='>=3.10',
    versions={'lerobot': '>=0.4'},
    dataset_version='v3',
    programs=('ffmpeg',),
    can_hold_out=True,
)
_MODULE = 'lerobot.scripts.lerobot_train'


def command(job: FinetuneJob, probe: Probe) -> TrainerCommand:
    """The command line of a run. LeRobot writes into a new folder, since it refuses one that exists."""
    preset = job.preset
    run_folder = job.output.resolve() / 'lerobot'
    arguments = [job.python, '-m', _MODULE]
    if job.resume:
        arguments += [
            f'--config_path={run_folder}/checkpoints/last/pretrained_model/train_config.json',
            '--resume=true',
        ]
        return TrainerCommand(arguments, environment(preset))
    options = {
        'dataset.repo_id': job.dataset.resolve().name,
        'dataset.root': job.dataset.resolve(),
        'output_dir': run_folder,
        'batch_size': preset.batch_size,
        'steps': preset.steps,
        'save_freq': preset.save_steps,
        'num_workers': preset.loader_workers,
        'policy.device': 'cuda' if preset.gpus else 'cpu',
        'policy.push_to_hub': 'false',
        'wandb.enable': 'false',
    }
    if job.held_out:
        trained = [index for index in _indices(job) if index not in job.held_out]
        options['dataset.episodes'] = str(trained)
    if preset.base_model:
        options['policy.path'] = preset.base_model
    options |= {name: _text(value) for name, value in preset.trainer_options.items()}
    return TrainerCommand(
        [*arguments, *(f'--{name}={value}' for name, value in options.items())], environment(preset)
    )


def _indices(job: FinetuneJob) -> list[int]:
    return [int(record['episode_index']) for record in job.meta.episodes]


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
