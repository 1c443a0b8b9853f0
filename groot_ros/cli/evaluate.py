# SPDX-License-Identifier: Apache-2.0
"""`groot-ros evaluate`: errors of policies on recorded episodes, or their success in closed loop."""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from groot_ros.argument_types import output_file, positive_number, whole_number
from groot_ros.cli.closed_loop import EXPERT, add_closed_loop_options, run_closed_loop
from groot_ros.cli.options import (
    ParagraphHelp,
    add_embodiment_option,
    add_gr00t_version_option,
    add_model_options,
)
from groot_ros.cli.output import add_output_options, say, write_json
from groot_ros.cli.requirements import require_policy_libraries, require_report_libraries
from groot_ros.errors import GrootRosError
from groot_ros.path_kind import describe_path

if TYPE_CHECKING:
    from groot_ros.embodiment import Embodiment
    from groot_ros.policies.evaluate import Evaluation
    from groot_ros.policies.factory import PolicyChoice

_DESCRIPTION = (
    'Open-loop evaluation: runs policies on observations of a dataset or bag, and compares the action chunks '
    'that they predict with the recorded actions. Reports MSE and MAE of each action over the steps of '
    'a chunk. With --closed-loop policies do their task in the simulated cell instead, all from the same '
    'starts, and the one to deploy is named.'
)
_EXAMPLES = """examples:
  groot-ros evaluate datasets/cube --policy gpu-machine:5555 --episodes 0 1 2
  groot-ros evaluate datasets/cube --policy outputs/checkpoint-5000 outputs/checkpoint-10000 \\
    --python /opt/gr00t/.venv/bin/python --plot errors.png
  groot-ros evaluate --closed-loop expert outputs/checkpoint-5000 --embodiment ur5e_robotiq_zed_wrist"""


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    command = commands.add_parser(
        'evaluate',
        help='compare policies with recorded actions or in the simulated cell, without a robot',
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=ParagraphHelp,
    )
    command.add_argument(
        'source',
        type=Path,
        nargs='?',
        metavar='DATASET_OR_BAG',
        help='folder of the dataset or of the bag; not needed with --closed-loop',
    )
    command.add_argument(
        '--policy',
        nargs='+',
        default=['127.0.0.1:5555'],
        metavar='MODEL',
        help='HOST:PORT of a model server, or folder of a checkpoint; several are compared '
        '(default 127.0.0.1:5555)',
    )
    add_embodiment_option(command)
    add_gr00t_version_option(command, 'the GR00T version of the model servers')
    command.add_argument(
        '--timeout',
        type=positive_number,
        default=15.0,
        metavar='S',
        help='maximum time for a reply (default 15 s)',
    )
    command.add_argument(
        '--episodes',
        type=whole_number(0),
        nargs='+',
        default=[0],
        help='episodes, counted from 0 (default 0)',
    )
    command.add_argument(
        '--stride', type=whole_number(1), default=8, help='rows between two requests (default 8)'
    )
    add_output_options(command, 'the errors, also by step,')
    command.add_argument(
        '--plot',
        type=output_file('.png', '.pdf', '.svg'),
        metavar='FILE',
        help='plot the errors over the steps, and predicted over recorded actions (.png, .pdf, .svg)',
    )
    add_model_options(command)
    add_closed_loop_options(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Evaluates the policies one after the other, and prints their errors or their success."""
    if set(options.closed_loop) != {EXPERT}:  # which needs no model server
        require_policy_libraries('groot-ros evaluate')
    if options.closed_loop:
        return run_closed_loop(options, _policy_choice)
    if options.source is None:
        raise GrootRosError(
            'groot-ros evaluate needs the folder of a dataset or of a bag, or policies after --closed-loop.'
        )
    if options.plot:
        require_report_libraries('groot-ros evaluate --plot')
    from groot_ros.embodiment import load_embodiment
    from groot_ros.policies.evaluate import check_dataset

    embodiment = load_embodiment(options.embodiment)
    with _open_as_dataset(options.source, embodiment) as dataset:
        check_dataset(dataset, embodiment, options.episodes)
        results = [_evaluate(model, dataset, embodiment, options) for model in options.policy]
    for result in results:
        say(options, *result.summary_lines())
    write_json(options, [result.as_dict() for result in results])
    if options.plot:
        from groot_ros.policies.evaluation_plot import write_evaluation_plot

        write_evaluation_plot(results, embodiment, options.plot)
    return 0


def _evaluate(
    model: str, dataset: Path, embodiment: 'Embodiment', options: argparse.Namespace
) -> 'Evaluation':
    from tqdm import tqdm

    from groot_ros.policies.evaluate import count_chunks, evaluate
    from groot_ros.policies.factory import make_policy

    choice = _policy_choice(model, embodiment, options)
    policy = make_policy(
        choice, embodiment, lambda line: print(line, file=sys.stderr, flush=True), token_host=choice.host
    )
    with contextlib.closing(policy):
        total = count_chunks(dataset, options.episodes, policy.spec.horizon, options.stride)
        with tqdm(desc=policy.spec.name, total=total, unit='chunk', disable=options.quiet or None) as bar:
            return evaluate(policy, dataset, embodiment, options.episodes, options.stride, bar.update)


def _policy_choice(model: str, embodiment: 'Embodiment', options: argparse.Namespace) -> 'PolicyChoice':
    """The policy that MODEL names: HOST:PORT or the folder of a checkpoint."""
    from groot_ros.policies.factory import PolicyChoice

    folder = Path(model).expanduser()
    if folder.is_dir():
        return _checkpoint_choice(folder, embodiment, options)
    host, _, port = model.rpartition(':')
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise GrootRosError(
            f'The policy {model} is neither the folder of a checkpoint ({model} {describe_path(folder)}) '
            'nor HOST:PORT of a model server, such as 127.0.0.1:5555.'
        )
    return PolicyChoice(
        'remote',
        host=host,
        port=int(port),
        gr00t_version=options.gr00t_version,
        timeout_s=options.timeout,
    )


def _checkpoint_choice(folder: Path, embodiment: 'Embodiment', options: argparse.Namespace) -> 'PolicyChoice':
    from groot_ros.policies.checkpoint import read_matching_checkpoint
    from groot_ros.policies.factory import PolicyChoice

    checkpoint = read_matching_checkpoint(folder, options.embodiment_tag, embodiment)
    return PolicyChoice(
        checkpoint.backend,
        str(folder),
        timeout_s=options.timeout,
        python=options.python,
        device=options.device,
        embodiment_tag=options.embodiment_tag,
        data_config=options.data_config,
    )


@contextlib.contextmanager
def _open_as_dataset(source: Path, embodiment: 'Embodiment') -> Iterator[Path]:
    """The dataset itself, or a temporary dataset that a bag is converted to."""
    if not source.exists():
        raise GrootRosError(f'{source} {describe_path(source)}: give the folder of a dataset or of a bag.')
    if (source / 'meta' / 'info.json').is_file():
        yield source
        return
    from groot_ros.dataset.convert import convert

    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / 'dataset'
        convert([source], dataset, embodiment)
        yield dataset
