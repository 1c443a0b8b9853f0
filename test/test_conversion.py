# SPDX-License-Identifier: Apache-2.0
"""Options of a conversion: append, overwrite, trim, ranges, codecs, LeRobot v3.0, statistics, workers."""

import json
import multiprocessing

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmark import signals
from groot_ros.bags.message_types import typestore
from groot_ros.cli.main import main
from groot_ros.dataset.convert import convert
from groot_ros.dataset.meta import column_to_array
from groot_ros.dataset.options import ConversionOptions, OutputMode
from groot_ros.dataset.validation.validate import validate
from groot_ros.dataset.writers.lerobot_v2 import data_file, video_file
from groot_ros.dataset.writers.statistics import statistics
from groot_ros.embodiment import load_embodiment, parse_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import integrate_deltas, matrix_from_pose
from groot_ros.video.mp4 import count_frames, read_frames

CAMERA = 'observation.images.zed_camera'


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def test_an_extended_dataset_is_that_of_one_conversion(tmp_path, bags, embodiment):
    convert([bags], tmp_path / 'whole', embodiment)
    convert([bags / 'episode_000000'], tmp_path / 'set', embodiment)
    extend = ConversionOptions(existing=OutputMode.APPEND)
    report = convert([bags], tmp_path / 'set', embodiment, extend)
    assert (report.episodes, len(report.known)) == (2, 1)
    assert files_of(tmp_path / 'set') == files_of(tmp_path / 'whole')
    again = convert([bags], tmp_path / 'set', embodiment, extend)
    assert (again.episodes, len(again.known)) == (0, 3)
    assert files_of(tmp_path / 'set') == files_of(tmp_path / 'whole')


def test_a_dataset_with_numbers_in_place_of_vectors_is_not_extended(tmp_path, bags, embodiment):
    convert([bags / 'episode_000000'], tmp_path / 'set', embodiment)
    rows = next((tmp_path / 'set/data').rglob('*.parquet'))
    table = pq.read_table(rows)
    place = table.column_names.index('action')
    pq.write_table(table.set_column(place, 'action', pa.array(np.zeros(table.num_rows))), rows)
    with pytest.raises(GrootRosError, match='action of episode 0 has the shape'):
        convert([bags], tmp_path / 'set', embodiment, ConversionOptions(existing=OutputMode.APPEND))


def test_a_dataset_of_other_rows_is_not_extended(tmp_path, bags, embodiment):
    convert([bags / 'episode_000000'], tmp_path / 'set', embodiment)
    before = files_of(tmp_path / 'set')
    for other, what in (
        (load_embodiment('ur5e_robotiq_zed_9d'), 'observation.eef_9d'),
        (embodiment.at_fps(10), 'fps'),
    ):
        with pytest.raises(GrootRosError, match=f'differs in .*{what}'):
            convert([bags], tmp_path / 'set', other, ConversionOptions(existing=OutputMode.APPEND, horizon=8))
    assert files_of(tmp_path / 'set') == before
    assert [path.name for path in tmp_path.iterdir()] == ['set']


def test_a_dataset_is_replaced_only_by_a_whole_one(tmp_path, bags, embodiment, synthetic):
    convert([bags / 'episode_000000'], tmp_path / 'set', embodiment)
    before = files_of(tmp_path / 'set')
    synthetic(seconds=0.5).record(tmp_path / 'short')
    replace = ConversionOptions(existing=OutputMode.OVERWRITE)
    with pytest.raises(GrootRosError, match='horizon'):
        convert([tmp_path / 'short'], tmp_path / 'set', embodiment, replace)
    assert files_of(tmp_path / 'set') == before
    assert convert([bags], tmp_path / 'set', embodiment, replace).episodes == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ['set', 'short']


def test_a_folder_that_is_no_dataset_is_not_replaced(tmp_path, bags, embodiment):
    (tmp_path / 'home').mkdir()
    (tmp_path / 'home/thesis.tex').write_text('precious')
    with pytest.raises(GrootRosError, match='is no dataset, and is left as it is'):
        convert([bags], tmp_path / 'home', embodiment, ConversionOptions(existing=OutputMode.OVERWRITE))
    assert (tmp_path / 'home/thesis.tex').read_text() == 'precious'


def test_a_run_that_was_killed_while_it_replaced_a_dataset_loses_nothing(tmp_path, bags, embodiment):
    convert([bags / 'episode_000000'], tmp_path / 'set', embodiment)
    before = files_of(tmp_path / 'set')
    (tmp_path / 'set').rename(tmp_path / '.set.before')
    with pytest.raises(GrootRosError, match='exists already'):
        convert([bags], tmp_path / 'set', embodiment)
    assert files_of(tmp_path / 'set') == before


@pytest.mark.parametrize('codec', ['hevc', 'av1'])
def test_other_codecs_show_the_same_images(tmp_path, bags, embodiment, codec):
    convert([bags / 'episode_000000'], tmp_path / 'h264', embodiment)
    convert([bags / 'episode_000000'], tmp_path / codec, embodiment, ConversionOptions(codec=codec))
    info = json.loads((tmp_path / codec / 'meta/info.json').read_text())
    assert info['features'][CAMERA]['info']['video.codec'] == codec
    shown = [
        list(read_frames(video_file(tmp_path / name, CAMERA, 0), [0, 13, 28])) for name in ('h264', codec)
    ]
    for one, other in zip(*shown, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 4
    assert [
        str(finding) for finding in validate(tmp_path / codec).findings if finding.severity == 'error'
    ] == []


def idle(entries, first_ns, last_ns):
    """The same messages, with the arm and the gripper standing still outside of some time."""
    held = {}
    for entry in entries:
        stamp_ns, topic, message = entry
        if topic != 'zed/image':
            header = message.header
            inside = first_ns < stamp_ns < last_ns
            if inside or topic not in held:
                held[topic] = message
            entry[2] = type(message)(**{**vars(held[topic]), 'header': header})
    return entries


@pytest.mark.parametrize('video', ['h264', 'jpeg'])
def test_idle_ends_are_left_out_and_nothing_else_changes(tmp_path, embodiment, synthetic, video):
    from groot_ros.recording.episode_recorder import RecordingSettings

    source = synthetic(seconds=6.0)
    source.record(
        tmp_path / 'bag',
        entries=idle(source.entries(), 1.6e9, 4.1e9),
        settings=RecordingSettings(video=video),
    )
    convert([tmp_path / 'bag'], tmp_path / 'all', embodiment)
    report = convert([tmp_path / 'bag'], tmp_path / 'busy', embodiment, ConversionOptions(idle_s=0.25))
    every, busy = (pq.read_table(data_file(tmp_path / name, 0)) for name in ('all', 'busy'))
    first = next(
        k
        for k in range(len(every))
        if every['observation.state'].slice(k, len(busy)) == busy['observation.state']
    )
    assert report.rows == len(busy) == len(every) - sum(report.trimmed.values())
    assert every['action'].slice(first, len(busy)) == busy['action']
    moving = np.flatnonzero(np.abs(column_to_array(every, 'action')[:, :3]).max(axis=1) > 1e-4)
    # The video begins at a keyframe, one every half second.
    assert moving[0] - 5 - 10 <= first <= moving[0] - 5 + 1
    assert first + len(busy) == moving[-1] + 1 + 5
    shown, whole = (video_file(tmp_path / name, CAMERA, 0) for name in ('busy', 'all'))
    assert count_frames(shown) == len(busy)
    for one, other in zip(read_frames(shown, [0, 20]), read_frames(whole, [first, first + 20]), strict=True):
        assert np.abs(one.astype(int) - other).mean() < 3
    assert [str(finding) for finding in validate(tmp_path / 'busy').findings] == []


def test_time_ranges_make_episodes_of_their_own(tmp_path, embodiment, synthetic, capsys):
    synthetic(seconds=6.0).record(tmp_path / 'session_1')
    ranges = (
        'ranges:\n- {bag: session_1, start_s: 0.5, end_s: 2.0, task: pick}\n'
        '- {bag: session_1, start_s: 3.0, end_s: 5.0, task: place}\n'
    )
    (tmp_path / 'ranges.yaml').write_text(ranges)
    arguments = [
        'convert',
        str(tmp_path / 'session_1'),
        '--output',
        str(tmp_path / 'set'),
        '--ranges',
        str(tmp_path / 'ranges.yaml'),
    ]
    assert main(arguments) == 0
    records = [json.loads(line) for line in (tmp_path / 'set/meta/episodes.jsonl').read_text().splitlines()]
    assert [(record['tasks'][0], record['length']) for record in records] == [('pick', 29), ('place', 39)]
    assert [str(finding) for finding in validate(tmp_path / 'set').findings] == []
    (tmp_path / 'ranges.yaml').write_text(ranges.replace('end_s: 2.0', 'end_s: 0.2'))
    assert main([*arguments[:3], str(tmp_path / 'other'), *arguments[4:]]) == 1
    assert 'end_s 0.2 is not after start_s 0.5' in capsys.readouterr().err


def test_a_bag_of_all_topics_is_split_by_the_episode_status(tmp_path, embodiment, synthetic):
    """As `ros2 bag record -a` makes it in parallel with the recorder: native topics, no rows."""
    kind = 'groot_ros/msg/EpisodeStatus'
    Status = typestore().types[kind]
    source = synthetic(seconds=5.0)
    entries = source.entries()
    for at_s, state, task in (
        (0.7, 1, 'pick'),
        (1.0, 1, 'pick'),
        (2.0, 0, 'pick'),
        (3.0, 1, 'place'),
        (4.5, 0, 'place'),
    ):
        stamp = signals.header(signals.T0_NS + round(at_s * 1e9))
        status = Status(stamp, state, 'e', task, 0, 0, 0, 0.0, 0, 0, 0.0, 0.0, '', [], '', 0, 0, [], [])
        entries.append([round(at_s * 1e9), 'episode_status', status])
    source.write_plain(
        tmp_path / 'everything', sorted(entries, key=lambda entry: entry[0]), {'episode_status': kind}
    )
    convert([tmp_path / 'everything'], tmp_path / 'set', embodiment)
    records = [json.loads(line) for line in (tmp_path / 'set/meta/episodes.jsonl').read_text().splitlines()]
    assert [record['tasks'][0] for record in records] == ['pick', 'place']
    assert [
        abs(record['length'] - wanted) <= 1 for record, wanted in zip(records, (25, 29), strict=True)
    ] == [True, True]


def test_a_gr00t_version_gets_absolute_poses_next_to_deltas_and_its_statistics(tmp_path, bags):
    embodiment = load_embodiment('ur5e_robotiq_zed_9d')
    convert([bags], tmp_path / 'set', embodiment, ConversionOptions(gr00t_version='n1.7', horizon=8))
    meta = tmp_path / 'set/meta'
    table = pq.read_table(data_file(tmp_path / 'set', 0))
    nine, targets = (column_to_array(table, name) for name in ('observation.eef_9d', 'action.eef_9d'))
    np.testing.assert_allclose(targets[:, :3], poses_of(tmp_path / 'set', 0)[1:, :3], atol=1e-9)
    np.testing.assert_allclose(nine[1:], targets[:-1], atol=1e-9)
    parts = json.loads((meta / 'modality.json').read_text())
    assert parts['action']['eef_9d'] == {
        'start': 0,
        'end': 9,
        'absolute': True,
        'original_key': 'action.eef_9d',
    }
    stats = json.loads((meta / 'stats.json').read_text())
    assert (
        set(stats['__fingerprints__'])
        == set(stats) - {'__fingerprints__'}
        == {
            'observation.state',
            'action',
            'observation.eef_9d',
            'action.eef_9d',
            'timestamp',
        }
    )
    relative = json.loads((meta / 'relative_stats.json').read_text())['eef_9d']
    assert np.shape(relative['q99']) == (8, 9)
    chunks = []
    for index in range(3):
        matrices = [matrix_from_pose(pose) for pose in poses_of(tmp_path / 'set', index)]
        chunks += [
            [np.linalg.inv(matrices[k]) @ matrices[k + 1 + step] for step in range(8)]
            for k in range(len(matrices) - 8)
        ]
    seen = np.array(chunks)
    np.testing.assert_allclose(np.array(relative['mean'])[:, :3], seen[:, :, :3, 3].mean(axis=0), atol=1e-7)
    np.testing.assert_allclose(
        np.array(relative['max'])[:, 3:], seen[:, :, :2, :3].reshape(-1, 8, 6).max(axis=0), atol=1e-7
    )
    assert [str(finding) for finding in validate(tmp_path / 'set').findings] == []


def poses_of(dataset, episode):
    """The poses of all rows and the one that the last action leads to."""
    table = pq.read_table(data_file(dataset, episode))
    return integrate_deltas(
        column_to_array(table, 'observation.state')[0, 13:], column_to_array(table, 'action')[:, :6]
    )


def test_lerobot_v3(tmp_path, bags, embodiment):
    convert([bags], tmp_path / 'v2', embodiment)
    convert([bags], tmp_path / 'v3', embodiment, ConversionOptions(format='v3.0'))
    episodes = pq.read_table(tmp_path / 'v3/meta/episodes/chunk-000/file-000.parquet').to_pylist()
    assert [(e['dataset_from_index'], e['dataset_to_index']) for e in episodes] == [
        (0, 29),
        (29, 59),
        (59, 90),
    ]
    rows = pq.read_table(tmp_path / 'v3/data/chunk-000/file-000.parquet')
    assert rows['index'].to_pylist() == list(range(90))
    times = [(e[f'videos/{CAMERA}/from_timestamp'], e[f'videos/{CAMERA}/to_timestamp']) for e in episodes]
    np.testing.assert_allclose(times, [(0, 1.45), (1.45, 2.95), (2.95, 4.5)])
    joined = tmp_path / f'v3/videos/{CAMERA}/chunk-000/file-000.mp4'
    assert count_frames(joined) == 90
    for index, first in enumerate((0, 29, 59)):
        one = next(read_frames(joined, [first + 3]))
        other = next(read_frames(video_file(tmp_path / 'v2', CAMERA, index), [3]))
        np.testing.assert_array_equal(one, other)
    stats = json.loads((tmp_path / 'v3/meta/stats.json').read_text())['action']
    truth = statistics(column_to_array(rows, 'action'))
    for key in ('mean', 'std', 'min', 'max'):
        np.testing.assert_allclose(stats[key], truth[key], atol=1e-6)
    assert not (tmp_path / 'v3/waiting').exists()
    with pytest.raises(GrootRosError, match=r'extended in v2\.1 only'):
        convert(
            [bags], tmp_path / 'v3', embodiment, ConversionOptions(format='v3.0', existing=OutputMode.APPEND)
        )


def test_ray_gives_the_same_dataset(tmp_path, bags, embodiment):
    pytest.importorskip('ray')
    convert([bags], tmp_path / 'here', embodiment)
    report = convert([bags], tmp_path / 'ray', embodiment, ConversionOptions(executor='ray', workers=2))
    assert report.episodes == 3
    assert files_of(tmp_path / 'ray') == files_of(tmp_path / 'here')


def test_bags_in_object_storage(tmp_path, bags, embodiment):
    import fsspec

    storage = fsspec.filesystem('memory')
    storage.put(f'{bags}/', '/fleet/', recursive=True)
    convert([bags], tmp_path / 'here', embodiment)
    convert(['memory://fleet'], tmp_path / 'far', embodiment)
    assert files_of(tmp_path / 'far') == files_of(tmp_path / 'here')
    with pytest.raises(GrootRosError, match='holds no bag'):
        convert(['memory://nothing'], tmp_path / 'other', embodiment)


def test_a_worker_that_dies_ends_the_conversion_and_what_is_done_is_kept(tmp_path, bags, embodiment):
    def stop_after_one(parts, count):
        yield next(iter(parts))
        raise KeyboardInterrupt

    def kill(parts, count):
        for process in multiprocessing.active_children():
            process.kill()
        yield from parts

    with pytest.raises(KeyboardInterrupt):
        convert([bags], tmp_path / 'set', embodiment, progress=stop_after_one)
    with pytest.raises(GrootRosError, match='A worker died'):
        convert([bags], tmp_path / 'set', embodiment, ConversionOptions(workers=2), kill)
    assert len(list((tmp_path / '.set.partial/parts').glob('*/done.json'))) == 1
    assert multiprocessing.active_children() == []
    assert convert([bags], tmp_path / 'set', embodiment).episodes == 3


def test_cameras_of_different_proportions_are_refused(tmp_path, bags, embodiment):
    second = '\n- {name: wrist, topic: wrist/image, width: 1280, height: 720}\n'
    text = embodiment.text().replace('cameras:\n', f'cameras:{second}')
    with pytest.raises(GrootRosError, match=r'differ.*wrist 1280x720'):
        convert([bags], tmp_path / 'set', parse_embodiment(text, 'of the test'))


def test_another_size_is_fitted_and_encoded(tmp_path, bags, embodiment):
    smaller = parse_embodiment(
        embodiment.text().replace('width: 640', 'width: 320').replace('height: 480', 'height: 320'),
        'of the test',
    )
    convert([bags / 'episode_000000'], tmp_path / 'set', smaller)
    shown = next(read_frames(video_file(tmp_path / 'set', CAMERA, 0), [20]))
    assert shown.shape == (320, 320, 3)
    assert shown[:36].mean() < 3 < shown[60:260].mean()


@pytest.mark.parametrize(
    ('options', 'reason'),
    [
        (['--append', '--overwrite'], 'exclude each other'),
        (['--format', 'v4'], "dataset format 'v4' is not known"),
        (['--codec', 'vp9'], "video codec 'vp9' is not known"),
        (['--executor', 'threads'], "executor 'threads' is not known"),
        (['--gr00t-version', 'n2'], "GR00T version 'n2' is not known"),
        (['--ranges', 'nothing.yaml'], 'nothing.yaml cannot be read'),
    ],
)
def test_options_that_make_no_sense(tmp_path, bags, capsys, options, reason):
    assert main(['convert', str(bags), '--output', str(tmp_path / 'set'), *options]) == 1
    assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
