# SPDX-License-Identifier: Apache-2.0
"""Damaged HDF5 files, LeRobot datasets of both versions, and their parquet files."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuzz.damage import damage_bytes, damage_json
from fuzz.target import Target, WrongAcceptError
from groot_ros.cli.main import main
from groot_ros.dataset.convert import convert
from groot_ros.dataset.meta import DatasetMeta
from groot_ros.dataset.options import ConversionOptions
from groot_ros.embodiment import load_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.policies.evaluate import check_dataset

_ROWS = 20
_SIZE = 32
_SECRET = 42.0
_HDF5 = """
name: fuzz
robot_type: none
fps: 10
state:
  - {name: position, column: obs/position, size: 3}
  - {name: turn, column: obs/turn, field: quaternion}
action: [{name: move, kind: delta, column: actions, size: 4}]
cameras: [{name: front, column: obs/front, width: 32, height: 32}]
"""
_LEROBOT = """
name: fuzz
robot_type: none
fps: 10
state: [{name: all, column: observation.state, size: 7}]
action: [{name: move, kind: delta, column: action, size: 4}]
cameras: [{name: front, column: observation.images.front, width: 32, height: 32}]
"""
_ODD_VALUES: tuple[Callable[[], Any], ...] = (
    lambda: np.full((_ROWS, 3), np.nan),
    lambda: np.full((_ROWS, 3), np.inf),
    lambda: np.full((_ROWS, 4), 1e300),
    lambda: np.zeros((_ROWS, 4)),
    lambda: np.zeros((_ROWS, 0)),
    lambda: np.zeros((0, 3)),
    lambda: np.zeros((_ROWS - 1, 3)),
    lambda: np.zeros((_ROWS, 2, 2, 2, 2)),
    lambda: np.zeros((_ROWS, 3), complex),
    lambda: np.zeros(_ROWS, [('a', 'f8'), ('b', 'i4')]),
    lambda: np.array([b'text'] * _ROWS),
    lambda: 3.0,
    lambda: h5py.Empty('f8'),
    lambda: np.zeros((_ROWS, _SIZE, _SIZE, 4), np.uint8),
    lambda: np.zeros((_ROWS, 1, 1, 3), np.uint8),
    lambda: np.zeros((_ROWS, 3), bool),
)
_SHAPES = ((10**12, 3), (10**6, 10**4), (_ROWS, 10**9), (_ROWS, 10**5, 10**5, 3), (2**40, 32, 32, 3))


def _write_hdf5(path: Path) -> None:
    random = np.random.default_rng(0)
    turn = np.tile([0.0, 0.0, 0.0, 1.0], (_ROWS, 1))
    with h5py.File(path, 'w') as file:
        for number in range(2):
            group = file.create_group(f'data/demo_{number}')
            group.attrs.update({'task': 'push', 'success': True})
            group['obs/position'] = random.random((_ROWS, 3))
            group['obs/turn'] = turn
            group['actions'] = random.random((_ROWS, 4))
            shape = (_ROWS, _SIZE, _SIZE, 3)
            images = random.integers(0, 255, shape, np.uint8)
            group.create_dataset('obs/front', data=images, compression='gzip', chunks=(1, *shape[1:]))


class Hdf5(Target):
    """`groot-ros convert` of a damaged or odd HDF5 file. Bytes of another file must not come in."""

    name = 'hdf5-convert'
    modules = ('groot_ros.dataset.convert',)

    def prepare(self, seeds: Path) -> None:
        """Writes a file with two demonstrations, and one with numbers that must stay where they are."""
        (seeds / 'embodiment.yaml').write_text(_HDF5)
        _write_hdf5(seeds / 'seed.hdf5')
        (seeds / 'secret').write_bytes(np.full(1000, _SECRET).tobytes())

    def run_case(self, random: np.random.Generator, seeds: Path, folder: Path) -> int:
        """Converts a damaged file."""
        file = folder / 'x.hdf5'
        shutil.copy(seeds / 'seed.hdf5', file)
        if random.random() < 0.5:
            file.write_bytes(damage_bytes(random, file.read_bytes()))
        else:
            with h5py.File(file, 'a') as opened:
                _change(random, opened['data/demo_0'], seeds / 'secret')
        arguments = ['--embodiment', str(seeds / 'embodiment.yaml'), '--output', str(folder / 'set')]
        code = main(['convert', str(file), *arguments])
        if code == 0 and any(_SECRET in values for values in _states(folder / 'set')):
            raise WrongAcceptError('the dataset has bytes of another file')
        return code


def _states(dataset: Path) -> list[np.ndarray]:
    tables = [pq.read_table(file) for file in dataset.rglob('*.parquet')]
    return [np.array(table['observation.state'].to_pylist()) for table in tables]


def _change(random: np.random.Generator, group: h5py.Group, secret: Path) -> None:
    names = ('obs/position', 'obs/turn', 'actions', 'obs/front')
    name = names[random.integers(len(names))]
    choice = random.random()
    if choice < 0.1:
        group.attrs['task'] = ('two\nlines', 3, np.nan, [1.0, 2.0], 'x' * 10**5, 'a\tb')[random.integers(6)]
        return
    if choice < 0.2:
        group.attrs['success'] = ('no', [True, False], np.nan, h5py.Empty('f8'))[random.integers(4)]
        return
    if choice < 0.25:
        group.file['data'].attrs['env_args'] = ('[' * 50_000, '3', '{"env_name": {}}')[random.integers(3)]
        return
    del group[name]
    if choice < 0.6:
        group[name] = _ODD_VALUES[random.integers(len(_ODD_VALUES))]()
    elif choice < 0.75:
        shape = _SHAPES[random.integers(len(_SHAPES))]
        group.create_dataset(name, shape, (float, np.uint8)[random.integers(2)], chunks=True)
    elif choice < 0.85:
        storage = [(str(secret), 0, _ROWS * 24)]
        group.create_dataset(name, (_ROWS, 3), float, external=storage)
    elif choice < 0.9:
        group[name] = h5py.SoftLink('/data/demo_1/' + name)
    else:
        group[name] = h5py.ExternalLink(str(secret), '/x')


class LeRobot(Target):
    """A damaged LeRobot dataset as a source, validated, extended, and read for replay, in v2.1 and v3.0."""

    name = 'lerobot'
    modules = (
        'groot_ros.dataset.convert',
        'groot_ros.dataset.validation.validate',
        'groot_ros.dataset.report',
    )

    def prepare(self, seeds: Path) -> None:
        """Converts an HDF5 file to both versions."""
        (seeds / 'own.yaml').write_text(_HDF5)
        (seeds / 'embodiment.yaml').write_text(_LEROBOT)
        _write_hdf5(seeds / 'seed.hdf5')
        for version in ('v2.1', 'v3.0'):
            options = ConversionOptions(format=version)
            convert([seeds / 'seed.hdf5'], seeds / version, load_embodiment(str(seeds / 'own.yaml')), options)

    def run_case(self, random: np.random.Generator, seeds: Path, folder: Path) -> int:
        """Damages one file of a dataset, and reads it in one of the ways."""
        version = 'v2.1' if random.random() < 0.7 else 'v3.0'
        dataset = folder / 'set'
        shutil.copytree(seeds / version, dataset)
        _damage_file(random, dataset)
        if version == 'v3.0':
            return _read(dataset, seeds)
        way = random.random()
        if way < 0.3:
            return main(['validate', str(dataset), '--horizon', '4'])
        if way < 0.4:
            return main(['validate', str(dataset), '--horizon', '4', '--report', str(folder / 'report.html')])
        if way < 0.8:
            arguments = ['--embodiment', str(seeds / 'embodiment.yaml'), '--output', str(folder / 'new')]
            return main(['convert', str(dataset), *arguments])
        if way < 0.9:
            arguments = ['--embodiment', str(seeds / 'own.yaml'), '--output', str(dataset), '--append']
            return main(['convert', str(seeds / 'seed.hdf5'), *arguments])
        return _read(dataset, seeds)


def _read(dataset: Path, seeds: Path) -> int:
    """As a replay and an evaluation read it."""
    embodiment = load_embodiment(str(seeds / 'own.yaml'))
    try:
        check_dataset(dataset, embodiment, [0, 1])
        meta = DatasetMeta(dataset)
        meta.first_frame('observation.images.front', 1)
        meta.video_file('observation.images.front', 1)
        print(meta.tasks, meta.stats.keys(), meta.modality.keys())
    except GrootRosError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _damage_file(random: np.random.Generator, dataset: Path) -> None:
    files = sorted(file for file in dataset.rglob('*') if file.is_file())
    of_text = [file for file in files if file.suffix in ('.json', '.jsonl')]
    others = [file for file in files if file.suffix not in ('.json', '.jsonl')]
    if random.random() < 0.6:
        file = of_text[random.integers(len(of_text))]
        file.write_text(damage_json(random, file.read_text()), errors='surrogatepass')
        return
    file = others[random.integers(len(others))]
    if file.suffix == '.parquet' and random.random() < 0.5:
        pq.write_table(_odd_table(random, pq.read_table(file)), file)
    else:
        file.write_bytes(damage_bytes(random, file.read_bytes()))


def _odd_table(random: np.random.Generator, table: pa.Table) -> pa.Table:
    """The table with a column of other types, nulls, other lengths, or without it."""
    number = int(random.integers(table.num_columns))
    name = table.column_names[number]
    rows = table.num_rows
    odd = (
        lambda: pa.nulls(rows),
        lambda: pa.array(['text'] * rows),
        lambda: pa.array([None, *range(rows - 1)]),
        lambda: pa.array([[1.0] * (k % 3) for k in range(rows)]),
        lambda: pa.array([[None, 1.0]] * rows),
        lambda: pa.array([float('nan')] * rows),
        lambda: pa.array([10**18] * rows),
        lambda: pa.array([{'a': 1}] * rows),
        lambda: pa.array([[]] * rows, pa.list_(pa.float64())),
        lambda: pa.array([-1] * rows),
    )
    if random.random() < 0.15:
        return table.drop_columns([name])
    if random.random() < 0.1:
        return table.slice(0, 0)
    return table.set_column(number, name, odd[random.integers(len(odd))]())
