# SPDX-License-Identifier: Apache-2.0
"""`groot-ros validate`: checks a dataset before training."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from groot_ros.argument_types import output_file, whole_number
from groot_ros.cli.options import add_gr00t_version_option
from groot_ros.cli.output import add_output_options, say, write_json
from groot_ros.cli.requirements import require_report_libraries

if TYPE_CHECKING:
    from groot_ros.dataset.validation.validate import ValidationReport

_DESCRIPTION = (
    "Finds what makes GR00T's data loader fail, and what the loader accepts although training would suffer. "
    'The exit code is 0 if no error was found; warnings do not count.'
)


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    command = commands.add_parser(
        'validate', help='check a dataset before training', description=_DESCRIPTION
    )
    command.add_argument('dataset', type=Path, help='folder of the dataset')
    command.add_argument(
        '--horizon', type=whole_number(1), default=16, help='action horizon of the model (default 16)'
    )
    add_gr00t_version_option(command, 'the GR00T version whose limits are checked')
    add_output_options(command, 'the findings')
    command.add_argument(
        '--report',
        type=output_file('.html'),
        metavar='FILE',
        help='write an HTML report: episodes, frames, distribution and range of every dimension',
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Validates the dataset. Returns 1 if an error was found."""
    report = validate_and_tell(options, options.dataset, options.gr00t_version)
    write_json(options, report.as_dict())
    return 1 if report.errors else 0


def validate_and_tell(options: argparse.Namespace, dataset: Path, gr00t_version: str) -> 'ValidationReport':
    """Validates a dataset, prints the findings, and writes the page of --report if it is asked for."""
    if options.report:
        require_report_libraries(f'groot-ros {options.command} --report')
    from groot_ros.dataset.validation.validate import validate

    report = validate(dataset, options.horizon, gr00t_version)
    for finding, more in report.grouped():
        say(options, f'{finding} (and {more} more like it)' if more else str(finding))
    say(
        options,
        f'{dataset}: {report.errors} errors, {report.warnings} warnings '
        f'in {report.episodes} episodes, {report.rows} rows',
    )
    if options.report:
        from groot_ros.dataset.report import write_report

        write_report(dataset, report, options.report)
        say(options, f'Report: {options.report}')
    return report
