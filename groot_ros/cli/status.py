# SPDX-License-Identifier: Apache-2.0
"""`groot-ros status`: what arm and recorder report, for Pythons without the command `ros2`."""

import argparse

from groot_ros.cli.call import add_cell_options
from groot_ros.cli.requirements import require_ros


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    command = commands.add_parser(
        'status',
        help='show what arm and recorder report',
        description='Shows the state of the arm and of the recorder of a running cell, with the reasons.',
    )
    add_cell_options(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints what arm and recorder report."""
    require_ros('groot-ros status')
    from groot_ros.ros.call import status_lines

    print('\n'.join(status_lines(options.namespace, options.timeout)))
    return 0
