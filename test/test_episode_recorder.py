# SPDX-License-Identifier: Apache-2.0
"""A recording and its conversion against signals that are known functions of time."""

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from groot_ros.bags.message_types import ROW_TOPIC
from groot_ros.bags.reader import EpisodeBag
from groot_ros.bags.recover import recover_bag
from groot_ros.cli.main import main
from groot_ros.dataset.convert import convert
from groot_ros.dataset.meta import DatasetMeta
from groot_ros.dataset.options import ConversionOptions
from groot_ros.dataset.sources.bag_recorded import read_samples
from groot_ros.dataset.writers.lerobot_v2 import data_file
from groot_ros.errors import GrootRosError
from groot_ros.geometry import angle_between
from groot_ros.recording.episode_folder import EpisodeFolder
from groot_ros.video.mp4 import count_frames


def live_states(bag, embodiment):
    return np.array(
        [
            message.decode().state
            for message in bag.messages({ROW_TOPIC: bag.connections(embodiment)[ROW_TOPIC]})
        ]
    )


def test_rows_are_the_truth_at_their_ticks(tmp_path, synthetic, embodiment, known):
    synthetic(seconds=1.5, flip_quaternions=True).record(tmp_path / 'bag')
    with EpisodeBag(tmp_path / 'bag') as bag:
        samples = read_samples(bag, embodiment)
    assert len(samples) == 30
    for sample in samples:
        t = (sample.tick_ns - known.t0_ns) / 1e9
        np.testing.assert_allclose(sample.state[:6], known.motion.joints(t), atol=1e-4)
        np.testing.assert_allclose(sample.state[6:12], known.motion.velocities(t), atol=1e-4)
        np.testing.assert_allclose(sample.state[13:16], known.motion.pose(t)[:3], atol=1e-4)
        assert angle_between(sample.state[13:], known.motion.pose(t)) < 1e-4


def test_live_rows_and_converted_rows_agree_to_the_bit(tmp_path, synthetic, embodiment):
    synthetic(seconds=1.5).record(tmp_path / 'bag')
    with EpisodeBag(tmp_path / 'bag') as bag:
        converted = np.array([sample.state for sample in read_samples(bag, embodiment)])
        np.testing.assert_array_equal(live_states(bag, embodiment), converted)


def test_the_dataset_holds_true_deltas_commands_and_times(tmp_path, synthetic, embodiment, known):
    synthetic(seconds=1.5).record(tmp_path / 'bag', task='put it – there')
    report = convert([tmp_path / 'bag'], tmp_path / 'set', embodiment)
    assert (report.episodes, report.rows) == (1, 29)
    table = pq.read_table(tmp_path / 'set/data/chunk-000/episode_000000.parquet')
    actions = np.array(table['action'].to_pylist())
    np.testing.assert_allclose(actions[:, :3], np.tile([0.05 / 20, 0.02 / 20, 0], (29, 1)), atol=1e-4)
    np.testing.assert_allclose(actions[:, 3:6], np.tile([0, 0, 0.4 / 20], (29, 1)), atol=1e-4)
    ticks_s = np.arange(30) / 20 + 0.103
    in_force = [known.motion.opening(np.floor((t - 0.001) / 0.02) * 0.02 + 0.001) for t in ticks_s[1:]]
    np.testing.assert_array_equal(actions[:, 6], in_force)
    assert table['timestamp'].to_pylist() == [k / 20 for k in range(29)]
    assert (
        count_frames(tmp_path / 'set/videos/chunk-000/observation.images.zed_camera/episode_000000.mp4') == 29
    )
    tasks = [json.loads(line) for line in (tmp_path / 'set/meta/tasks.jsonl').read_text().splitlines()]
    assert tasks == [{'task_index': 0, 'task': 'put it – there'}, {'task_index': 1, 'task': 'valid'}]


def test_each_episode_has_the_statistics_that_lerobot_reads(dataset):
    lines = [json.loads(line) for line in (dataset / 'meta/episodes_stats.jsonl').read_text().splitlines()]
    assert [line['episode_index'] for line in lines] == [0, 1]
    features = json.loads((dataset / 'meta/info.json').read_text())['features']
    for line in lines:
        assert set(line['stats']) == set(features)
        image_stats = line['stats']['observation.images.zed_camera']
        assert np.shape(image_stats['mean']) == (3, 1, 1)
        assert 0 <= np.min(image_stats['min']) <= np.max(image_stats['max']) <= 1
        assert line['stats']['observation.state']['count'] == [29]
        table = pq.read_table(dataset / f'data/chunk-000/episode_{line["episode_index"]:06d}.parquet')
        actions = np.array(table['action'].to_pylist())
        np.testing.assert_allclose(line['stats']['action']['mean'], actions.mean(axis=0))
        np.testing.assert_allclose(line['stats']['index']['max'], [table['index'].to_numpy().max()])


def test_modality_is_exactly_the_published_one(dataset):
    assert json.loads((dataset / 'meta/modality.json').read_text()) == {
        'state': {
            'joint_positions': {'start': 0, 'end': 6}, 'joint_velocities': {'start': 6, 'end': 12},
            'gripper_state': {'start': 12, 'end': 13}, 'tcp_pose': {'start': 13, 'end': 20},
        },
        'action': {
            'delta_tcp_position': {'start': 0, 'end': 3, 'absolute': False},
            'delta_tcp_orientation': {'start': 3, 'end': 6, 'absolute': False},
            'gripper_command': {'start': 6, 'end': 7, 'absolute': True},
        },
        'video': {'zed_camera': {'original_key': 'observation.images.zed_camera'}},
        'annotation': {'human.action.task_description': {}, 'human.validity': {}},
    }  # fmt: skip


def test_missing_frames_are_filled_and_counted(tmp_path, synthetic, embodiment):
    trace = synthetic(seconds=1.5, missing_frames=(5, 6, 20)).record(tmp_path / 'bag')
    assert (trace.rows, trace.filled, trace.lost) == (30, 3, 0)
    assert convert([tmp_path / 'bag'], tmp_path / 'set', embodiment).rows == 29


def task_and_validity(dataset):
    """The one task of a dataset, and the validity of its first row."""
    [task] = json.loads((dataset / 'meta/episodes.jsonl').read_text())['tasks']
    table = pq.read_table(data_file(dataset, 0))
    return task, DatasetMeta(dataset).tasks[table['annotation.human.validity'][0].as_py()]


def test_the_outcome_becomes_the_validity(tmp_path, synthetic, embodiment):
    synthetic().record(tmp_path / 'bag', outcome='failure')
    convert([tmp_path / 'bag'], tmp_path / 'set', embodiment, ConversionOptions(outcomes=('failure',)))
    assert task_and_validity(tmp_path / 'set') == ('move the cube', 'invalid')


def test_a_long_task_with_newlines_survives(tmp_path, synthetic):
    task = 'línea\n"quoted" \\ ' * 600
    synthetic(seconds=0.3).record(tmp_path / 'bag', task=task)
    with EpisodeBag(tmp_path / 'bag') as bag:
        assert bag.info['task'] == task


_KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {folder!r})
from conftest import SyntheticEpisode
from groot_ros.recording.episode_recorder import EpisodeRecording
from groot_ros.bags.message_types import typestore
from conftest import T0_NS, TOPIC_TYPES
from groot_ros.embodiment import load_embodiment
embodiment = load_embodiment('ur5e_robotiq_zed')
source = SyntheticEpisode(embodiment, seconds=3600)
info = {{'task': 'killed', 'namespace': '/'}}
recording = EpisodeRecording(Path({bag!r}), embodiment, dict(TOPIC_TYPES), info)
for index, (stamp_ns, topic, message) in enumerate(source.messages()):
    while recording.queue_length > 50:
        time.sleep(0.001)
    recording.put(topic, T0_NS + stamp_ns, bytes(typestore().serialize_cdr(message, TOPIC_TYPES[topic])))
    if index % 200 == 0:
        print(recording.trace.rows, time.monotonic(), flush=True)
"""


def test_a_killed_recorder_leaves_rows_up_to_the_last_second(tmp_path, embodiment):
    bag = tmp_path / 'bag'
    script = _KILLED.format(folder=str(Path(__file__).parent), bag=str(bag))
    process = subprocess.Popen([sys.executable, '-c', script], stdout=subprocess.PIPE, text=True)
    progress = []
    for line in process.stdout:
        ticks, when_s = line.split()
        progress.append((int(ticks), float(when_s)))
        if int(ticks) > 60 and when_s and progress[-1][1] - progress[0][1] > 2.5:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(GrootRosError, match='groot-ros recover'):
        EpisodeBag(bag)
    recover_bag(bag)
    with EpisodeBag(bag) as recovered:
        rows = len(live_states(recovered, embodiment))
        assert recovered.info['task'] == 'killed'
    a_second_before = max(ticks for ticks, when_s in progress if when_s <= progress[-1][1] - 1.0)
    assert rows >= a_second_before > 0
    assert (tmp_path / 'bag.torn').is_dir()
    assert (
        convert([tmp_path], tmp_path / 'set', embodiment, ConversionOptions(outcomes=('interrupted',))).rows
        == rows - 1
    )  # what is left of the torn bag is passed over
    assert task_and_validity(tmp_path / 'set') == ('killed', 'invalid')


def test_a_bag_is_not_recovered_while_a_recorder_writes_to_its_folder(tmp_path, synthetic):
    synthetic(seconds=0.3).record(tmp_path / 'episode_000000')
    (tmp_path / 'episode_000000' / 'metadata.yaml').unlink()
    folder = EpisodeFolder(tmp_path)
    with pytest.raises(GrootRosError, match='recorder still writes'):
        recover_bag(tmp_path / 'episode_000000')
    folder.close()
    assert recover_bag(tmp_path / 'episode_000000').messages > 0


def test_a_full_disk_ends_the_recording_and_what_was_written_can_be_recovered(
    tmp_path, synthetic, embodiment, monkeypatch
):
    from rosbags.rosbag2.storage_mcap import McapWriter

    chunks, write_chunk = [], McapWriter.close_chunk

    def full_after_three(writer):
        if len(chunks) == 3:
            raise OSError(errno.ENOSPC, 'No space left on device')
        chunks.append(writer)
        write_chunk(writer)

    with monkeypatch.context() as patched:
        patched.setattr(McapWriter, 'close_chunk', full_after_three)
        patched.setattr('groot_ros.bags.writer._FLUSH_S', 0.02)
        with pytest.raises(OSError, match='No space left'):
            synthetic(seconds=4).record(tmp_path / 'bag')
    next((tmp_path / 'bag').glob('*.mcap')).stat()
    assert recover_bag(tmp_path / 'bag').messages > 0
    with EpisodeBag(tmp_path / 'bag') as bag:
        assert len(live_states(bag, embodiment)) > 0


def test_a_recovery_that_fails_leaves_the_torn_bag_as_it_was(tmp_path, synthetic, monkeypatch, capsys):
    synthetic(seconds=0.3).record(tmp_path / 'bag')
    (tmp_path / 'bag' / 'metadata.yaml').unlink()

    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('groot_ros.bags.writer.EpisodeWriter.write', full)
    assert main(['recover', str(tmp_path / 'bag')]) == 1
    assert capsys.readouterr().err.startswith('error: The disk is full.')
    assert [path.name for path in tmp_path.iterdir()] == ['bag']


def test_episode_numbers_go_on_after_a_restart(tmp_path):
    first = EpisodeFolder(tmp_path)
    first.next_path().mkdir()
    first.next_path().mkdir()
    (tmp_path / 'episode_000000').rmdir()
    first.close()
    (tmp_path / 'episode_000007.torn').mkdir()
    second = EpisodeFolder(tmp_path)
    assert second.next_path().name == 'episode_000008'
    second.close()
