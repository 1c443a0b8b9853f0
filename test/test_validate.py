# SPDX-License-Identifier: Apache-2.0
"""Validation finds what GR00T's loader refuses or accepts silently, and nothing in good datasets."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from groot_ros.cli.main import main
from groot_ros.dataset.convert import convert
from groot_ros.dataset.meta import DatasetMeta
from groot_ros.dataset.options import ConversionOptions, OutputMode
from groot_ros.dataset.validation.validate import validate
from groot_ros.errors import GrootRosError

PARQUET = 'data/chunk-000/episode_000000.parquet'
VIDEO = 'videos/chunk-000/observation.images.zed_camera/episode_000000.mp4'


def edit_json(root, name, change):
    path = root / 'meta' / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_lines(root, name, change):
    path = root / 'meta' / name
    path.write_text(change(path.read_text()))


def edit_column(root, name, change):
    table = pq.read_table(root / PARQUET)
    values = change(table[name].to_pylist())
    index = table.column_names.index(name)
    pq.write_table(
        table.remove_column(index) if values is None else table.set_column(index, name, pa.array(values)),
        root / PARQUET,
    )


def set_at(row, column, value):
    def change(vectors):
        vectors[row][column] = value
        return vectors

    return change


def shifted(vectors):
    return vectors[1:] + vectors[-1:]


def flipped(vectors):
    return [v if k < 9 else [*v[:16], *(-np.array(v[16:]))] for k, v in enumerate(vectors)]


def frozen_gripper(vectors):
    return [[*v[:6], 1.0] for v in vectors]


def other_video(root, size=(320, 240), count=29, fps=20):
    from groot_ros.video.frame import VideoFrame
    from groot_ros.video.mp4 import encode_mp4

    black = VideoFrame(0, np.zeros((size[1], size[0], 3), np.uint8), 'rgb24')
    encode_mp4([black] * count, root / VIDEO, size, fps, 'h264')


def edit_image(root, **values):
    edit_json(
        root, 'info.json', lambda info: info['features']['observation.images.zed_camera'].update(values)
    )


def moved_sideways(vectors):
    return [[vectors[0][0] + k / 1e3, *vector[1:]] for k, vector in enumerate(vectors)]


TASK = 'annotation.human.action.task_description'


def turned(vectors):
    return [[*v[:3], 0.3, *v[4:]] for v in vectors]


def wandering(vectors):
    """Each delta a little too long: nothing that a single row shows."""
    return [[v[0] + 9e-5, *v[1:]] for v in vectors]


def same_again(root):
    for name in (PARQUET, VIDEO):
        shutil.copyfile(root / name, root / name.replace('000000.', '000001.'))


def damaged(root):
    video = bytearray((root / VIDEO).read_bytes())
    at = video.index(b'mdat') + 4
    middle = at + (len(video) - at) // 3
    video[middle : middle + 400] = os.urandom(400)
    (root / VIDEO).write_bytes(video)


def still_video(root, level):
    from groot_ros.video.frame import VideoFrame
    from groot_ros.video.mp4 import encode_mp4

    image = VideoFrame(0, np.full((480, 640, 3), level, np.uint8), 'rgb24')
    encode_mp4([image] * 29, root / VIDEO, (640, 480), 20, 'h264')


def one_keyframe(root):
    from groot_ros.video.frame import VideoFrame
    from groot_ros.video.mp4 import encode_mp4

    images = [VideoFrame(0, np.full((48, 64, 3), k % 200, np.uint8), 'rgb24') for k in range(310)]
    encode_mp4(images, root / VIDEO, (64, 48), 1000, 'h264')


FAULTS = {
    'info missing': (lambda r: (r / 'meta/info.json').unlink(), 'info.json: is missing'),
    'modality missing': (lambda r: (r / 'meta/modality.json').unlink(), 'modality.json: is missing'),
    'stats missing': (lambda r: (r / 'meta/stats.json').unlink(), 'stats.json: is missing'),
    'tasks missing': (lambda r: (r / 'meta/tasks.jsonl').unlink(), 'tasks.jsonl: cannot be read'),
    'episodes missing': (lambda r: (r / 'meta/episodes.jsonl').unlink(), 'episodes.jsonl: cannot be read'),
    'info not JSON': (lambda r: (r / 'meta/info.json').write_text('{'), 'info.json: cannot be read'),
    'blank line': (lambda r: edit_lines(r, 'episodes.jsonl', lambda t: t + '\n'), 'line 3 is blank'),
    'record without length': (
        lambda r: edit_lines(r, 'episodes.jsonl', lambda t: t.replace('"length"', '"size"')),
        'length is missing',
    ),
    'no chunks_size': (
        lambda r: edit_json(r, 'info.json', lambda i: i.pop('chunks_size')),
        'chunks_size is missing',
    ),
    'no data_path': (
        lambda r: edit_json(r, 'info.json', lambda i: i.pop('data_path')),
        'data_path is missing',
    ),
    'wrong fps': (lambda r: edit_json(r, 'info.json', lambda i: i.update(fps=25)), 'not row'),
    'fps of zero': (lambda r: edit_json(r, 'info.json', lambda i: i.update(fps=0)), 'fps is 0'),
    'total_episodes': (
        lambda r: edit_json(r, 'info.json', lambda i: i.update(total_episodes=7)),
        'total_episodes is 7',
    ),
    'total_frames': (
        lambda r: edit_json(r, 'info.json', lambda i: i.update(total_frames=7)),
        'total_frames is 7',
    ),
    'image shape': (lambda r: edit_image(r, shape=[240, 320, 3]), 'is 640x480'),
    'no video feature': (
        lambda r: edit_json(r, 'info.json', lambda i: i['features'].pop('observation.images.zed_camera')),
        'no video feature',
    ),
    'no video_path': (
        lambda r: edit_json(r, 'info.json', lambda i: i.pop('video_path')),
        'video_path is missing',
    ),
    'length too small': (
        lambda r: edit_lines(r, 'episodes.jsonl', lambda t: t.replace('29', '20', 1)),
        'the rest is never read',
    ),
    'length too large': (
        lambda r: edit_lines(r, 'episodes.jsonl', lambda t: t.replace('29', '40', 1)),
        'runs past the end',
    ),
    'episode twice': (
        lambda r: edit_lines(
            r, 'episodes.jsonl', lambda t: t.replace('"episode_index": 1', '"episode_index": 0')
        ),
        'occurs twice',
    ),
    'slice past the end': (
        lambda r: edit_json(r, 'modality.json', lambda m: m['state']['tcp_pose'].update(end=21)),
        'slice 13 to 21',
    ),
    'slice reversed': (
        lambda r: edit_json(r, 'modality.json', lambda m: m['action']['gripper_command'].update(start=7)),
        'slice 7 to 7',
    ),
    'state missing': (lambda r: edit_json(r, 'modality.json', lambda m: m.pop('state')), 'state is missing'),
    'video key renamed': (
        lambda r: edit_json(r, 'modality.json', lambda m: m['video']['zed_camera'].update(original_key='x')),
        'names x',
    ),
    'annotation renamed': (
        lambda r: edit_json(r, 'modality.json', lambda m: m['annotation'].update({'human.other': {}})),
        'human.other',
    ),
    'NaN in the state': (
        lambda r: edit_column(r, 'observation.state', set_at(3, 2, float('nan'))),
        'NaN or infinity',
    ),
    'infinity in the action': (
        lambda r: edit_column(r, 'action', set_at(4, 1, float('inf'))),
        'NaN or infinity',
    ),
    'ragged vectors': (
        lambda r: edit_column(r, 'action', lambda v: [v[0][:5], *v[1:]]),
        'not all of one length',
    ),
    'column missing': (lambda r: edit_column(r, 'action', lambda v: None), 'has no column action'),
    'annotation of strings': (lambda r: edit_column(r, TASK, lambda v: ['a'] * len(v)), 'not indices'),
    'annotation column missing': (
        lambda r: edit_column(r, 'annotation.human.validity', lambda v: None),
        'has no column annotation',
    ),
    'unknown task': (lambda r: edit_column(r, TASK, lambda v: [9] * len(v)), 'index 9'),
    'unix timestamps': (
        lambda r: edit_column(r, 'timestamp', lambda v: [x + 1.7e9 for x in v]),
        'timestamps begin',
    ),
    'action that is no delta': (lambda r: edit_column(r, 'action', moved_sideways), 'misses the next'),
    'quaternion not of length 1': (
        lambda r: edit_column(r, 'observation.state', set_at(5, 17, 0.2)),
        'not of length 1',
    ),
    'quaternion changes sign': (lambda r: edit_column(r, 'observation.state', flipped), 'changes its sign'),
    'wrong statistics': (
        lambda r: edit_json(r, 'stats.json', lambda s: s['action'].update(q99=[1.0] * 7)),
        'q99 of action',
    ),
    'statistics of a feature missing': (
        lambda r: edit_json(r, 'stats.json', lambda s: s.pop('action')),
        'no statistics of action',
    ),
    'parquet missing': (lambda r: (r / PARQUET).unlink(), 'cannot be read'),
    'parquet corrupt': (lambda r: (r / PARQUET).write_bytes(b'PAR1 nothing'), 'cannot be read'),
    'video missing': (lambda r: (r / VIDEO).unlink(), 'cannot be decoded'),
    'video corrupt': (lambda r: (r / VIDEO).write_bytes(os.urandom(5000)), 'cannot be decoded'),
    'video too short': (lambda r: other_video(r, (640, 480), 28), '28 frames for 29 rows'),
    'video too long': (lambda r: other_video(r, (640, 480), 31), '31 frames for 29 rows'),
    'video of another rate': (lambda r: other_video(r, (640, 480), 29, 30), 'runs at 30.00'),
    'cameras of mixed aspect': (lambda r: other_video(r, (320, 160)), 'aspect ratio'),
    'orientation that is no delta': (
        lambda r: edit_column(r, 'action', turned),
        'the delta of the orientation misses',
    ),
    'deltas that drift away': (lambda r: edit_column(r, 'action', wandering), 'lead up to 2.5 mm away'),
    'joints in degrees': (
        lambda r: edit_column(r, 'observation.state', set_at(2, 1, -90.0)),
        'state.joint_positions[1] is -90',
    ),
    'an episode twice in the data': (same_again, 'holds the same rows as'),
    'video damaged in the middle': (damaged, 'cannot be decoded'),
    'video of another codec than it says': (
        lambda r: edit_image(r, info={'video.codec': 'av1'}),
        'is h264, info.json says av1',
    ),
    'task that is a validity': (
        lambda r: edit_column(r, TASK, lambda v: [1] * len(v)),
        'is a validity and no task',
    ),
    'task index twice': (
        lambda r: edit_lines(r, 'tasks.jsonl', lambda t: t.replace('"task_index": 1', '"task_index": 0')),
        'a text is lost',
    ),
    'only validities': (
        lambda r: edit_lines(r, 'tasks.jsonl', lambda t: t.replace('move the cube', 'valid')),
        'holds no task',
    ),
    'path out of the dataset': (
        lambda r: edit_json(r, 'info.json', lambda i: i.update(data_path='../{episode_index}.parquet')),
        'cannot be read',
    ),
}


WARNINGS = {
    'a task without words': (
        lambda r: edit_lines(r, 'tasks.jsonl', lambda t: t.replace('move the cube', '...')),
        'has no words',
    ),
    'a task of 10 kB': (
        lambda r: edit_lines(r, 'tasks.jsonl', lambda t: t.replace('move', 'move ' * 2000)),
        'characters, more than',
    ),
    'a frozen camera': (lambda r: still_video(r, 90), 'the same image from beginning to end'),
    'a covered lens': (lambda r: still_video(r, 0), 'is black'),
    'no keyframe for long': (one_keyframe, 'no keyframe for 309 frames'),
    'a pose that jumps': (
        lambda r: edit_column(r, 'observation.state', set_at(9, 13, 0.9)),
        'the pose jumps by',
    ),
}


@pytest.mark.parametrize('fault', WARNINGS)
def test_what_may_be_meant_is_a_warning(fault, dataset):
    inject, text = WARNINGS[fault]
    inject(dataset)
    warnings = [str(finding) for finding in validate(dataset).findings if finding.severity == 'warning']
    assert any(text in warning for warning in warnings), warnings


def with_validity(text):
    return text.replace('["move the cube"]', '["move the cube", "valid"]')


@pytest.mark.parametrize(('language_key', 'severity'), [('', 'warning'), ('task', 'error')])
def test_a_validity_among_the_texts_of_an_episode_is_found(dataset, language_key, severity):
    """With the language key `task` NVIDIA's loader draws one of the listed texts at random."""
    edit_json(dataset, 'conversion.json', lambda noted: noted['embodiment'].update(language_key=language_key))
    edit_lines(
        dataset,
        'episodes.jsonl',
        lambda text: text.replace('["move the cube"]', '["move the cube", "valid"]'),
    )
    found = [finding for finding in validate(dataset).findings if finding.file == 'meta/episodes.jsonl']
    assert [finding.severity for finding in found] == [severity] * 2  # two episodes
    assert "tasks of line 1 list 'valid': with the language key `task`, 1 of 2 samples" in str(found[0])


def test_a_dataset_that_listed_validities_is_extended_without_them(dataset, synthetic, tmp_path, embodiment):
    edit_lines(
        dataset,
        'episodes.jsonl',
        lambda text: text.replace('["move the cube"]', '["move the cube", "valid"]'),
    )
    synthetic(place_m=0.05).record(tmp_path / 'bag')
    convert([tmp_path / 'bag'], dataset, embodiment, ConversionOptions(existing=OutputMode.APPEND))
    assert [record['tasks'] for record in DatasetMeta(dataset).episodes] == [['move the cube']] * 3


def test_a_state_larger_than_a_release_takes(dataset):
    edit_json(dataset, 'modality.json', lambda m: m['state'].update(more={'start': 0, 'end': 10}))
    assert validate(dataset, gr00t_version='n1.7').errors == 0
    assert any(
        'state has 30 numbers' in str(finding) for finding in validate(dataset, gr00t_version='n1.6').findings
    )
    with pytest.raises(GrootRosError, match="GR00T version 'n3' is not known"):
        validate(dataset, gr00t_version='n3')


def test_a_good_set_has_no_finding(dataset):
    report = validate(dataset)
    assert [str(finding) for finding in report.findings] == []
    assert (report.episodes, report.rows) == (2, 58)


@pytest.mark.parametrize('fault', FAULTS)
def test_an_injected_fault_is_found(fault, dataset):
    inject, text = FAULTS[fault]
    inject(dataset)
    errors = [str(finding) for finding in validate(dataset).findings if finding.severity == 'error']
    assert any(text in error for error in errors), errors


def test_an_action_shifted_by_a_row_is_called_so(dataset):
    """On a motion whose speed changes, since at a constant one a shift does not show."""
    table = pq.read_table(dataset / PARQUET)
    x = 0.1 * np.sin(np.arange(30) / 4)
    states = np.array(table['observation.state'].to_pylist())
    actions = np.array(table['action'].to_pylist())
    states[:, 13] = x[:-1]
    actions[:, 0] = np.diff(x)
    for name, values in (('observation.state', states), ('action', np.array(shifted(actions.tolist())))):
        table = table.set_column(table.column_names.index(name), name, pa.array(values.tolist()))
    pq.write_table(table, dataset / PARQUET)
    assert any('shifted by a row' in str(finding) for finding in validate(dataset).findings)


def test_a_gripper_that_never_moves_is_a_warning(dataset):
    for index in range(2):
        path = dataset / f'data/chunk-000/episode_{index:06d}.parquet'
        table = pq.read_table(path)
        values = frozen_gripper(table['action'].to_pylist())
        pq.write_table(table.set_column(table.column_names.index('action'), 'action', pa.array(values)), path)
    assert any(f.severity == 'warning' and 'never moves it' in str(f) for f in validate(dataset).findings)


def test_an_episode_shorter_than_the_horizon_is_found(dataset):
    assert any(
        'fewer than the horizon of 40' in str(finding) for finding in validate(dataset, horizon=40).findings
    )


def test_a_folder_that_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(GrootRosError, match='is an empty folder: give the folder of a dataset'):
        validate(tmp_path)


def test_a_set_that_nvidia_published_has_no_error():
    published = Path(__file__).parents[2] / 'shared/data/robot_sim.PickNPlace'
    if not published.is_dir():
        pytest.skip('the published set is not on this machine')
    assert [str(finding) for finding in validate(published).findings if finding.severity == 'error'] == []


def test_the_page_of_a_dataset_shows_every_dimension(dataset, tmp_path, capsys):
    assert main(['validate', str(dataset), '--report', str(tmp_path / 'page.html')]) == 0
    page = (tmp_path / 'page.html').read_text()
    assert page.count('data:image/') == 5
    assert 'action: gripper_command' in page
    assert 'state: tcp_pose qw' in page
    assert '<td>rad/s</td>' in page
    assert '0 errors' in page


@pytest.mark.parametrize(('gr00t_version', 'errors'), [('n1.6', 1), ('n1.7', 0)])
def test_a_report_after_a_conversion_is_for_the_gr00t_version_that_was_asked_for(
    bags, tmp_path, capsys, gr00t_version, errors
):
    """N1.6 takes chunks of at most 16 steps, N1.7 of 40."""
    asked = ['--gr00t-version', gr00t_version, '--horizon', '20', '--report', str(tmp_path / 'report.html')]
    assert main(['convert', str(bags), '--output', str(tmp_path / 'set'), *asked]) == errors
    assert f'{errors} errors' in capsys.readouterr().out


def test_a_damaged_dataset_shows_its_findings_before_the_report_is_refused(dataset, tmp_path, capsys):
    video = next((dataset / 'videos').rglob('*.mp4'))
    video.write_bytes(video.read_bytes()[:2000])
    assert main(['validate', str(dataset), '--report', str(tmp_path / 'report.html')]) == 1
    shown = capsys.readouterr()
    assert 'cannot be decoded' in shown.out
    assert 'cannot be decoded' in shown.err
    stats = json.loads((dataset / 'meta/stats.json').read_text())
    stats['action']['q01'] = ['x'] * 7
    (dataset / 'meta/stats.json').write_text(json.dumps(stats))
    assert main(['validate', str(dataset), '--report', str(tmp_path / 'report.html')]) == 1
    assert 'action.q01' in capsys.readouterr().out
