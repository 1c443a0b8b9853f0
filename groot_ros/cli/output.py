# SPDX-License-Identifier: Apache-2.0
"""What a command tells: lines for people, and a JSON document for programs (--quiet, --json, NO_COLOR)."""

import argparse
import json
import os
import sys
from typing import Any, TextIO

from groot_ros.argument_types import STANDARD_OUTPUT, json_file

_COLOURS = {
    'pass': '32',
    'fits': '32',
    'warn': '33',
    'warning': '33',
    'warning:': '33',
    'fail': '31',
    'error': '31',
    'error:': '31',
}


def add_output_options(command: argparse.ArgumentParser, content: str) -> None:
    """Adds --json and --quiet; `content` says what the JSON document has."""
    command.add_argument(
        '--json', type=json_file, metavar='FILE', help=f'write {content} as JSON; - for the standard output'
    )
    add_quiet_option(command)


def add_quiet_option(command: argparse.ArgumentParser) -> None:
    """Adds the option --quiet, which leaves out progress and notices."""
    command.add_argument(
        '--quiet', action='store_true', help='print nothing but errors; the exit code tells the rest'
    )


def say(options: argparse.Namespace, *lines: str) -> None:
    """Prints lines for people: nowhere with --quiet, to stderr where JSON goes to the standard output."""
    if options.quiet:
        return
    stream = sys.stderr if getattr(options, 'json', None) == STANDARD_OUTPUT else sys.stdout
    for line in lines:
        print(colour_levels(line, stream), file=stream, flush=True)


def write_json(options: argparse.Namespace, content: Any) -> None:
    """Writes the document of --json, if it is asked for."""
    if options.json is None:
        return
    text = json.dumps(content, indent=2) + '\n'
    if options.json == STANDARD_OUTPUT:
        sys.stdout.write(text)
    else:
        options.json.write_text(text)


def print_error(text: str) -> None:
    """Prints `error:` and one sentence on stderr."""
    print(colour_levels(f'error: {text}', sys.stderr), file=sys.stderr, flush=True)


def colour_levels(line: str, stream: TextIO) -> str:
    """The line with its first level (pass, warn, fail, error) coloured, on a terminal without NO_COLOR."""
    if os.environ.get('NO_COLOR') or not stream.isatty():
        return line
    words = line.split(' ')
    for index, word in enumerate(words):
        if colour := _COLOURS.get(word.rstrip(',')):
            words[index] = f'\033[1;{colour}m{word}\033[0m'
            break
    return ' '.join(words)
