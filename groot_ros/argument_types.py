# SPDX-License-Identifier: Apache-2.0
"""Types of command line arguments, which refuse a value before the work begins."""

import argparse
from collections.abc import Callable
from pathlib import Path

_MAX_PORT = 65_535
STANDARD_OUTPUT = Path('-')


def whole_number(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """A type of whole numbers from `minimum` to `maximum`."""
    expected = f'a whole number of at least {minimum}'
    if maximum is not None:
        expected = f'a whole number from {minimum} to {maximum}'

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum or (maximum is not None and value > maximum):
            raise argparse.ArgumentTypeError(f'{text!r} is not {expected}')
        return value

    return convert


def positive_number(text: str) -> float:
    """A type of finite numbers above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'{text!r} is not a number above 0')
    return value


def share(text: str) -> float:
    """A type of numbers from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number from 0 to 1')
    return value


port = whole_number(0, _MAX_PORT)


def output_file(*suffixes: str) -> Callable[[str], Path]:
    """A type of files to write: the folder exists, and the name ends with one of the suffixes, if given.

    Checked at the start, so that no work is lost at its end.
    """

    def convert(text: str) -> Path:
        path = Path(text).expanduser()
        if path == STANDARD_OUTPUT:
            raise argparse.ArgumentTypeError(
                'this option cannot write to the terminal: give the name of a file'
            )
        _check_output(path)
        if suffixes and path.suffix not in suffixes:
            raise argparse.ArgumentTypeError(f'{text} does not end with {" or ".join(suffixes)}')
        return path

    return convert


def json_file(text: str) -> Path:
    """A type of files to write JSON to; - is the standard output."""
    path = Path(text).expanduser()
    if path != STANDARD_OUTPUT:
        _check_output(path)
    return path


def _check_output(path: Path) -> None:
    if path.is_dir():
        raise argparse.ArgumentTypeError(
            f'{path} is a folder: give the name of a file, such as {path}/result'
        )
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(
            f'the folder {path.parent} does not exist: make it, or choose another'
        )
