# SPDX-License-Identifier: Apache-2.0
"""`groot-ros up`: starts the processes of a robot cell."""

import argparse
from dataclasses import fields

from groot_ros.bringup.profiles import PROFILES, Options
from groot_ros.cli.options import ParagraphHelp
from groot_ros.cli.requirements import require_ros

_EXAMPLES = """examples:
  groot-ros up collect --sim --enable --output-dir episodes
  groot-ros up record --robot-ip 192.168.1.100

The arm does not move before `groot-ros call enable` in another terminal."""


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    profiles = '\n'.join(f'  {name:9} {profile.description}' for name, profile in PROFILES.items())
    command = commands.add_parser(
        'up',
        help='start the processes of a robot cell',
        description='Starts the processes of a profile, and stops them in order on Ctrl-C.\n\n'
        f'profiles:\n{profiles}',
        epilog=_EXAMPLES,
        formatter_class=ParagraphHelp,
    )
    command.add_argument('profile', choices=PROFILES)
    for option in fields(Options):
        _add_option(command, option)
    command.add_argument(
        '--enable',
        action='store_true',
        help='enable the arm of the simulated cell as soon as it is ready (collect --sim only; '
        'on a real robot a person does it)',
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the profile until Ctrl-C or until a process ends."""
    require_ros('groot-ros up')
    from groot_ros.bringup.supervisor import up

    chosen = {option.name: getattr(options, option.name) for option in fields(Options)}
    return up(options.profile, Options(**chosen), options.enable)


def _add_option(command: argparse.ArgumentParser, option) -> None:
    flag = f'--{option.name.replace("_", "-")}'
    text = option.metadata['description']
    if isinstance(option.default, bool):
        command.add_argument(flag, action='store_true', help=text)
        return
    default = f' (default {option.default})' if option.default != '' else ''
    command.add_argument(flag, type=type(option.default), default=option.default, help=text + default)
