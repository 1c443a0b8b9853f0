# SPDX-License-Identifier: Apache-2.0
"""The small policy of this package (groot_ros/small_policy), in any Python that has torch."""

from pathlib import Path

from groot_ros.training.job import FinetuneJob, TrainerCommand
from groot_ros.training.probe import Probe
from groot_ros.training.trainers import TrainerInfo
from groot_ros.training.trainers.gr00t_common import environment, named_options, trainer_options

TRAINER = TrainerInfo(
    label='The small policy',
    package='torch',
    python='>=3.11',
    versions={'torch': '>=2.4', 'scipy': ''},
    dataset_version='v2',
    can_hold_out=True,
)
_SCRIPT = Path(__file__).resolve().parents[2] / 'small_policy' / 'run_training.py'


def command(job: FinetuneJob, probe: Probe) -> TrainerCommand:
    """The command line of a run."""
    preset = job.preset
    options = {
        'horizon': preset.horizon,
        'steps': preset.steps,
        'batch_size': preset.batch_size,
        'learning_rate': preset.learning_rate,
        'weight_decay': preset.weight_decay,
        'warmup_ratio': preset.warmup_ratio,
        'save_steps': preset.save_steps,
        'keep_checkpoints': preset.keep_checkpoints,
    }
    if not preset.gpus:
        options['device'] = 'cpu'
    arguments = [job.python, str(_SCRIPT), str(job.dataset.resolve()), str(job.output.resolve())]
    arguments += [*named_options(options), *trainer_options(preset)]
    if job.held_out:
        arguments += ['--without', *map(str, job.held_out)]
    if job.resume:
        arguments.append('--resume')
    return TrainerCommand(arguments, environment(preset))
