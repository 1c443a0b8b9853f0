# SPDX-License-Identifier: Apache-2.0
"""The parser of `groot-ros`: one sentence for wrong usage, with the nearest word that is known."""

import argparse
from typing import Any, NoReturn

from groot_ros.errors import nearest


class Parser(argparse.ArgumentParser):
    """Names the nearest word for an unknown one. Options are not abbreviated: scripts would break later."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Prints one sentence, without the whole usage, and exits with 2."""
        self.exit(2, f'error: {message}. See `{self.prog} --help`.\n')

    def unknown(self, arguments: list[str]) -> NoReturn:
        """Exits with 2 for arguments that no option takes."""
        word = arguments[0]
        if not word.startswith('-'):
            self.error(f'the argument {word!r} is one too many: put a text with spaces in quotes')
        name = word.split('=')[0]
        self.error(f'the option {name} is not known{nearest(name, self._option_string_actions)}')

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """As argparse does, with the nearest choice."""
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            text = f'{value!r} is not known: use one of {", ".join(names)}{nearest(str(value), names)}'
            raise argparse.ArgumentError(action, text)
