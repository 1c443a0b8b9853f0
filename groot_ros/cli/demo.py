# SPDX-License-Identifier: Apache-2.0
"""`groot-ros demo`: record, convert, validate and replay in the simulated cell."""

import argparse
import contextlib
import io
import ipaddress
import json
import sys
from pathlib import Path
from typing import TextIO

from groot_ros.argument_types import STANDARD_OUTPUT, whole_number
from groot_ros.cli.output import add_output_options, write_json
from groot_ros.cli.requirements import require_ros

_DESCRIPTION = (
    'Runs the whole workflow in the simulated cell: records scripted episodes, converts and validates them, '
    'replays one on the simulated robot, and writes metrics.json and report.html. '
    'The exit code is 1 if a measured value is worse than its bound.'
)


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    command = commands.add_parser(
        'demo', help='run the whole workflow in the simulated cell', description=_DESCRIPTION
    )
    command.add_argument(
        '--output', type=Path, default=Path('demo_output'), help='output folder (default demo_output)'
    )
    command.add_argument(
        '--episodes', type=whole_number(1), default=3, help='how many episodes to record (default 3)'
    )
    command.add_argument(
        '--host',
        type=_loopback,
        default='127.0.0.1',
        help='loopback address of the simulated cell (default 127.0.0.1)',
    )
    add_output_options(command, 'the metrics')
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the demo. Returns 1 if a value is worse than its bound."""
    require_ros('groot-ros demo')
    from groot_ros.sim.nodes.demo import run_demo

    with contextlib.redirect_stdout(_stream(options)):
        code = run_demo(options.output, options.episodes, options.host)
    write_json(options, json.loads((options.output / 'metrics.json').read_text()))
    return code


def _stream(options: argparse.Namespace) -> TextIO:
    """Where lines for people go, as in `output.say`."""
    if options.quiet:
        return io.StringIO()
    return sys.stderr if options.json == STANDARD_OUTPUT else sys.stdout


def _loopback(text: str) -> str:
    """A type of loopback addresses: the simulated cell is only for this machine."""
    try:
        is_loopback = ipaddress.IPv4Address(text).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise argparse.ArgumentTypeError(f'{text!r} is not an address of this machine, such as 127.0.0.2')
    return text
