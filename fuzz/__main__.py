# SPDX-License-Identifier: Apache-2.0
"""`python -m fuzz`: runs the targets and prints a table; the exit code is 1 if a case did not end well."""

import argparse
import sys

import cv2

from fuzz.cases import Counts, run_cases, table_lines
from fuzz.targets import TARGETS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m fuzz', description=__doc__)
    parser.add_argument('--cases', type=int, default=10_000, help='cases of all targets together')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--jobs', type=int, default=2, help='cases at the same time')
    parser.add_argument('--targets', default=','.join(TARGETS), help='names, with commas between them')
    parser.add_argument('--only', type=int, metavar='NUMBER', help='run one case of the one target again')
    return parser


def main() -> int:
    """Runs the cases that the arguments ask for."""
    options = _parser().parse_args()
    cv2.setNumThreads(1)
    names = options.targets.split(',')
    shares = sum(TARGETS[name][1] for name in names)
    all_counts: list[Counts] = []
    for name in names:
        target, share = TARGETS[name]
        numbers = [options.only] if options.only is not None else range(options.cases * share // shares)
        counts = run_cases(target, list(numbers), options.seed, options.jobs)
        for finding in counts.findings:
            print(f'{name} {finding.number}: {finding.outcome}\n{finding.text[-2000:]}', file=sys.stderr)
        all_counts.append(counts)
    for line in table_lines(all_counts):
        print(line)
    return 1 if any(counts.findings for counts in all_counts) else 0


if __name__ == '__main__':
    sys.exit(main())
