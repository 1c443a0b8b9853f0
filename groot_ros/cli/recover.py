# SPDX-License-Identifier: Apache-2.0
"""`groot-ros recover`: rebuilds a bag that was not closed."""

import argparse
from pathlib import Path

from groot_ros.errors import GrootRosError


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    command = commands.add_parser(
        'recover',
        help='rebuild a bag whose recorder was killed',
        description='Saves every complete chunk of a damaged bag. The damaged folder is kept as NAME.torn.',
    )
    command.add_argument('bag', type=Path, help='folder of the damaged bag')
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Rebuilds the bag. Raises GrootRosError if nothing can be saved."""
    from groot_ros.bags.recover import recover_bag

    if not options.bag.is_dir():
        raise GrootRosError(f'{options.bag} is not a folder: give the folder of the damaged bag.')
    recovered = recover_bag(options.bag)
    print(f'{recovered.messages} messages saved in {recovered.path}')
    return 0
