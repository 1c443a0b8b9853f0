# SPDX-License-Identifier: Apache-2.0
"""Conversion of tables: HDF5 of Isaac Lab and Mimic, LeRobot v2 with other columns, and arrays."""

import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from groot_ros.config_files import checked
from groot_ros.dataset.convert import convert
from groot_ros.dataset.meta import DatasetMeta
from groot_ros.dataset.options import ConversionOptions
from groot_ros.dataset.sources.arrays import ArrayEpisode, convert_arrays
from groot_ros.dataset.validation.validate import validate
from groot_ros.dataset.writers.lerobot_v2 import data_file, video_file
from groot_ros.embodiment import Embodiment, load_embodiment, parse_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.video.frame import VideoFrame
from groot_ros.video.mp4 import count_frames, encode_mp4, read_frames

ROWS = 20


def ramp(size, rows=ROWS, seed=0):
    """Numbers that differ in every place, and change slowly."""
    return 0.1 * np.sin(np.arange(rows)[:, None] / 5 + np.arange(size) + seed)


def images(width, height, rows=ROWS):
    return np.stack([np.full((height, width, 3), 40 + 5 * k, np.uint8) for k in range(rows)])


def write_hdf5(path, demonstrations, env_name='', **file_attributes):
    with h5py.File(path, 'w') as file:
        group = file.create_group('data')
        group.attrs['env_args'] = json.dumps({'env_name': env_name})
        for index, (columns, attributes) in enumerate(demonstrations):
            demonstration = group.create_group(f'demo_{index}')
            demonstration.attrs.update(attributes)
            for name, values in columns.items():
                demonstration[name] = values
    return path


def franka(rows=ROWS):
    quaternions = np.tile([1.0, 0.0, 0.0, 0.0], (rows, 1))
    quaternions[rows // 2 :] *= -1
    return {
        'obs/eef_pos': ramp(3, rows),
        'obs/eef_quat': quaternions,
        'obs/gripper_pos': ramp(1, rows),
        'actions': ramp(7, rows, 3),
        'obs/wrist_rgb': images(320, 240, rows),
        'obs/table_rgb': images(320, 240, rows),
    }


def decode_columns(dataset, episode=0):
    table = pq.read_table(data_file(dataset, episode))
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


def clean(dataset, horizon=16):
    return [str(finding) for finding in validate(dataset, horizon).findings if finding.severity == 'error']


def test_demonstrations_of_isaac_lab(tmp_path):
    file = write_hdf5(
        tmp_path / 'teleop.hdf5', [(franka(), {}), (franka(21), {'success': False}), (franka(24), {})]
    )
    report = convert(
        [file],
        tmp_path / 'set',
        load_embodiment('franka_mcx'),
        ConversionOptions(task='insert the card', workers=2, outcomes=('success', 'failure')),
    )
    assert (report.episodes, report.rows) == (3, 65)
    found = decode_columns(tmp_path / 'set')
    np.testing.assert_array_equal(found['action'], franka()['actions'])
    np.testing.assert_array_equal(found['observation.state'][:, :3], franka()['obs/eef_pos'])
    np.testing.assert_array_equal(
        found['observation.state'][:, 3:7], np.tile([0.0, 0.0, 0.0, 1.0], (ROWS, 1))
    )
    modality = json.loads((tmp_path / 'set/meta/modality.json').read_text())
    assert modality['action']['arm'] == {'start': 0, 'end': 6, 'absolute': False}
    episodes = [json.loads(line) for line in (tmp_path / 'set/meta/episodes.jsonl').read_text().splitlines()]
    assert [episode['tasks'] for episode in episodes] == [['insert the card']] * 3
    tasks = DatasetMeta(tmp_path / 'set').tasks
    validities = [decode_columns(tmp_path / 'set', k)['annotation.human.validity'][0] for k in range(3)]
    assert [tasks[index] for index in validities] == ['valid', 'invalid', 'valid']
    for index, length in enumerate((20, 21, 24)):
        shown = list(
            read_frames(video_file(tmp_path / 'set', 'observation.images.wrist', index), range(length))
        )
        assert [abs(frame.mean() - (40 + 5 * k)) < 2 for k, frame in enumerate(shown)] == [True] * length
    assert clean(tmp_path / 'set') == []


def test_joints_of_the_simulator_are_found_by_name(tmp_path):
    embodiment = load_embodiment('gr1_arms')
    observed = ramp(54)
    commanded = ramp(36, seed=9)
    columns = {
        'obs/robot_joint_pos': observed,
        'processed_actions': commanded,
        'obs/robot_pov_cam': images(256, 160),
    }
    file = write_hdf5(tmp_path / 'mimic.hdf5', [(columns, {})], 'Isaac-NutPour-GR1T2-ClosedLoop-v0')
    convert([file], tmp_path / 'set', embodiment)
    found = decode_columns(tmp_path / 'set')
    names = embodiment.column_joint_names
    for field, part in zip(embodiment.state, embodiment.state_slices.values(), strict=True):
        wanted = np.stack(
            [observed[:, names['obs/robot_joint_pos'].index(joint)] for joint in field.joints], axis=1
        )
        np.testing.assert_array_equal(found['observation.state'][:, part], wanted)
    # The columns of 36 commands that NVIDIA's converter takes, in the order of its policy; all rows are kept.
    left_arm = [0, 2, 4, 6, 8, 10, 12]
    left_hand = [16, 17, 15, 14, 18, 28]
    taken = [*left_arm, *(column + 1 for column in left_arm), *left_hand, 21, 22, 20, 19, 23, 33]
    np.testing.assert_array_equal(found['action'], commanded[:, taken])
    assert json.loads((tmp_path / 'set/meta/tasks.jsonl').read_text().splitlines()[0]) == {
        'task_index': 0,
        'task': 'Pick up the beaker and tilt it to pour out 1 metallic nut into the bowl. '
        'Pick up the bowl and place it on the metallic measuring scale.',
    }
    first = next(read_frames(video_file(tmp_path / 'set', 'observation.images.ego_view', 0), [0]))
    assert first.shape == (256, 256, 3)
    assert first[:40].mean() < 3 < first[60:200].mean()
    assert clean(tmp_path / 'set') == []


def test_rewards_come_along(tmp_path):
    rewards = np.zeros(ROWS)
    rewards[-3:] = 1.0
    columns = {
        'obs/observation': ramp(25),
        'actions': ramp(4),
        'obs/image': images(224, 224),
        'rewards': rewards,
    }
    file = write_hdf5(tmp_path / 'fetch.h5', [(columns, {})])
    convert(
        [file],
        tmp_path / 'set',
        load_embodiment('fetch_pick_place'),
        ConversionOptions(task='bring the block to the goal'),
    )
    found = decode_columns(tmp_path / 'set')
    np.testing.assert_array_equal(found['next.reward'], rewards)
    np.testing.assert_array_equal(found['next.done'], np.arange(ROWS) == ROWS - 1)
    assert found['observation.state'].shape == (ROWS, 25)
    assert clean(tmp_path / 'set') == []


def write_lerobot(root, fps, state, action, action_name, cameras, codec='h264', task='wave'):
    """One episode as LeRobot v2.1 lays it out, with as little as its readers need."""
    (root / 'meta').mkdir(parents=True)
    (root / 'data/chunk-000').mkdir(parents=True)
    features = {
        name: {'dtype': 'video', 'shape': [height, width, 3], 'names': None}
        for name, (width, height) in cameras.items()
    }
    info = {
        'codebase_version': 'v2.1',
        'fps': fps,
        'chunks_size': 1000,
        'features': features,
        'data_path': 'data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet',
        'video_path': 'videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4',
    }
    (root / 'meta/info.json').write_text(json.dumps(info))
    (root / 'meta/episodes.jsonl').write_text(
        json.dumps({'episode_index': 0, 'tasks': [task], 'length': ROWS}) + '\n'
    )
    (root / 'meta/tasks.jsonl').write_text(json.dumps({'task_index': 0, 'task': task}) + '\n')
    table = pa.table(
        {'observation.state': state.tolist(), action_name: action.tolist(), 'task_index': np.zeros(ROWS, int)}
    )
    pq.write_table(table, root / 'data/chunk-000/episode_000000.parquet')
    for name, (width, height) in cameras.items():
        path = root / f'videos/chunk-000/{name}/episode_000000.mp4'
        path.parent.mkdir(parents=True)
        encode_mp4(
            (VideoFrame(0, image, 'rgb24') for image in images(width, height)),
            path,
            (width, height),
            fps,
            codec,
        )
    return root


def test_a_lerobot_set_whose_columns_have_other_names(tmp_path):
    state = ramp(53)
    action = ramp(53, seed=2)
    source = write_lerobot(
        tmp_path / 'g1', 30, state, action, 'action.action', {'observation.images.cam_left_high': (320, 240)}
    )
    convert([source], tmp_path / 'set', load_embodiment('g1_inspire'))
    found = decode_columns(tmp_path / 'set')
    np.testing.assert_array_equal(found['action'], action)
    assert list(json.loads((tmp_path / 'set/meta/modality.json').read_text())['state']) == [
        'body',
        'left_arm',
        'right_arm',
        'left_gripper',
        'right_gripper',
    ]
    # GR00T draws one of these texts for each sample, since the language key is `task`.
    assert json.loads((tmp_path / 'set/meta/episodes.jsonl').read_text())['tasks'] == ['wave']
    assert clean(tmp_path / 'set') == []


def test_videos_that_fit_are_copied(tmp_path):
    cameras = {'observation.images.front': (640, 480), 'observation.images.wrist': (640, 480)}
    source = write_lerobot(tmp_path / 'so101', 30, ramp(6), ramp(6, seed=1), 'action', cameras)
    convert([source], tmp_path / 'set', load_embodiment('so101_dualcam'))
    for name in cameras:
        assert (
            video_file(tmp_path / 'set', name, 0).read_bytes()
            == (source / f'videos/chunk-000/{name}/episode_000000.mp4').read_bytes()
        )
    assert clean(tmp_path / 'set') == []


def test_videos_of_another_codec_are_encoded(tmp_path):
    source = write_lerobot(
        tmp_path / 'so101',
        30,
        ramp(6),
        ramp(6),
        'action',
        dict.fromkeys(FRONT_WRIST, (640, 480)),
        codec='av1',
    )
    convert([source], tmp_path / 'set', load_embodiment('so101_dualcam'))
    video = video_file(tmp_path / 'set', FRONT_WRIST[0], 0)
    shown = next(read_frames(video, [7]))
    assert (count_frames(video), abs(shown.mean() - 75) < 3) == (ROWS, True)


FRONT_WRIST = ('observation.images.front', 'observation.images.wrist')
ARM = """
name: my_arm
robot_type: mine
fps: 10
state: [{name: pose, column: pose, field: pose}]
action:
  - {name: move, kind: delta_position, pose: pose}
  - {name: turn, kind: delta_rotation, pose: pose}
  - {name: gripper, kind: command, column: grip}
cameras: [{name: front, column: front, width: 64, height: 48}]
eef_9d: pose
reward: outcome
"""


def test_arrays_of_ones_own_and_differences_made_of_their_poses(tmp_path):
    poses = np.hstack([ramp(3), np.tile([0.0, 1.0, 0.0, 0.0], (ROWS, 1))])
    episode = ArrayEpisode(
        {'pose': poses, 'grip': np.linspace(0, 1, ROWS), 'front': images(64, 48)}, 'open the drawer'
    )
    report = convert_arrays([episode], tmp_path / 'set', parse_embodiment(ARM, 'of the test'))
    found = decode_columns(tmp_path / 'set')
    assert (report.episodes, report.rows) == (1, ROWS - 1)
    np.testing.assert_allclose(found['action'][:, :3], np.diff(poses[:, :3], axis=0), atol=1e-15)
    np.testing.assert_array_equal(found['action'][:, 6], np.linspace(0, 1, ROWS)[:-1])
    np.testing.assert_allclose(
        found['observation.eef_9d'],
        np.hstack([poses[:-1, :3], np.tile([-1.0, 0, 0, 0, 1, 0], (ROWS - 1, 1))]),
        atol=1e-15,
    )
    np.testing.assert_array_equal(found['action.eef_9d'][:-1], found['observation.eef_9d'][1:])
    np.testing.assert_array_equal(found['next.reward'], np.arange(ROWS - 1) == ROWS - 2)
    assert clean(tmp_path / 'set') == []


def broken(name, values):
    return {**franka(), name: values}


@pytest.mark.parametrize(
    ('columns', 'reason'),
    [
        ({k: v for k, v in franka().items() if k != 'obs/eef_quat'}, 'has no obs/eef_quat.*it has actions'),
        (broken('actions', ramp(4)), '4 numbers in actions'),
        (broken('obs/eef_pos', ramp(3, 19)), 'different lengths: obs/eef_pos 19'),
        (broken('actions', ramp(7, 19)), '20 states and 19 actions'),
        (broken('actions', np.full((ROWS, 7), np.nan)), 'NaN or infinity in actions at row 0'),
        (
            broken('obs/wrist_rgb', np.zeros((ROWS, 3, 240, 320), np.uint8)),
            r'images must be \(n, height, width, 3\)',
        ),
        (broken('obs/wrist_rgb', images(320, 240)[:15]), '15 frames of wrist for 20 rows'),
        (franka(10), '10 rows, fewer than the horizon'),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_the_reason(tmp_path, columns, reason):
    file = write_hdf5(tmp_path / 'teleop.hdf5', [(columns, {})])
    with pytest.raises(GrootRosError, match=reason):
        convert([file], tmp_path / 'set', load_embodiment('franka_mcx'))
    assert [path.name for path in tmp_path.iterdir()] == ['teleop.hdf5']


def test_files_that_are_something_else(tmp_path):
    (tmp_path / 'a.hdf5').write_text('no')
    with pytest.raises(GrootRosError, match='cannot be read as HDF5'):
        convert([tmp_path / 'a.hdf5'], tmp_path / 'set', load_embodiment('franka_mcx'))
    with h5py.File(tmp_path / 'b.hdf5', 'w') as file:
        file['x'] = 1
    with pytest.raises(GrootRosError, match='has no group `data`'):
        convert([tmp_path / 'b.hdf5'], tmp_path / 'set', load_embodiment('franka_mcx'))
    (tmp_path / 'c/meta').mkdir(parents=True)
    (tmp_path / 'c/meta/info.json').write_text('{"codebase_version": "v1.6"}')
    with pytest.raises(GrootRosError, match=r'v1.6, and only v2.0, v2.1 and v3.0 can be converted'):
        convert([tmp_path / 'c'], tmp_path / 'set', load_embodiment('so101_dualcam'))


def test_an_embodiment_of_the_other_kind_is_refused(tmp_path, synthetic, embodiment):
    file = write_hdf5(tmp_path / 'teleop.hdf5', [(franka(), {})])
    with pytest.raises(GrootRosError, match='names no columns, it is for bags'):
        convert([file], tmp_path / 'set', embodiment)
    synthetic().record(tmp_path / 'bag')
    with pytest.raises(GrootRosError, match='names no topics, because it is for tables'):
        convert([tmp_path / 'bag'], tmp_path / 'set', load_embodiment('franka_mcx'))


def test_rows_of_another_rate_are_refused(tmp_path):
    source = write_lerobot(
        tmp_path / 'so101', 30, ramp(6), ramp(6), 'action', dict.fromkeys(FRONT_WRIST, (64, 48))
    )
    with pytest.raises(GrootRosError, match='has 30 rows a second but the embodiment so101_dualcam says 10'):
        convert([source], tmp_path / 'set', load_embodiment('so101_dualcam').at_fps(10))
    file = write_hdf5(tmp_path / 'teleop.hdf5', [(franka(), {})])
    with pytest.raises(GrootRosError, match='cannot be resampled to 10 rows a second'):
        convert([file], tmp_path / 'set', load_embodiment('franka_mcx').at_fps(10))


def _elsewhere(folder):
    """Bytes of another file that must not come into a dataset."""
    file = folder / 'secret'
    file.write_bytes(np.full((ROWS, 3), 42.0).tobytes())
    with h5py.File(folder / 'other.bin', 'w') as other:
        other['eef_pos'] = np.full((ROWS, 3), 42.0)
        for name, values in franka().items():
            other[f'demo_0/{name}'] = values
    return file


def _external_storage(group, folder):
    del group['demo_0/obs/eef_pos']
    group.create_dataset(
        'demo_0/obs/eef_pos', (ROWS, 3), float, external=[(str(_elsewhere(folder)), 0, ROWS * 24)]
    )


def _virtual(group, folder):
    _elsewhere(folder)
    del group['demo_0/obs/eef_pos']
    layout = h5py.VirtualLayout((ROWS, 3), float)
    layout[:] = h5py.VirtualSource(folder / 'other.bin', 'eef_pos', (ROWS, 3))
    group.create_virtual_dataset('demo_0/obs/eef_pos', layout)


def _external_column(group, folder):
    _elsewhere(folder)
    del group['demo_0/obs/eef_pos']
    group['demo_0/obs/eef_pos'] = h5py.ExternalLink(folder / 'other.bin', 'eef_pos')


def _external_demonstration(group, folder):
    _elsewhere(folder)
    del group['demo_0']
    group['demo_0'] = h5py.ExternalLink(folder / 'other.bin', 'demo_0')


def _soft_demonstration(group, folder):
    _external_demonstration(group, folder)
    group.move('demo_0', '/linked')
    group['demo_0'] = h5py.SoftLink('/linked')


@pytest.mark.parametrize(
    ('lead_elsewhere', 'reason'),
    [
        (_external_storage, 'obs/eef_pos cannot be read as HDF5: its data are in another file'),
        (_virtual, 'obs/eef_pos cannot be read as HDF5: its data are in another file'),
        (_external_column, 'has no obs/eef_pos'),
        (_external_demonstration, 'demo_0 is a link, which may lead into another file'),
        (_soft_demonstration, 'demo_0 is a link, which may lead into another file'),
    ],
)
def test_nothing_of_another_file_comes_into_a_dataset(tmp_path, lead_elsewhere, reason):
    file = write_hdf5(tmp_path / 'teleop.hdf5', [(franka(), {})])
    with h5py.File(file, 'a') as opened:
        lead_elsewhere(opened['data'], tmp_path)
    with pytest.raises(GrootRosError, match=reason):
        convert([file], tmp_path / 'set', load_embodiment('franka_mcx'), ConversionOptions(task='insert'))
    assert not (tmp_path / 'set').exists()


def _replace(name, *arguments, **options):
    def change(group):
        del group[f'demo_0/{name}']
        group.create_dataset(f'demo_0/{name}', *arguments, **options)

    return change


def _attribute(name, value):
    return lambda group: group['demo_0'].attrs.update({name: value})


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (_replace('obs/eef_pos', (10**12, 3), float, chunks=(10, 3)), 'one row for each tick'),
        (_replace('obs/eef_pos', (10**6, 1000), float, chunks=(10, 3)), 'too large for numbers'),
        (_replace('obs/eef_pos', (ROWS, 10**8), float, chunks=(1, 10**8)), 'are too large'),
        (_replace('obs/eef_pos', data=np.full((ROWS, 3), np.inf)), 'NaN or infinity in obs/eef_pos at row 0'),
        (_replace('obs/eef_pos', data=np.full((ROWS, 3), 1e300)), 'a number above 1e'),
        (_replace('obs/eef_pos', data=3.0), 'one row for each tick'),
        (_replace('obs/eef_pos', data=h5py.Empty(float)), 'one row for each tick'),
        (_replace('obs/eef_pos', (0, 3), float), 'columns of different lengths'),
        (_replace('obs/eef_pos', data=np.full((ROWS, 3), b'text')), 'no table of numbers'),
        (_replace('obs/eef_pos', data=np.ones((ROWS, 3), complex)), 'no table of numbers'),
        (_replace('obs/eef_quat', data=np.zeros((ROWS, 4))), 'a quaternion of length 0'),
        (_replace('obs/eef_quat', data=np.ones((ROWS, 3))), '3 numbers in obs/eef_quat'),
        (_replace('obs/wrist_rgb', (ROWS, 10**6, 10**6, 3), np.uint8, chunks=(1, 100, 100, 3)), 'pixels'),
        (_attribute('task', 'two\nlines'), 'not one line'),
    ],
)
def test_columns_that_nobody_recorded_are_refused_by_name(tmp_path, change, reason):
    file = write_hdf5(tmp_path / 'teleop.hdf5', [(franka(), {})], '[' * 10)
    with h5py.File(file, 'a') as opened:
        opened['data'].attrs['env_args'] = '[' * 50_000
        change(opened['data'])
    with pytest.raises(GrootRosError, match=reason):
        convert([file], tmp_path / 'set', load_embodiment('franka_mcx'))


def test_indices_beyond_a_column_are_refused(tmp_path):
    values = load_embodiment('franka_mcx').values()
    values['state'][0]['indices'] = [0, 1, 7]
    file = write_hdf5(tmp_path / 'teleop.hdf5', [(franka(), {})])
    with pytest.raises(GrootRosError, match='has 3 numbers in obs/eef_pos'):
        convert([file], tmp_path / 'set', checked(Embodiment, values, 'it'), ConversionOptions(task='insert'))
