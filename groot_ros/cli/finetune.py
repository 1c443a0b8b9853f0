# SPDX-License-Identifier: Apache-2.0
"""`groot-ros finetune`: trains a model on a dataset, with the trainer of the model's makers."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from groot_ros.argument_types import share
from groot_ros.cli.options import ParagraphHelp
from groot_ros.errors import GrootRosError

if TYPE_CHECKING:
    from groot_ros.training.findings import TrainingProblem
    from groot_ros.training.job import FinetuneJob
    from groot_ros.training.probe import Probe

_DESCRIPTION = (
    "Fine-tunes GR00T with NVIDIA's trainer, or a policy of LeRobot with LeRobot's, each in its own Python. "
    'A preset says what is trained and which GPU it needs. Before the first step the dataset, the Python, '
    'the GPU, the disk and the output folder are checked; each problem is one sentence with what to do. '
    'Ctrl-C saves a checkpoint; --resume goes on from it.'
)
_EXAMPLES = """examples:
  groot-ros finetune --list
  groot-ros finetune datasets/cube --preset h100_80gb --python ~/Isaac-GR00T/.venv/bin/python --check
  groot-ros finetune datasets/cube --preset h100_80gb --python ~/Isaac-GR00T/.venv/bin/python
  groot-ros finetune datasets/cube --preset smoke --python ~/Isaac-GR00T/.venv/bin/python --dry-run
  groot-ros finetune datasets/cube_v3 --preset lerobot_act --python ~/lerobot/.venv/bin/python"""
# The options that replace a value of the preset, with the type of their value and their help.
_CHANGES = {
    'steps': (int, 'changes of the weights'),
    'batch_size': (int, 'samples per GPU and step'),
    'accumulation': (int, 'steps whose gradients are added up'),
    'learning_rate': (float, 'learning rate'),
    'gpus': (int, 'number of GPUs'),
    'horizon': (int, 'steps of an action chunk'),
    'save_steps': (int, 'steps between two checkpoints'),
    'keep_checkpoints': (int, 'how many checkpoints are kept'),
    'base_model': (str, 'name or folder of the pretrained model'),
    'embodiment_tag': (str, "embodiment tag of the model's head"),
}


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    command = commands.add_parser(
        'finetune',
        help='train a model on a dataset',
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=ParagraphHelp,
    )
    command.add_argument('dataset', type=Path, nargs='?', help='folder of the dataset')
    command.add_argument('--list', action='store_true', help='list the presets and end')
    command.add_argument(
        '--preset', default='h100_80gb', help='a name of --list, or a YAML file (default h100_80gb)'
    )
    command.add_argument(
        '--python',
        default=sys.executable,
        metavar='PATH',
        help="the Python interpreter that has the trainer's libraries (default: this one)",
    )
    command.add_argument(
        '--output', type=Path, metavar='FOLDER', help='default: outputs/DATASET-PRESET in this folder'
    )
    command.add_argument(
        '--hold-out',
        type=share,
        default=0.0,
        metavar='SHARE',
        help='share of the episodes that is not trained on, such as 0.1; afterwards each checkpoint is '
        'evaluated on them (small and lerobot)',
    )
    command.add_argument('--resume', action='store_true', help='go on from the last checkpoint')
    command.add_argument('--check', action='store_true', help='only check, without training')
    command.add_argument('--dry-run', action='store_true', help='only print the command of the trainer')
    command.add_argument(
        '--allow',
        action='append',
        default=[],
        metavar='CHECK',
        help='start although this check found a problem; its name is in brackets behind the sentence',
    )
    preset = command.add_argument_group('values that replace those of the preset')
    for name, (kind, text) in _CHANGES.items():
        preset.add_argument(f'--{name.replace("_", "-")}', type=kind, help=text)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Checks, then trains. Returns 1 if a check found a problem."""
    if options.list:
        return _list()
    if options.dataset is None:
        raise GrootRosError('No dataset is given: groot-ros finetune DATASET. --list shows the presets.')
    from groot_ros.training.run import ask_python, find_problems, make_command, train

    job = _job(options)
    found = ask_python(job.python)
    if options.dry_run:
        print(_describe_command(job, found))
        return 0
    problems = [problem for problem in find_problems(job, found) if problem.check not in options.allow]
    if problems:
        return _refuse(problems)
    command = make_command(job, found)
    print(f'All checks passed: {job.dataset} with the preset {options.preset}.', flush=True)
    if options.check:
        return 0
    print(shlex.join(command.arguments), flush=True)
    receipt = train(job, found, lambda text: print(text, file=sys.stderr, flush=True))
    if receipt.frozen_changed:
        print('warning: weights that should be frozen have changed; see training.json.', file=sys.stderr)
    last = receipt.sessions[-1]
    print(
        f'Trained {last["step"]} steps in {last["seconds"]:.0f} s, loss {last["loss"]:.3g}, at most '
        f'{receipt.peak_memory_gb:.1f} GB: {job.output}'
    )
    if job.held_out:
        _evaluate_held_out(job)
    print(f'Next: groot-ros serve {job.output} --python {job.python}')
    return 0


def _evaluate_held_out(job: 'FinetuneJob') -> None:
    from groot_ros.cli.held_out import HELD_OUT_FILE, evaluate_held_out

    print(f'Evaluating each checkpoint on the {len(job.held_out)} episodes that were held out.', flush=True)
    for result in evaluate_held_out(job):
        print('\n'.join(result.summary_lines()), flush=True)
    print(f'The errors by step are in {job.output / HELD_OUT_FILE}.')


def _job(options: argparse.Namespace) -> 'FinetuneJob':
    from groot_ros.training.job import FinetuneJob
    from groot_ros.training.preset import load_preset

    changes = {name: getattr(options, name) for name in _CHANGES}
    name = Path(options.preset).stem
    return FinetuneJob(
        dataset=options.dataset,
        output=options.output or Path('outputs') / f'{options.dataset.resolve().name}-{name}',
        preset=load_preset(options.preset, **changes),
        python=options.python,
        resume=options.resume,
        hold_out=options.hold_out,
    )


def _list() -> int:
    from groot_ros.training.preset import load_preset, preset_names

    for name in preset_names():
        preset = load_preset(name)
        memory = f'{preset.gpus} x {preset.gpu_memory_gb:g} GB' if preset.gpus else 'no GPU'
        print(f'{name:16} {memory:12} {preset.description}')
    return 0


def _describe_command(job: 'FinetuneJob', found: 'Probe') -> str:
    from groot_ros.training.run import make_command

    command = make_command(job, found)
    settings = [f'{name}={shlex.quote(value)}' for name, value in command.environment.items()]
    written = [f'# writes {job.output / name}' for name in command.files]
    return '\n'.join([*written, ' '.join([*settings, shlex.join(command.arguments)])])


def _refuse(problems: 'list[TrainingProblem]') -> int:
    for problem in problems:
        print(f'error: {problem}', file=sys.stderr)
    print(
        f'{len(problems)} problems: nothing was started. --allow NAME starts although a check found one.',
        file=sys.stderr,
    )
    return 1
