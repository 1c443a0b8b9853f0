# SPDX-License-Identifier: Apache-2.0
"""The figures of the whole loop in the simulated cell: what `make demo` judges, as a benchmark."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmark.common import options, report


def main() -> None:
    chosen = options(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / 'demo'
        subprocess.run(
            [sys.executable, '-m', 'groot_ros.cli', 'demo', '--output', str(output)],
            check=False,
            stdout=subprocess.DEVNULL,
        )
        figures = json.loads((output / 'metrics.json').read_text())
    report(
        'The loop: three episodes and a replay',
        [(f['name'], f['value'], f['unit']) for f in figures],
        chosen.json,
    )


if __name__ == '__main__':
    main()
