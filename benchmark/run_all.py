# SPDX-License-Identifier: Apache-2.0
"""`make bench`: runs every benchmark and leaves its figures in benchmark/results."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = (
    'control',
    'convert',
    'demo',
    'driver_checks',
    'policy',
    'policy_cell',
    'policy_execution',
    'policy_ticks',
    'record',
    'record_truth',
    'safety',
)


def main() -> int:
    for name in BENCHMARKS:
        done = subprocess.run(
            [sys.executable, '-m', f'benchmark.{name}', '--json', str(HERE / 'results' / f'{name}.json')],
            cwd=HERE.parent,
            check=False,
        )
        if done.returncode:
            return done.returncode
    return 0


if __name__ == '__main__':
    sys.exit(main())
