# SPDX-License-Identifier: Apache-2.0
"""`groot-ros recover`: rebuilds a bag that was not closed."""

import argparse
from pathlib import Path

from groot_ros.cli.output import add_output_options, say, write_json
from groot_ros.errors import GrootRosError
from groot_ros.path_kind import describe_path, is_bag, is_torn_bag


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    command = commands.add_parser(
        'recover',
        help='rebuild a bag whose recorder was killed',
        description='Saves every complete chunk of a damaged bag. The damaged folder is kept as NAME.torn.',
    )
    command.add_argument('bag', type=Path, help='folder of the damaged bag')
    add_output_options(command, 'the path and the number of messages')
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Rebuilds the bag. Raises GrootRosError if nothing can be saved."""
    from groot_ros.bags.recover import recover_bag

    if not is_bag(options.bag) and not is_torn_bag(options.bag):
        raise GrootRosError(
            f'{options.bag} {describe_path(options.bag)}: give the folder of one damaged bag.'
        )
    recovered = recover_bag(options.bag)
    say(options, f'{recovered.messages} messages saved in {recovered.path}')
    write_json(options, {'bag': str(recovered.path), 'messages': recovered.messages})
    return 0
