# SPDX-License-Identifier: Apache-2.0
"""`groot-ros demonstrate`: scripted demonstrations in the simulated cell, faster than real time."""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

from groot_ros.argument_types import share, whole_number
from groot_ros.cli.convert import progress_bar
from groot_ros.cli.options import ParagraphHelp
from groot_ros.cli.output import add_output_options, say, write_json
from groot_ros.dataset.options import ConversionOptions, OutputMode

_INTERRUPTED = 130
_EMBODIMENT = 'ur5e_robotiq_zed_wrist'
_DESCRIPTION = (
    'Records scripted demonstrations of the simulated cell into a dataset, without ROS and faster than real '
    'time: the cube is picked up from a random pose and placed in the bin. Commands take the same path as '
    'those of the drivers: limits, set-points, the lag of the arm. A part of the demonstrations begins after '
    'a push or a missed grasp, so that a policy learns to recover. Failed demonstrations are not written.'
)
_EXAMPLES = """examples:
  groot-ros demonstrate --episodes 200 --output datasets/cube_sim --workers 2
  groot-ros validate datasets/cube_sim"""


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    command = commands.add_parser(
        'demonstrate',
        help='make a dataset of scripted demonstrations in the simulated cell, without ROS',
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=ParagraphHelp,
    )
    command.add_argument('--output', required=True, type=Path, help='folder of the dataset')
    command.add_argument(
        '--episodes', type=whole_number(1), default=50, help='how many demonstrations to make (default 50)'
    )
    command.add_argument(
        '--seed', type=whole_number(0), default=0, help='seed of starts and disturbances (default 0)'
    )
    command.add_argument(
        '--disturbed',
        type=share,
        default=0.5,
        metavar='SHARE',
        help='share of the demonstrations that begin after a disturbance, 0 to 1 (default 0.5)',
    )
    command.add_argument(
        '--embodiment',
        default=_EMBODIMENT,
        help=f'a name in config/embodiments, or the path of a YAML file (default {_EMBODIMENT})',
    )
    command.add_argument(
        '--workers',
        type=whole_number(1),
        default=1,
        help='demonstrations to make at the same time (default 1); the dataset does not depend on it',
    )
    command.add_argument(
        '--overwrite',
        action='store_true',
        help='replace the dataset at --output, once the new one is complete',
    )
    add_output_options(command, 'a summary')
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Makes the demonstrations with a progress bar, and returns the exit code."""
    from groot_ros.cli.requirements import require_sim_libraries
    from groot_ros.embodiment import load_embodiment
    from groot_ros.sim.gl_backend import choose_gl_backend

    require_sim_libraries('groot-ros demonstrate')
    embodiment = load_embodiment(options.embodiment)
    choose_gl_backend()
    from groot_ros.sim.offline.collect import CollectSettings, collect

    settings = CollectSettings(options.episodes, options.seed, options.disturbed)
    existing = OutputMode.OVERWRITE if options.overwrite else OutputMode.REFUSE
    conversion = ConversionOptions(workers=options.workers, existing=existing)
    started_s = time.perf_counter()
    try:
        progress = partial(progress_bar, quiet=options.quiet, what='demonstrate')
        report = collect(settings, options.output, embodiment, conversion, progress)
    except KeyboardInterrupt:
        print('Interrupted. Run the same command again to continue.', file=sys.stderr)
        return _INTERRUPTED
    report.elapsed_s = time.perf_counter() - started_s
    minutes = report.elapsed_s / 60
    say(options, *report.summary_lines(), f'{report.episodes / minutes:.1f} demonstrations a minute')
    write_json(options, {**vars(report), 'output': str(report.output)})
    return 0
