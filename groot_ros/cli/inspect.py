# SPDX-License-Identifier: Apache-2.0
"""`groot-ros inspect`: judges the quality of a bag, or compares a checkpoint with an embodiment."""

import argparse
from pathlib import Path

from groot_ros.argument_types import output_file
from groot_ros.cli.options import ParagraphHelp, add_embodiment_tag_option
from groot_ros.cli.output import add_output_options, say, write_json
from groot_ros.cli.requirements import require_report_libraries
from groot_ros.resources import DEFAULT_EMBODIMENT

_DESCRIPTION = (
    'For a bag: reports whether it is fit to train on, and why, with the checks of the recorder. '
    'The exit code is 0 for pass and warn, 1 for fail. For a checkpoint of GR00T or LeRobot: lists its keys, '
    'sizes, steps and representations next to those of the embodiment; the exit code is 1 if they differ.'
)
_EXAMPLES = """examples:
  groot-ros inspect episodes/episode_000003
  groot-ros inspect some_bag --embodiment ur5e_ros2_drivers --report some_bag.html
  groot-ros inspect outputs/checkpoint-10000"""


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    command = commands.add_parser(
        'inspect',
        help='judge the quality of a bag, or compare a checkpoint with an embodiment',
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=ParagraphHelp,
    )
    command.add_argument('path', type=Path, help='folder of the bag or of the checkpoint')
    command.add_argument(
        '--embodiment',
        default='',
        help='a name in config/embodiments, or the path of a YAML file '
        f'(default: the one that the bag was recorded with; {DEFAULT_EMBODIMENT} for a checkpoint)',
    )
    command.add_argument(
        '--quality-thresholds',
        default='',
        metavar='FILE',
        help='YAML file with thresholds that replace those of config/quality_thresholds.yaml (bags)',
    )
    add_embodiment_tag_option(command)
    add_output_options(command, 'the result')
    command.add_argument(
        '--report',
        type=output_file('.html'),
        metavar='FILE',
        help='write an HTML report with plots and images (bags)',
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Inspects a checkpoint if the folder holds one, otherwise a bag."""
    from groot_ros.inference.checkpoint_files import is_checkpoint

    return _inspect_checkpoint(options) if is_checkpoint(options.path) else _inspect_bag(options)


def _inspect_checkpoint(options: argparse.Namespace) -> int:
    from groot_ros.embodiment import load_embodiment
    from groot_ros.policies.checkpoint import read_checkpoint

    embodiment = load_embodiment(options.embodiment or DEFAULT_EMBODIMENT)
    checkpoint = read_checkpoint(options.path, options.embodiment_tag)
    problems = checkpoint.mismatches(embodiment)
    say(options, *checkpoint.summary_lines(embodiment))
    say(options, *(f'  does not fit: {problem}' for problem in problems))
    say(options, f'{"does not fit" if problems else "fits"} the embodiment {embodiment.name}')
    write_json(options, {**checkpoint.as_dict(), 'embodiment': embodiment.name, 'mismatches': problems})
    return 1 if problems else 0


def _inspect_bag(options: argparse.Namespace) -> int:
    from groot_ros.bags.reader import EpisodeBag, naming_bag
    from groot_ros.quality.trace_from_bag import load_bag_embodiment, load_trace
    from groot_ros.quality.verdict import judge, load_thresholds

    if options.report:
        require_report_libraries('groot-ros inspect --report')
    thresholds = load_thresholds(options.quality_thresholds)
    with EpisodeBag(options.path) as bag:
        embodiment = load_bag_embodiment(bag, options.embodiment)
        with naming_bag(options.path):
            trace = load_trace(bag, embodiment)
        failure = str(bag.info.get('failure', ''))
        verdict = judge(trace, thresholds, bag.info, options.path.resolve().name, failure)
        if options.report:
            from groot_ros.quality.report import write_report

            write_report(bag, trace, verdict, options.report)
    say(options, *(f'  {reason}' for reason in verdict.reasons))
    say(
        options,
        f'{verdict.episode}: {verdict.verdict}, {verdict.outcome}, {verdict.rows} rows, '
        f'{verdict.filled} filled, {verdict.lost} messages lost',
    )
    write_json(options, verdict.as_dict())
    return 1 if verdict.verdict == 'fail' else 0
