# SPDX-License-Identifier: Apache-2.0
"""LeRobot v3.0 datasets as a source: many episodes in a file, packets copied, and what the hub has wrong."""

import json
import sys
from types import ModuleType

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from groot_ros.cli.main import main
from groot_ros.dataset.convert import convert
from groot_ros.dataset.embodiment_draft import draft_embodiment
from groot_ros.dataset.meta import DatasetMeta, column_to_array
from groot_ros.dataset.options import ConversionOptions, OutputMode
from groot_ros.dataset.sources.discover import find_recordings
from groot_ros.dataset.validation.validate import validate
from groot_ros.dataset.writers.lerobot_v2 import video_file
from groot_ros.embodiment import parse_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.video.frame import VideoFrame
from groot_ros.video.mp4 import encode_mp4, join_mp4, read_frames
from groot_ros.video.span import VideoSpan

FPS = 30
LENGTHS = (20, 25, 31)
WIDTH, HEIGHT = 96, 64
CAMERA = 'observation.images.front'
NAMES = ['shoulder_pan.pos', 'shoulder_lift.pos', 'elbow_flex.pos', 'gripper.pos']
EMBODIMENT = parse_embodiment(
    f"""
name: small_arm
robot_type: so101
fps: {FPS}
state:
  - {{name: arm, column: observation.state, indices: [0, 1, 2]}}
  - {{name: gripper, column: observation.state, indices: [3]}}
action:
  - {{name: gripper, kind: command, column: action, indices: [3]}}
  - {{name: arm, kind: command, column: action, indices: [0, 1, 2]}}
cameras:
  - {{name: front, column: {CAMERA}, width: {WIDTH}, height: {HEIGHT}}}
""",
    'of these tests',
)


def picture(number):
    """An image of its own for each frame of the file, with its number in the brightness of two halves."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[: HEIGHT // 2] = 40 + 2 * number
    image[HEIGHT // 2 :, number % WIDTH :] = 200
    return image


def write_joined_video(path, codec):
    """Each episode encoded by itself and joined, as LeRobot does it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    starts = np.cumsum([0, *LENGTHS])
    parts = []
    for start, length in zip(starts, LENGTHS, strict=False):
        parts.append(path.with_name(f'{start}.mp4'))
        frames = (VideoFrame(0, picture(number), 'rgb24') for number in range(start, start + length))
        encode_mp4(frames, parts[-1], (WIDTH, HEIGHT), FPS, codec)
    join_mp4(parts, path, FPS)


def write_video(path, codec='libx264', gop=2, rate=FPS, bframes=0, count=sum(LENGTHS)):
    if codec == 'libsvtav1':  # which needs the scheduling of Mp4Encoder
        write_joined_video(path, 'av1')
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {'g': str(gop), 'crf': '18'}
    if codec == 'libx264':
        options |= {'bf': str(bframes), 'sc_threshold': '0', 'x264-params': f'keyint={gop}:min-keyint={gop}'}
    with av.open(str(path), 'w', format='mp4') as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
        for number in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format='rgb24')))
        container.mux(stream.encode(None))


def write_v3(root, tasks=True, timestamps=lambda k: np.float32(k / FPS), **video):
    """Three episodes in one file, as LeRobot's own writer lays them out (seen of lerobot 0.4.4)."""
    total = sum(LENGTHS)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, total, len(NAMES))).astype(np.float32)
    vector = {'dtype': 'float32', 'shape': [len(NAMES)], 'names': NAMES}
    features = {
        'observation.state': vector,
        'action': vector,
        CAMERA: {
            'dtype': 'video',
            'shape': [HEIGHT, WIDTH, 3],
            'names': ['height', 'width', 'channels'],
            'info': {'video.codec': 'h264', 'video.fps': FPS, 'video.is_depth_map': False},
        },
        'timestamp': {'dtype': 'float32', 'shape': [1], 'names': None},
    }
    info = {
        'codebase_version': 'v3.0',
        'robot_type': 'so101_follower',
        'fps': FPS,
        'chunks_size': 1000,
        'features': features,
        'data_path': 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet',
        'video_path': 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4',
    }
    (root / 'meta/episodes/chunk-000').mkdir(parents=True)
    (root / 'data/chunk-000').mkdir(parents=True)
    (root / 'meta/info.json').write_text(json.dumps(info))
    starts = np.cumsum([0, *LENGTHS])
    records = [
        {
            'episode_index': index,
            'tasks': [f'task {index % 2}'] if tasks else None,
            'length': length,
            'data/chunk_index': 0,
            'data/file_index': 0,
            f'videos/{CAMERA}/chunk_index': 0,
            f'videos/{CAMERA}/file_index': 0,
            f'videos/{CAMERA}/from_timestamp': starts[index] / FPS,
            f'videos/{CAMERA}/to_timestamp': starts[index + 1] / FPS,
            'stats/action/min': [0.0] * len(NAMES),
        }
        for index, length in enumerate(LENGTHS)
    ]
    pq.write_table(pa.Table.from_pylist(records), root / 'meta/episodes/chunk-000/file-000.parquet')
    if tasks:  # the texts are the index of a table of pandas
        table = pa.table({'task_index': [0, 1], '__index_level_0__': ['task 0', 'task 1']})
        pq.write_table(table, root / 'meta/tasks.parquet')
    episodes = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    rows = {
        'observation.state': pa.FixedSizeListArray.from_arrays(values[0].ravel(), len(NAMES)),
        'action': pa.FixedSizeListArray.from_arrays(values[1].ravel(), len(NAMES)),
        'timestamp': [timestamps(k) for length in LENGTHS for k in range(length)],
        'episode_index': episodes,
        'task_index': episodes % 2,
    }
    pq.write_table(pa.table(rows), root / 'data/chunk-000/file-000.parquet')
    write_video(root / f'videos/{CAMERA}/chunk-000/file-000.mp4', **video)
    return root


def packets(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def shown(path, count, first=0):
    return np.array(list(read_frames(path, range(first, first + count))), int)


def check_images(source, output):
    """Every image of the output shows the frame of its row."""
    whole = source / f'videos/{CAMERA}/chunk-000/file-000.mp4'
    first = 0
    for index, length in enumerate(LENGTHS):
        own = shown(video_file(output, CAMERA, index), length)
        difference = np.abs(own - shown(whole, length, first)).mean(axis=(1, 2, 3))
        assert difference.max() < 2, (index, difference)
        first += length


@pytest.mark.parametrize('codec', ['libx264', 'libsvtav1'])
def test_episodes_that_begin_at_keyframes_are_copied_packet_by_packet(tmp_path, codec):
    """LeRobot encodes each episode by itself, so all of them begin with a keyframe."""
    source = write_v3(tmp_path / 'v3', codec=codec, gop=1)
    name = {'libx264': 'h264', 'libsvtav1': 'av1'}[codec]
    report = convert([source], tmp_path / 'set', EMBODIMENT, ConversionOptions(codec=name))
    assert (report.episodes, report.rows) == (3, sum(LENGTHS))
    whole = packets(source / f'videos/{CAMERA}/chunk-000/file-000.mp4')
    copied = [packets(video_file(tmp_path / 'set', CAMERA, index)) for index in range(3)]
    assert [packet for packets_of_one in copied for packet in packets_of_one] == whole
    check_images(source, tmp_path / 'set')
    assert validate(tmp_path / 'set').errors == 0
    rows = pq.read_table(source / 'data/chunk-000/file-000.parquet')
    meta = DatasetMeta(tmp_path / 'set')
    found = np.concatenate([column_to_array(meta.rows(index), 'action') for index in range(3)])
    np.testing.assert_array_equal(found, column_to_array(rows, 'action')[:, [3, 0, 1, 2]])
    assert [record['tasks'] for record in meta.episodes] == [['task 0'], ['task 1'], ['task 0']]


def test_only_the_frames_before_the_first_keyframe_are_encoded_again(tmp_path):
    source = write_v3(tmp_path / 'v3', gop=8)
    convert([source], tmp_path / 'set', EMBODIMENT)
    check_images(source, tmp_path / 'set')
    whole = packets(source / f'videos/{CAMERA}/chunk-000/file-000.mp4')
    # Keyframes are at 0, 8, 16, ...; the second episode begins at 20, the third at 45.
    for index, first, keyframe, end in ((1, 20, 24, 45), (2, 45, 48, 76)):
        own = packets(video_file(tmp_path / 'set', CAMERA, index))
        same = [part.endswith(original) for part, original in zip(own, whole[first:end], strict=True)]
        assert same == [number >= keyframe for number in range(first, end)]
    assert packets(video_file(tmp_path / 'set', CAMERA, 0)) == whole[:20]


@pytest.mark.parametrize('start', range(0, 9))
def test_any_part_of_a_video_can_be_written(tmp_path, start):
    """Also one within a group of pictures, and the last frames of the file."""
    write_video(tmp_path / 'whole.mp4', gop=8, count=30)
    for count in (1, 3, 12, 30 - start):
        span = VideoSpan(tmp_path / 'whole.mp4', start / FPS, count, FPS)
        assert span.write(tmp_path / 'part.mp4', (WIDTH, HEIGHT), 'h264') == count
        part = shown(tmp_path / 'part.mp4', count)
        assert np.abs(part - shown(tmp_path / 'whole.mp4', count, start)).mean() < 2
        with av.open(str(tmp_path / 'part.mp4')) as container:
            times = [frame.time for frame in container.decode(video=0)]
        np.testing.assert_allclose(times, np.arange(count) / FPS, atol=1e-6)


@pytest.mark.parametrize(
    ('video', 'codec'),
    [({'codec': 'libsvtav1'}, 'h264'), ({'gop': 12, 'bframes': 3}, 'h264'), ({'codec': 'libx265'}, 'h264')],
)
def test_other_codecs_and_frames_out_of_order_are_encoded_again(tmp_path, video, codec):
    source = write_v3(tmp_path / 'v3', **video)
    convert([source], tmp_path / 'set', EMBODIMENT, ConversionOptions(codec=codec))
    check_images(source, tmp_path / 'set')
    with av.open(str(video_file(tmp_path / 'set', CAMERA, 1))) as container:
        assert container.streams.video[0].codec_context.name == 'h264'


def test_the_same_episodes_are_known_again(tmp_path):
    source = write_v3(tmp_path / 'v3')
    convert([source], tmp_path / 'set', EMBODIMENT)
    report = convert([source], tmp_path / 'set', EMBODIMENT, ConversionOptions(existing=OutputMode.APPEND))
    assert (report.episodes, len(report.known)) == (0, 3)
    rows = source / 'data/chunk-000/file-000.parquet'
    table = pq.read_table(rows)
    changed = column_to_array(table, 'action').copy()
    changed[0, 0] += 1
    place = table.column_names.index('action')
    vectors = pa.FixedSizeListArray.from_arrays(changed.ravel(), len(NAMES))
    pq.write_table(table.set_column(place, 'action', vectors), rows)
    report = convert([source], tmp_path / 'set', EMBODIMENT, ConversionOptions(existing=OutputMode.APPEND))
    assert (report.episodes, len(report.known)) == (1, 2)


@pytest.mark.parametrize('text', [lambda k: f'{k / FPS:.4f}', lambda k: f'2026-01-01T00:00:{k / FPS:09.6f}'])
def test_timestamps_may_be_texts(tmp_path, text):
    source = write_v3(tmp_path / 'v3', timestamps=text)
    assert convert([source], tmp_path / 'set', EMBODIMENT).episodes == 3


def test_times_of_videos_may_be_texts(tmp_path):
    source = write_v3(tmp_path / 'v3')
    file = source / 'meta/episodes/chunk-000/file-000.parquet'
    records = pq.read_table(file).to_pylist()
    for record in records:
        key = f'videos/{CAMERA}/from_timestamp'
        record[key] = str(record[key])
    pq.write_table(pa.Table.from_pylist(records), file)
    convert([source], tmp_path / 'set', EMBODIMENT)
    check_images(source, tmp_path / 'set')


def with_images(root, form='.png', change=lambda data: data):
    """The same dataset with its camera as images in the parquet file."""
    write_v3(root)
    file = root / 'data/chunk-000/file-000.parquet'
    values = []
    for number in range(sum(LENGTHS)):
        data = cv2.imencode(form, picture(number)[:, :, ::-1])[1].tobytes()
        values.append({'bytes': change(data), 'path': f'frame-{number}{form}'})
    pq.write_table(pq.read_table(file).append_column(CAMERA, pa.array(values)), file)
    info = json.loads((root / 'meta/info.json').read_text())
    info['features'][CAMERA] = {'dtype': 'image', 'shape': [HEIGHT, WIDTH, 3], 'names': None}
    (root / 'meta/info.json').write_text(json.dumps(info))
    return root


@pytest.mark.parametrize('form', ['.png', '.jpg'])
def test_images_in_parquet_files_become_videos(tmp_path, form):
    source = with_images(tmp_path / 'v3', form)
    convert([source], tmp_path / 'set', EMBODIMENT)
    own = shown(video_file(tmp_path / 'set', CAMERA, 1), LENGTHS[1])
    truth = np.array([picture(number) for number in range(20, 45)], int)
    assert np.abs(own - truth).mean() < 3
    assert validate(tmp_path / 'set').errors == 0


HUGE_PNG = bytes.fromhex('89504e470d0a1a0a0000000d49484452000186a0000186a00802000000')


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (lambda data: b'GIF89a' + data, 'row 0 is no PNG or JPEG image'),
        (lambda data: None, 'row 0 is no PNG or JPEG image'),
        (lambda data: data[:60], 'cannot be decoded'),
        (lambda data: HUGE_PNG + data[29:], 'cannot be decoded|larger than any'),
    ],
)
def test_images_that_are_none_are_named(tmp_path, change, text):
    source = with_images(tmp_path / 'v3', change=change)
    with pytest.raises(GrootRosError, match=text):
        convert([source], tmp_path / 'set', EMBODIMENT)


def without_tasks(root):
    return write_v3(root, tasks=False)


def at_two_rates(root):
    return write_v3(root, timestamps=lambda k: k / 15)


def video_at_another_rate(root):
    return write_v3(root, rate=15)


def short_video(root):
    return write_v3(root, count=70)


def odd_times(root):
    return write_v3(root, timestamps=lambda k: 'at noon')


def missing_rows(root):
    write_v3(root)
    file = root / 'data/chunk-000/file-000.parquet'
    pq.write_table(pq.read_table(file).slice(0, 70), file)
    return root


@pytest.mark.parametrize(
    ('make', 'text'),
    [
        (without_tasks, 'v3 episode 0 names no task: give its text with --task'),
        (at_two_rates, r'has row 2 at 0\.133 s, where 30 rows a second of its info.json give 0\.067 s'),
        (video_at_another_rate, r'has no frame at 0\.033 s for row 1 of 20 at 30 rows a second'),
        (short_video, 'it ends before'),
        (odd_times, "has the timestamp 'at noon', which is no time in seconds"),
        (missing_rows, 'has 25 rows, and its meta/ says 31'),
    ],
)
def test_what_datasets_of_the_hub_have_wrong_is_named(tmp_path, make, text):
    with pytest.raises(GrootRosError, match=text):
        convert([make(tmp_path / 'v3')], tmp_path / 'set', EMBODIMENT)
    assert not (tmp_path / 'set').exists()


def test_a_task_that_a_dataset_lacks_may_be_given(tmp_path):
    source = without_tasks(tmp_path / 'v3')
    convert([source], tmp_path / 'set', EMBODIMENT, ConversionOptions(task='lift the cube'))
    assert DatasetMeta(tmp_path / 'set').episodes[0]['tasks'] == ['lift the cube']


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for huggingface_hub with one dataset, as it lies in its cache; notes what is asked for."""
    snapshot = tmp_path / 'cache/datasets--lab--arm/snapshots/0123abcd'
    write_v3(snapshot)
    asked = []

    def snapshot_download(repo_id, *, repo_type, revision=None, allow_patterns=None):
        asked.append((repo_id, repo_type, revision, allow_patterns))
        if repo_id != 'lab/arm':
            raise FileNotFoundError('404 Client Error.\nRepository Not Found')
        return str(snapshot)

    module = ModuleType('huggingface_hub')
    module.__spec__ = object()
    module.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, 'huggingface_hub', module)
    return asked


def test_a_dataset_of_the_hub_is_copied_and_converted(tmp_path, hub):
    convert(['hub:lab/arm@v3.0'], tmp_path / 'set', EMBODIMENT)
    assert hub == [
        ('lab/arm', 'dataset', 'v3.0', ['meta/*', 'meta/**']),
        ('lab/arm', 'dataset', 'v3.0', None),
    ]
    noted = DatasetMeta(tmp_path / 'set').conversion['episodes']
    assert [entry['source'] for entry in noted] == ['lab/arm 0', 'lab/arm 1', 'lab/arm 2']


@pytest.mark.parametrize(
    ('source', 'text'),
    [
        ('hub:arm', 'write hub:OWNER/NAME'),
        ('hub:lab/../arm', 'write hub:OWNER/NAME'),
        ('hub:lab/none', r'cannot be copied from the hub \(404 Client Error\)'),
    ],
)
def test_what_the_hub_does_not_have_is_named(hub, source, text):
    with pytest.raises(GrootRosError, match=text):
        find_recordings([source])


def test_without_the_library_of_the_hub_its_extra_is_named(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(GrootRosError, match=r'pip install "groot_ros\[hub\]"'):
        find_recordings(['hub:lab/arm'])


def test_a_drafted_embodiment_converts_its_dataset(tmp_path, capsys):
    source = write_v3(tmp_path / 'v3-arm')
    assert main(['embodiment', 'draft', str(source)]) == 0
    text = capsys.readouterr().out
    (tmp_path / 'my.yaml').write_text(text)
    assert '# shoulder_pan.pos, shoulder_lift.pos, elbow_flex.pos' in text
    options = ['--output', str(tmp_path / 'set'), '--embodiment', str(tmp_path / 'my.yaml'), '--quiet']
    assert main(['convert', str(source), *options]) == 0
    modality = DatasetMeta(tmp_path / 'set').modality
    assert modality['state'] == {'arm': {'start': 0, 'end': 3}, 'gripper': {'start': 3, 'end': 4}}
    assert list(modality['video']) == ['front']


def info_with(**changes):
    vector = {'dtype': 'float32', 'shape': [3], 'names': None}
    camera = {'dtype': 'video', 'shape': [480, 640, 3], 'names': ['height', 'width', 'channel']}
    features = {'observation.state': vector, 'action': vector, 'observation.images.top': camera, **changes}
    return {'fps': 10, 'features': {name: feature for name, feature in features.items() if feature}}


def test_a_draft_has_arms_by_side_and_cameras_of_one_shape():
    names = [f'{side}_{joint}' for side in ('left', 'right') for joint in ('elbow', 'gripper')]
    state = {'dtype': 'float32', 'shape': [4], 'names': {'motors': names}}
    wide = {'dtype': 'video', 'shape': [3, 721, 1281], 'names': None, 'info': {'video.codec': 'av1'}}
    depth = {'dtype': 'video', 'shape': [480, 640, 1], 'info': {'is_depth_map': True}}
    stored = {'dtype': 'image', 'shape': [480, 640, 3]}
    info = info_with(
        **{'observation.state': state, 'observation.images.1st wide': wide, 'd': depth, 'i': stored}
    )
    embodiment, text = draft_embodiment(info, '2026 lab set', 'lab/set')
    assert embodiment.name == 'robot_2026_lab_set'
    assert {field.name: field.indices for field in embodiment.state} == {
        'left_arm': (0,),
        'left_gripper': (1,),
        'right_arm': (2,),
        'right_gripper': (3,),
    }
    assert [(field.name, field.size) for field in embodiment.action] == [('action', 3)]
    cameras = [(camera.name, camera.width, camera.height) for camera in embodiment.cameras]
    assert cameras == [('top', 640, 480), ('camera_1st_wide', 640, 480), ('i', 640, 480)]
    for note in ('is AV1', 'a video of depth', 'different aspect ratios'):
        assert note in text


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        ({'observation.state': None}, 'no numbers of a state'),
        ({'action': {'dtype': 'string', 'shape': [1]}}, 'no numbers of an action'),
        ({'observation.images.top': None}, 'no video or images'),
    ],
)
def test_what_no_embodiment_can_be_drafted_for_is_named(changes, text):
    with pytest.raises(GrootRosError, match=f'lab/set has {text}'):
        draft_embodiment(info_with(**changes), 'set', 'lab/set')


def test_names_of_a_dataset_never_become_yaml():
    names = ['a\n- evil: true', 'b # c', '\x1b[31m']
    info = info_with(action={'dtype': 'float32', 'shape': [3], 'names': names})
    info['robot_type'] = 'x: [1\n2'
    embodiment, text = draft_embodiment(info, 'a"b\n', 'lab/set')
    assert [field.name for field in embodiment.action] == ['action']
    assert '\x1b' not in text
