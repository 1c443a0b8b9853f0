# SPDX-License-Identifier: Apache-2.0
"""`groot-ros embodiment`: checks an embodiment file, or drafts one for a LeRobot dataset."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from groot_ros.argument_types import STANDARD_OUTPUT
from groot_ros.cli.options import ParagraphHelp
from groot_ros.cli.output import add_output_options, say, write_json

if TYPE_CHECKING:
    from groot_ros.embodiment import ActionField, CameraField, Embodiment, StateField

_DESCRIPTION = (
    'check: checks an embodiment file as all other commands do, without data, and shows its rows. '
    'draft: prints an embodiment file for a LeRobot dataset, made from its meta/info.json: one group of '
    'numbers for each arm and gripper that the dataset names, and all cameras.'
)
_EXAMPLES = """examples:
  groot-ros embodiment check my_robot.yaml
  groot-ros embodiment draft datasets/so101 > my_robot.yaml
  groot-ros embodiment draft hub:lerobot/svla_so101_pickplace > so101.yaml
  groot-ros embodiment check ur5e_robotiq_zed"""


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    command = commands.add_parser(
        'embodiment',
        help='check an embodiment file, or draft one for a LeRobot dataset',
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=ParagraphHelp,
    )
    command.add_argument('action', choices=['check', 'draft'], help='what to do')
    command.add_argument(
        'file',
        metavar='FILE_OR_DATASET',
        help='check: the path of a YAML file, or a name in config/embodiments; draft: the folder of a '
        'dataset, or hub:OWNER/NAME',
    )
    add_output_options(command, 'the embodiment with all its defaults')
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Checks or drafts the file. Raises GrootRosError, which names the key, if it is wrong."""
    if options.action == 'draft':
        return _draft(options)
    from groot_ros.embodiment import load_embodiment

    embodiment = load_embodiment(options.file)
    say(options, *_summary_lines(embodiment))
    write_json(options, embodiment.values())
    return 0


def _draft(options: argparse.Namespace) -> int:
    from groot_ros.dataset.embodiment_draft import draft_embodiment
    from groot_ros.dataset.meta import DatasetMeta
    from groot_ros.dataset.sources.hub import download_meta, is_hub
    from groot_ros.dataset.sources.recording import shown_place

    folder = download_meta(options.file) if is_hub(options.file) else Path(options.file).expanduser()
    where = shown_place(str(folder))
    embodiment, text = draft_embodiment(DatasetMeta(folder).info, where.rpartition('/')[2], where)
    if options.json != STANDARD_OUTPUT:
        print(text, end='')
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
