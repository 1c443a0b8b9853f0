# SPDX-License-Identifier: Apache-2.0
"""The one reader of datasets gives the same rows, tasks and frames from LeRobot v2.1 and v3.0."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from groot_ros.dataset.convert import convert
from groot_ros.dataset.meta import DatasetMeta, column_to_array, path_inside, read_parquet, read_records
from groot_ros.dataset.meta_models import EpisodeRecord
from groot_ros.dataset.options import ConversionOptions
from groot_ros.errors import GrootRosError
from groot_ros.policies.replay_policy import ReplayPolicy
from groot_ros.video.mp4 import read_frames

CAMERA = 'observation.images.zed_camera'


@pytest.fixture(scope='module')
def both(tmp_path_factory, bags, embodiment):
    """The same three episodes in v2.1 and in v3.0."""
    folder = tmp_path_factory.mktemp('both')
    for version in ('v2.1', 'v3.0'):
        convert([bags], folder / version, embodiment, ConversionOptions(format=version))
    return DatasetMeta(folder / 'v2.1'), DatasetMeta(folder / 'v3.0')


def test_both_versions_give_the_same_episodes_and_tasks(both):
    old, new = both
    assert (old.is_v3, new.is_v3) == (False, True)
    assert old.tasks == new.tasks
    lengths = [[record['length'] for record in meta.episodes] for meta in both]
    assert lengths == [[29, 30, 31], [29, 30, 31]]


def test_both_versions_give_the_same_rows_and_frames_of_an_episode(both):
    old, new = both
    for name in ('observation.state', 'action', 'episode_index', 'index'):
        np.testing.assert_array_equal(column_to_array(old.rows(1), name), column_to_array(new.rows(1), name))
    assert new.first_frame(CAMERA, 1) == 29
    frames = [
        next(read_frames(meta.video_file(CAMERA, 1), [meta.first_frame(CAMERA, 1) + 5])) for meta in both
    ]
    np.testing.assert_array_equal(*frames)


def test_an_episode_of_either_version_is_replayed(both, embodiment):
    old, new = (ReplayPolicy(meta.root, 2, embodiment) for meta in both)
    np.testing.assert_array_equal(old.actions, new.actions)


def test_an_episode_that_does_not_exist_is_named(both):
    for meta in both:
        with pytest.raises(GrootRosError, match='no episode 3: it has 3, counted from 0'):
            meta.rows(3)


def test_a_missing_or_damaged_file_is_named(tmp_path):
    meta = DatasetMeta(tmp_path)
    with pytest.raises(GrootRosError, match=r'meta/info\.json cannot be read'):
        _ = meta.fps
    (tmp_path / 'meta').mkdir()
    (tmp_path / 'meta/info.json').write_text('[]')
    with pytest.raises(GrootRosError, match='not a JSON object'):
        _ = meta.info
    (tmp_path / 'meta/info.json').write_text('{"data_path": "../{episode_index}.parquet"}')
    with pytest.raises(GrootRosError, match='outside of the dataset'):
        meta.data_file(0)


def test_each_bad_line_of_records_is_a_problem(tmp_path):
    good = {'episode_index': 0, 'length': 3}
    (tmp_path / 'x.jsonl').write_text(f'{json.dumps(good)}\n\n{{"length": 1}}\nno\n')
    records, problems = read_records(tmp_path / 'x.jsonl', EpisodeRecord)
    assert records == [good]
    assert [problem.split()[1] for problem in problems] == ['2', '3', '4']


def test_a_path_may_not_leave_the_dataset(tmp_path):
    assert path_inside(tmp_path, 'data/a.parquet') == tmp_path.resolve() / 'data/a.parquet'
    with pytest.raises(ValueError, match='outside'):
        path_inside(tmp_path, '../a.parquet')
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(ValueError, match='is not a file'):
        path_inside(tmp_path, 'pipe')
    (tmp_path / 'circle').symlink_to('circle')
    with pytest.raises(ValueError, match='is not a path'):
        path_inside(tmp_path, 'circle/a')


def test_the_cache_of_hugging_face_is_a_dataset_of_links_to_blobs(tmp_path):
    snapshot = tmp_path / 'datasets--lab--cube/snapshots/0123'
    blobs = tmp_path / 'datasets--lab--cube/blobs'
    (snapshot / 'data').mkdir(parents=True)
    blobs.mkdir()
    (blobs / 'abc').write_text('x')
    (snapshot / 'data/a.parquet').symlink_to('../../../blobs/abc')
    (snapshot / 'data/b.parquet').symlink_to('../../../../secret')
    assert path_inside(snapshot, 'data/a.parquet') == blobs.resolve() / 'abc'
    with pytest.raises(ValueError, match='outside'):
        path_inside(snapshot, 'data/b.parquet')


def _info(**changes):
    return {
        'codebase_version': 'v2.1',
        'fps': 20,
        'features': {},
        'data_path': 'd/{episode_index}.parquet',
        **changes,
    }


@pytest.mark.parametrize(
    ('name', 'content', 'reason'),
    [
        ('info.json', _info(fps='20'), 'fps is wrong'),
        ('info.json', _info(fps=float('inf')), 'fps is wrong'),
        ('info.json', _info(fps=None, chunks_size=0), 'chunks_size is wrong'),
        ('info.json', _info(features={'action': {'dtype': 'float32', 'shape': []}}), 'features.action.shape'),
        ('info.json', _info(features=[]), 'features is wrong'),
        ('info.json', _info(data_path='{episode_index:>2000000000}'), 'not a field of a path'),
        ('info.json', _info(data_path='{episode_index.__class__}'), 'not a field of a path'),
        ('info.json', _info(data_path='{episode_index!r}'), 'not a field of a path'),
        ('info.json', _info(data_path='{'), 'data_path is wrong'),
        ('info.json', _info(data_path='a\0b'), 'null bytes'),
        ('modality.json', {'state': {'pose': {'start': '0', 'end': 7}}}, 'state.pose.start is wrong'),
        ('modality.json', {'video': {'front': 'x'}}, 'video.front is wrong'),
        ('stats.json', {'action': [1.0]}, 'action is wrong'),
        ('conversion.json', {'embodiment': {'action': [{'kind': 3}]}}, 'embodiment.action.0'),
    ],
)
def test_meta_files_of_wrong_types_are_refused_by_key(tmp_path, name, content, reason):
    (tmp_path / 'meta').mkdir()
    (tmp_path / 'meta' / name).write_text(json.dumps(content))
    with pytest.raises(GrootRosError, match=reason):
        getattr(DatasetMeta(tmp_path), name.removesuffix('.json'))


def test_nesting_and_pipes_in_meta_are_refused(tmp_path):
    (tmp_path / 'meta').mkdir()
    (tmp_path / 'meta/info.json').write_text('{"a": ' * 100_000)
    os.mkfifo(tmp_path / 'meta/stats.json')
    (tmp_path / 'meta/episodes.jsonl').write_text(
        '[' * 100_000 + '\n[]\n{"episode_index": -1, "length": 3}\n'
    )
    meta = DatasetMeta(tmp_path)
    with pytest.raises(GrootRosError, match='nested too deeply'):
        _ = meta.info
    with pytest.raises(GrootRosError, match='it is not a file'):
        _ = meta.stats
    _, problems = read_records(tmp_path / 'meta/episodes.jsonl', EpisodeRecord)
    assert len(problems) == 3


@pytest.mark.parametrize(
    ('column', 'reason'),
    [
        (pa.array([[1.0, 2.0], [1.0]]), 'differ in length'),
        (pa.array([[1.0, 2.0], None]), 'without a vector'),
        (pa.array([[1.0, None], [1.0, 2.0]]), 'without a number'),
        (pa.array([1.0, None]), 'without a number'),
        (pa.array(['a', 'b']), 'instead of numbers'),
        (pa.array([['a'], ['b']]), 'instead of numbers'),
        (pa.array([{'a': 1}, {'a': 2}]), 'instead of numbers'),
    ],
)
def test_columns_that_are_no_numbers_are_refused(column, reason):
    with pytest.raises(GrootRosError, match=reason):
        column_to_array(pa.table({'x': column}), 'x')
    with pytest.raises(GrootRosError, match='no column y'):
        column_to_array(pa.table({'x': column}), 'y')


def test_few_bytes_of_parquet_never_become_much_memory(tmp_path):
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(200_000_000, np.int8)), pa.array([1.0]))
    pq.write_table(pa.table({'x': column}), tmp_path / 'x.parquet')
    del column
    assert (tmp_path / 'x.parquet').stat().st_size < 1 << 20
    with pytest.raises(ValueError, match='says that it has 200000000 values'):
        read_parquet(tmp_path / 'x.parquet')
