# SPDX-License-Identifier: Apache-2.0
"""`groot-ros call`: calls a service of a running cell, for Pythons without the command `ros2`."""

import argparse

from groot_ros.argument_types import positive_number
from groot_ros.cli.options import ParagraphHelp
from groot_ros.cli.output import add_output_options, say, write_json
from groot_ros.cli.requirements import require_ros

_TIMEOUT_S = 10.0
# The names of groot_ros.ros.call.CALLS, which this Python may be unable to import.
CALLS = {
    'enable': 'commands move the arm from now on',
    'disable': 'the arm holds, and refuses commands',
    'recover': 'recovers from a protective stop',
    'start': 'starts an episode of --task, or of the next task of the list',
    'stop': 'saves the episode as a success',
    'fail': 'saves the episode as a failure',
    'discard': 'deletes the episode that is being recorded',
    'next-task': 'goes on to another task of the list for the next episode',
    'skip-task': 'leaves the next task of the list out, until the recorder is started again',
    'run-policy': 'the policy commands the arm from now on',
    'stop-policy': 'the policy stops',
}


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    names = '\n'.join(f'  {name:12} {text}' for name, text in CALLS.items())
    command = commands.add_parser(
        'call',
        help='enable the arm, start and stop episodes',
        description=f'Calls a service of a running cell.\n\nnames:\n{names}',
        formatter_class=ParagraphHelp,
    )
    command.add_argument('name', choices=CALLS)
    command.add_argument('--task', default='', help='task of the episode in words (start)')
    add_cell_options(command)
    add_output_options(command, 'the answer')
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Calls one service and prints its answer."""
    require_ros('groot-ros call')
    from groot_ros.ros.call import call

    answer = call(options.name, options.task, options.namespace, options.timeout)
    say(options, answer)
    write_json(options, {'name': options.name, 'answer': answer})
    return 0


def add_cell_options(command: argparse.ArgumentParser) -> None:
    """Which cell, and how long to wait for it."""
    command.add_argument('--namespace', default='', help='ROS namespace of the cell')
    command.add_argument(
        '--timeout',
        type=positive_number,
        default=_TIMEOUT_S,
        help=f'how long to wait for the cell, s (default {_TIMEOUT_S:g})',
    )
