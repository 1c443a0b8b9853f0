# SPDX-License-Identifier: Apache-2.0
"""`groot-ros modality-config`: writes the Python file that GR00T's training reads."""

import argparse
from pathlib import Path

from groot_ros.argument_types import output_file, whole_number
from groot_ros.cli.options import ParagraphHelp, add_embodiment_option, add_gr00t_version_option
from groot_ros.cli.output import add_quiet_option, say

_DESCRIPTION = 'Writes the Python file that GR00T N1.5, N1.6 or N1.7 needs to read a converted dataset.'
_EXAMPLES = """example:
  groot-ros modality-config --gr00t-version n1.7 --output ur5e_config.py
  python gr00t/experiment/launch_finetune.py --modality-config-path ur5e_config.py \\
    --embodiment-tag NEW_EMBODIMENT ..."""


def add_parser(commands) -> None:
    """Adds the command to the subparsers."""
    command = commands.add_parser(
        'modality-config',
        help='write the config file that GR00T needs to train on a dataset',
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=ParagraphHelp,
    )
    add_embodiment_option(command)
    add_gr00t_version_option(command, 'the GR00T version that will read the file')
    command.add_argument(
        '--horizon', type=whole_number(1), default=16, help='steps of an action chunk (default 16)'
    )
    command.add_argument(
        '--relative',
        action='store_true',
        help='predict poses relative to the state instead of deltas; the embodiment needs eef_9d',
    )
    command.add_argument(
        '--dataset',
        type=Path,
        metavar='FOLDER',
        help='dataset that the file is for: N1.5 learns commands that are 0 or 1 in it as open or closed',
    )
    command.add_argument(
        '--output', type=output_file('.py'), metavar='FILE', help='file to write (default: print the text)'
    )
    add_quiet_option(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes or prints the file."""
    from groot_ros.dataset.meta import DatasetMeta
    from groot_ros.dataset.modality_config import find_two_valued, modality_config
    from groot_ros.embodiment import load_embodiment

    embodiment = load_embodiment(options.embodiment)
    two_valued = find_two_valued(DatasetMeta(options.dataset), embodiment) if options.dataset else []
    text = modality_config(embodiment, options.gr00t_version, options.horizon, options.relative, two_valued)
    if options.output is None:
        print(text, end='')
        return 0
    options.output.write_text(text)
    say(options, f'Written to {options.output}')
    return 0
