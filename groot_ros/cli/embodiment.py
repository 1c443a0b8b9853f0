# SPDX-License-Identifier: Apache-2.0
"""`groot-ros embodiment`: checks an embodiment file, and shows what a row of it is."""

import argparse
from typing import TYPE_CHECKING

from groot_ros.cli.options import ParagraphHelp
from groot_ros.cli.output import add_output_options, say, write_json

if TYPE_CHECKING:
    from groot_ros.embodiment import ActionField, CameraField, Embodiment, StateField

_EXAMPLES = """examples:
  groot-ros embodiment check my_robot.yaml
  groot-ros embodiment check ur5e_robotiq_zed"""


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    command = commands.add_parser(
        'embodiment',
        help='check an embodiment file, and show what a row of it is',
        description='Checks an embodiment file as all other commands do, without data, and shows its rows.',
        epilog=_EXAMPLES,
        formatter_class=ParagraphHelp,
    )
    command.add_argument('action', choices=['check'], help='what to do')
    command.add_argument('file', help='the path of a YAML file, or a name in config/embodiments')
    add_output_options(command, 'the embodiment with all its defaults')
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Checks the file. Raises GrootRosError, which names the key, if it is wrong."""
    from groot_ros.embodiment import load_embodiment

    embodiment = load_embodiment(options.file)
    say(options, *_summary_lines(embodiment))
    write_json(options, embodiment.values())
    return 0


def _summary_lines(embodiment: 'Embodiment') -> list[str]:
    lines = [f'{embodiment.name}: {embodiment.fps:g} rows a second']
    for name, fields, size in (
        ('state', embodiment.state, embodiment.state_size),
        ('action', embodiment.action, embodiment.action_size),
    ):
        lines.append(f'  {name}, {size} numbers')
        lines += [f'    {field.name:20} {field.size:3}{_origin(field)}' for field in fields]
    lines.append('  cameras')
    lines += [
        f'    {camera.name:20} {camera.width}x{camera.height}{_origin(camera)}'
        for camera in embodiment.cameras
    ]
    lines.append(f'the embodiment is good; its rows have the language key {embodiment.language}')
    return lines


def _origin(field: 'StateField | ActionField | CameraField') -> str:
    """Where the numbers come from: a topic, a column of a table, or the pose of the state."""
    place = field.topic or field.column
    return f'  from {place}' if place else ''
