# SPDX-License-Identifier: Apache-2.0
"""Trains the small policy; a Python that has torch runs this file.

    python run_training.py DATASET OUTPUT [--steps N] [--batch-size N] ...

Only this package is made importable, not the libraries next to it, which may belong to another Python.
"""

import argparse
import importlib.util
import sys
from pathlib import Path


def main() -> int:
    """Entry: reads the dataset and trains. Returns 1 with one sentence if it cannot."""
    options = _parser().parse_args()
    _import_package_only()
    from groot_ros.errors import GrootRosError
    from groot_ros.small_policy.episodes import load_dataset
    from groot_ros.small_policy.training_loop import LoopSettings, Training

    values = vars(options)
    dataset = values.pop('dataset')
    horizon = values.pop('horizon')
    without = values.pop('without')
    try:
        print(f'Reading {dataset} into memory.', flush=True)
        Training(load_dataset(dataset, horizon, without), LoopSettings(**values)).run()
    except GrootRosError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Trains the small policy on a dataset.')
    parser.add_argument('dataset', type=Path, help='folder of a LeRobot v2 dataset of groot-ros convert')
    parser.add_argument('output', type=Path, help='folder of the checkpoints')
    parser.add_argument('--horizon', type=int, default=20, help='steps of a chunk')
    parser.add_argument('--steps', type=int, default=20000, help='changes of the weights')
    parser.add_argument('--batch-size', type=int, default=128)
    parser.add_argument('--learning-rate', type=float, default=3e-4)
    parser.add_argument('--weight-decay', type=float, default=1e-4)
    parser.add_argument('--warmup-ratio', type=float, default=0.05)
    parser.add_argument('--save-steps', type=int, default=2000, help='steps between two checkpoints')
    parser.add_argument('--keep-checkpoints', type=int, default=5)
    parser.add_argument('--without', type=int, nargs='*', default=[], help='episodes that are held out')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--device', default='', help="a name of torch's, such as cuda:0")
    parser.add_argument('--resume', action='store_true', help='go on from the last checkpoint')
    return parser


def _import_package_only() -> None:
    folder = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location(
        'groot_ros', folder / '__init__.py', submodule_search_locations=[str(folder)]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules['groot_ros'] = package
    spec.loader.exec_module(package)
    own_folder = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if Path(place or '.').resolve() != own_folder]


if __name__ == '__main__':
    raise SystemExit(main())
