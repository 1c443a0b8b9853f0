# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, the form of help texts."""

import argparse

from groot_ros.resources import DEFAULT_EMBODIMENT


class ParagraphHelp(argparse.HelpFormatter):
    """Wraps a text of one paragraph, and leaves examples and tables as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if '\n' in text else super()._fill_text(text, width, indent)


def add_embodiment_option(command: argparse.ArgumentParser) -> None:
    """Adds --embodiment, with our own robot as default."""
    command.add_argument(
        '--embodiment',
        default=DEFAULT_EMBODIMENT,
        help=f'a name in config/embodiments, or the path of a YAML file (default {DEFAULT_EMBODIMENT})',
    )


def add_gr00t_version_option(command: argparse.ArgumentParser, purpose: str) -> None:
    """Adds --gr00t-version, default n1.7; `purpose` says what it decides in this command."""
    command.add_argument(
        '--gr00t-version', default='n1.7', help=f'n1.5, n1.6 or n1.7: {purpose} (default n1.7)'
    )


def add_embodiment_tag_option(command: argparse.ArgumentParser) -> None:
    """Adds --embodiment-tag, which selects one of the embodiments that a GR00T checkpoint holds."""
    command.add_argument(
        '--embodiment-tag',
        default='new_embodiment',
        metavar='TAG',
        help='which embodiment of a GR00T checkpoint (default new_embodiment)',
    )


def add_model_options(command: argparse.ArgumentParser) -> None:
    """Adds the options that say how a checkpoint is loaded."""
    command.add_argument(
        '--python',
        default='',
        metavar='PATH',
        help="the Python interpreter that has the model's libraries (default: this one)",
    )
    command.add_argument(
        '--device',
        default='',
        help='where the model runs, such as cuda:0 (default: the GPU if there is one)',
    )
    add_embodiment_tag_option(command)
    command.add_argument(
        '--data-config',
        default='',
        metavar='MODULE:CLASS',
        help='data config, which GR00T N1.5 checkpoints need',
    )
