# SPDX-License-Identifier: Apache-2.0
"""`groot-ros status`: what arm and recorder report, for Pythons without the command `ros2`."""

import argparse

from groot_ros.cli.call import add_cell_options
from groot_ros.cli.output import add_output_options, say, write_json
from groot_ros.cli.requirements import require_ros


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    command = commands.add_parser(
        'status',
        help='show what arm and recorder report',
        description='Shows the state of the arm and of the recorder of a running cell, with the reasons.',
    )
    add_cell_options(command)
    add_output_options(command, 'the states')
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints what arm and recorder report."""
    require_ros('groot-ros status')
    from groot_ros.ros.call import arm_line, read_status, recorder_line, status_document

    arm, recorder = read_status(options.namespace, options.timeout)
    say(options, arm_line(arm), recorder_line(recorder))
    write_json(options, status_document(arm, recorder))
    return 0
