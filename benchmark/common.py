# SPDX-License-Identifier: Apache-2.0
"""What every benchmark shares: a table on the terminal and the same figures with --json FILE."""

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any


def options(description: str) -> argparse.Namespace:
    """The command line of a benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures to a file')
    return parser.parse_args()


def report(title: str, figures: list[tuple[str, float, str]], file: Path | None) -> None:
    """Prints (name, value, unit) rows and writes them where asked."""
    print(f'\n{title} ({os.cpu_count()} cores, Python {platform.python_version()})')
    for name, value, unit in figures:
        print(f'  {name:66} {value:>12.4g} {unit}')
    if file is not None:
        rows: list[dict[str, Any]] = [
            {'name': name, 'value': value, 'unit': unit} for name, value, unit in figures
        ]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({'title': title, 'figures': rows}, indent=2) + '\n')
