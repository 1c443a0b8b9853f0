# SPDX-License-Identifier: Apache-2.0
"""Task list, index of episodes, stream statistics, preflight, and embodiments for topics of other drivers."""

import contextlib
import errno
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groot_ros.embodiment import load_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.quality.verdict import judge, load_thresholds
from groot_ros.recording.episode_folder import EpisodeFolder, IndexEntry
from groot_ros.recording.episode_recorder import EpisodeRecording, RecordingSettings
from groot_ros.recording.operator_feedback import OperatorFeedback
from groot_ros.recording.preflight import RecorderSnapshot, bytes_per_second, preflight, recording_problems
from groot_ros.recording.task_list import Task, TaskList, TaskQueue, load_tasks
from groot_ros.sampling.rows import RowSampler
from groot_ros.sampling.stream_monitor import StreamMeter, StreamStats
from groot_ros.sampling.ticks import GridTicks, ReferenceTicks, ticks_for

S = 1_000_000_000


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_working_through_a_list_reaches_every_count_and_keeps_shares_even(counts):
    tasks, done = [Task(text=f'task {k}', count=count) for k, count in enumerate(counts)], {}
    queue = TaskQueue(TaskList(tasks=tasks))
    while progress := queue.next_task(done):
        done[progress.task.text] = progress.done + 1
        shares = [done.get(task.text, 0) / task.count for task in tasks]
        assert max(shares) - min(shares) <= 1 / min(counts) + 1e-9
    assert [done[task.text] for task in tasks] == counts


def test_a_list_in_blocks_finishes_each_task_before_the_next():
    tasks = [Task(text='first', count=2), Task(text='second', count=1)]
    queue = TaskQueue(TaskList(tasks=tasks, order='blocks'))
    assert queue.next_task({'first': 1}).task.text == 'first'
    assert queue.next_task({'first': 2}).task.text == 'second'
    assert queue.next_task({'first': 2, 'second': 1}) is None


def text_of(progress) -> str:
    return progress.task.text if progress else ''


def test_a_person_goes_on_to_another_task_for_one_usable_episode():
    queue = TaskQueue(TaskList(tasks=[Task(text=text, count=3) for text in 'abc']))
    assert [text_of(queue.advance({})) for _ in range(4)] == ['b', 'c', 'a', 'b']
    assert text_of(queue.next_task({})) == 'b'  # also after an episode that was discarded
    assert text_of(queue.next_task({'b': 1})) == 'a'


def test_in_blocks_the_task_that_a_person_goes_on_to_stays_until_it_is_done():
    queue = TaskQueue(TaskList(tasks=[Task(text=text, count=2) for text in 'abc'], order='blocks'))
    assert text_of(queue.advance({})) == 'b'
    assert [text_of(queue.next_task({'b': done})) for done in (1, 2)] == ['b', 'a']


def test_a_skipped_task_is_left_out_and_named_at_the_end():
    queue = TaskQueue(TaskList(tasks=[Task(text=text) for text in 'abc']))
    assert text_of(queue.skip({})) == 'a'
    assert text_of(queue.next_task({})) == 'b'
    with pytest.raises(GrootRosError, match="'c' is the only task that is left"):
        queue.advance({'b': 1})
    assert text_of(queue.skip({'b': 1})) == 'c'
    assert queue.next_task({'b': 1}) is None
    for order in (queue.skip, queue.advance):
        with pytest.raises(GrootRosError, match='The task list is done, but for what was skipped: a, c'):
            order({'b': 1})


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.lists(st.sampled_from(['episode', 'advance', 'skip']), max_size=30),
    st.sampled_from(['alternate', 'blocks']),
)
def test_any_order_of_wishes_gives_open_tasks_only(counts, wishes, order):
    tasks = [Task(text=f'task {k}', count=count) for k, count in enumerate(counts)]
    queue = TaskQueue(TaskList(tasks=tasks, order=order))
    done, skipped = {}, set()
    for wish in wishes:
        progress = queue.next_task(done)
        if progress is None:
            break
        text = progress.task.text
        assert text not in skipped
        assert progress.done == done.get(text, 0) < progress.task.count
        if wish == 'episode':
            done[text] = progress.done + 1
        elif wish == 'skip':
            skipped.add(text_of(queue.skip(done)))
        else:
            with contextlib.suppress(GrootRosError):
                assert text_of(queue.advance(done)) != text
    open_tasks = [t for t in tasks if t.text not in skipped and done.get(t.text, 0) < t.count]
    assert (queue.next_task(done) is None) == (not open_tasks)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('tasks: []', 'tasks'),
        ('tasks: [{text: ""}]', 'tasks.0.text'),
        ('{order: randomly, tasks: [{text: x}]}', 'order'),
        ('- a', 'is wrong: give keys with values'),
        ('tasks: [{text: x, cont: 3}]', 'cont'),
    ],
)
def test_a_wrong_task_list_is_named(tmp_path, text, message):
    (tmp_path / 'tasks.yaml').write_text(text)
    with pytest.raises(GrootRosError, match=message):
        load_tasks(tmp_path / 'tasks.yaml')


def entry(name, task='x', outcome='success', verdict='pass'):
    return IndexEntry(name, task, outcome, verdict, 10, 0.5)


def saved(folder: EpisodeFolder, made: IndexEntry):
    path = folder.path / made.name
    path.mkdir()
    (path / 'metadata.yaml').write_text('')
    (path / 'verdict.json').write_text(json.dumps({**vars(made), 'episode': made.name}))
    folder.add(made)


def test_the_index_counts_good_episodes_and_is_made_again_when_it_is_lost(tmp_path):
    folder = EpisodeFolder(tmp_path)
    for made in (
        entry('episode_000000'),
        entry('episode_000001', outcome='failure'),
        entry('episode_000002', verdict='fail'),
        entry('episode_000003'),
    ):
        saved(folder, made)
    assert folder.good_episode_counts() == {'x': 2}
    folder.close()
    (tmp_path / 'episodes.json').write_text('{"half')
    again = EpisodeFolder(tmp_path)
    assert again.good_episode_counts() == {'x': 2}
    again.close()
    (tmp_path / 'episode_000003' / 'metadata.yaml').unlink()
    third = EpisodeFolder(tmp_path)
    assert third.good_episode_counts() == {'x': 1}
    assert third.write_speed() > 0
    assert not (tmp_path / '.write_probe').exists()
    third.close()


def meter_of(stamps_s, arrivals_s=None, expected_hz=100.0):
    meter = StreamMeter('x', expected_hz)
    for stamp_s, arrival_s in zip(stamps_s, arrivals_s or stamps_s, strict=True):
        meter.add(round(stamp_s * S), round(arrival_s * S))
    return meter


def test_a_meter_reports_rate_jitter_and_gap():
    stats = meter_of(np.arange(1, 4, 0.01).tolist()).stats(round(3.99 * S))
    assert stats.rate_hz == pytest.approx(100.0, rel=0.01)
    assert stats.jitter_s == pytest.approx(0.0, abs=1e-6)
    assert (stats.level, stats.problem) == (0, '')


@pytest.mark.parametrize(
    ('stamps_s', 'now_s', 'level', 'problem'),
    [
        (np.arange(1, 3, 0.01), 4.0, 2, 'silent for 1.0 s'),
        (np.arange(1, 3, 0.02), 2.99, 2, 'comes at 50.0 Hz instead of 100'),
        ([*np.arange(1, 2, 0.01), *np.arange(2.06, 3, 0.01)], 2.99, 1, 'had a gap of 70 ms'),
        ([*np.arange(1, 2, 0.01), 1.9, *np.arange(2, 3, 0.01)], 2.99, 1, 'stamps went back'),
    ],
)
def test_a_meter_names_what_is_wrong(stamps_s, now_s, level, problem):
    arrivals = np.maximum.accumulate(np.asarray(stamps_s)).tolist()
    stats = meter_of(list(stamps_s), arrivals).stats(round(now_s * S))
    assert (stats.level, stats.problem) == (level, problem)


def test_a_clock_that_is_another_is_named():
    arrivals = np.arange(100, 102, 0.01)
    stats = meter_of((arrivals - 30).tolist(), arrivals.tolist()).stats(102 * S)
    assert (stats.level, stats.problem) == (2, 'stamped 30.0 s in the past: its clock is not this one')


def test_silence_is_no_fault_of_a_stream_without_a_rate():
    assert meter_of([1.0], expected_hz=0.0).stats(100 * S).problem == ''
    assert StreamMeter('x', 0.0).stats(0).level == 0
    assert StreamMeter('x', 5.0).stats(0).problem == 'nothing came'


GOOD_TYPES = {
    'joint_states': 'sensor_msgs/msg/JointState',
    'gripper/state': 'groot_ros/msg/GripperState',
    'tcp_pose': 'geometry_msgs/msg/PoseStamped',
    'zed/image': 'sensor_msgs/msg/Image',
}


def view(**changes):
    flows = {topic: StreamStats(rate_hz=100.0, age_s=0.01) for topic in GOOD_TYPES}
    return RecorderSnapshot(
        **{
            'types': GOOD_TYPES,
            'publishers': dict.fromkeys(GOOD_TYPES, 1),
            'stats': flows,
            'free_bytes': 1e12,
            **changes,
        }
    )


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        (
            {'types': {}},
            'nothing publishes joint_states, gripper/state, tcp_pose, zed/image: start its driver',
        ),
        ({'publishers': {'tcp_pose': 2}}, 'tcp_pose has 2 publishers'),
        (
            {'stats': {'zed/image': StreamStats(level=2, problem='silent for 3.0 s')}},
            'zed/image: silent for 3.0 s',
        ),
        ({'free_bytes': 1e9}, '1.0 GB are free'),
        ({'write_speed': 1e6}, 'the disk writes 1 MB/s'),
        (
            {'types': {**GOOD_TYPES, 'tcp_pose': 'geometry_msgs/msg/Pose'}},
            'tcp_pose is of type geometry_msgs/msg/Pose',
        ),
    ],
)
def test_preflight_names_each_reason(embodiment, changes, reason):
    assert preflight(embodiment, RecordingSettings(), view(), 2e9) == []
    assert any(
        problem.startswith(reason)
        for problem in preflight(embodiment, RecordingSettings(), view(**changes), 2e9)
    )


def test_a_recording_without_a_row_names_the_topics_that_are_silent(tmp_path, embodiment):
    recording = EpisodeRecording(tmp_path / 'bag', embodiment, GOOD_TYPES, {})
    assert recording_problems(recording, 1.0) == []
    (problem,) = recording_problems(recording, 3.0)
    assert 'no row yet' in problem
    assert 'joint_states' in problem
    recording.trace.overflows = 7
    assert '7 messages were lost' in recording_problems(recording, 1.0)[0]
    recording.finish({})


def test_larger_formats_need_a_faster_disk(embodiment):
    needs = [
        bytes_per_second(embodiment, RecordingSettings(video=video)) for video in ('h264', 'jpeg', 'raw')
    ]
    assert needs == sorted(needs)
    assert needs[-1] > 640 * 480 * 3 * 20


@given(st.floats(5.0, 60.0), st.integers(0, 10**6), st.sampled_from([10.0, 15.0, 20.0, 30.0, 30000 / 1001]))
def test_grid_ticks_lie_on_the_grid_whatever_the_camera_sends(camera_hz, offset_us, fps):
    ticks, found = GridTicks(fps, camera_hz), []
    first_ns = 1_700_000_000 * S + offset_us * 1000
    stamps = [first_ns + round(k * S / camera_hz) for k in range(200)]
    for stamp_ns in stamps:
        found += ticks.add(stamp_ns)
    steps = np.diff([tick.stamp_ns for tick in found])
    assert found[0].stamp_ns >= first_ns
    assert found[-1].stamp_ns <= stamps[-1]
    assert np.abs(steps - S / fps).max() <= 1
    assert not any(tick.filled for tick in found)
    assert abs(found[0].stamp_ns * fps / S - round(found[0].stamp_ns * fps / S)) < 1e-3


def test_grid_ticks_without_a_frame_near_them_are_filled():
    ticks = GridTicks(10.0, 20.0)
    stamps = [k * 50_000_000 + 5 * S for k in range(40) if not 10 <= k < 20]
    found = [tick for stamp_ns in stamps for tick in ticks.add(stamp_ns)]
    assert len(found) == 20
    assert [tick.stamp_ns / S for tick in found if tick.filled] == [5.6, 5.7, 5.8, 5.9]


def test_a_camera_of_the_datasets_rate_gives_the_ticks_itself():
    assert isinstance(ticks_for(30.0, 30000 / 1001), ReferenceTicks)
    assert isinstance(ticks_for(30.0, 60.0), GridTicks)


def test_the_topics_of_other_drivers_give_the_same_row(embodiment):
    other = load_embodiment('ur5e_ros2_drivers')
    assert [field.name for field in other.state] == [field.name for field in embodiment.state]
    assert (other.state_size, other.action_size, other.fps) == (
        embodiment.state_size,
        embodiment.action_size,
        embodiment.fps,
    )
    assert load_embodiment('ur5e_ros2_drivers_zed5').cameras[0].topic == 'zed/zed_node/rgb/color/rect/image'
    assert load_embodiment('ur5e_ros2_drivers_zed5').cameras[0].width == 1280


def test_a_knuckle_becomes_an_opening_and_messages_of_other_joints_are_passed_over(embodiment):
    from groot_ros.bags.message_types import time_message, typestore

    sampler, types = RowSampler(load_embodiment('ur5e_ros2_drivers')), typestore().types

    def joints(stamp_ns, names, positions):
        header = types['std_msgs/msg/Header'](time_message(stamp_ns), '')
        return types['sensor_msgs/msg/JointState'](
            header, names, np.array(positions), np.zeros(len(names)), np.zeros(0)
        )

    arm = [joint for field in embodiment.state for joint in field.joints][:6]
    pose = types['geometry_msgs/msg/Pose'](
        types['geometry_msgs/msg/Point'](1, 2, 3), types['geometry_msgs/msg/Quaternion'](0, 0, 0, 1)
    )
    for stamp_ns in (10**9, 2 * 10**9):
        header = types['std_msgs/msg/Header'](time_message(stamp_ns), '')
        sampler.add('joint_states', joints(stamp_ns, arm, np.arange(6.0)))
        sampler.add('joint_states', joints(stamp_ns + 1, ['robotiq_85_left_knuckle_joint'], [0.2]))
        sampler.add('tcp_pose_broadcaster/pose', types['geometry_msgs/msg/PoseStamped'](header, pose))
    sample = sampler.sample(2 * 10**9 - 50_000_000)
    assert sample.state[12] == pytest.approx(0.75)
    assert sample.commands.tolist() == pytest.approx([0.75])
    np.testing.assert_allclose(sample.state[:6], np.arange(6))


def test_an_embodiment_that_is_its_own_base_is_refused(tmp_path):
    file = tmp_path / 'loop.yaml'
    file.write_text(f'base: {file}\n')
    with pytest.raises(GrootRosError, match='its own base'):
        load_embodiment(str(file))
    file.write_text('base: nonsense')
    with pytest.raises(GrootRosError, match="'nonsense' is not known: use one of"):
        load_embodiment(str(file))


def test_operator_feedback_that_is_not_possible_is_named(monkeypatch):
    OperatorFeedback('none').give('x')
    with pytest.raises(GrootRosError, match='not known'):
        OperatorFeedback('shout')
    monkeypatch.setattr('shutil.which', lambda name: None)
    with pytest.raises(GrootRosError, match='espeak'):
        OperatorFeedback('speech')


def test_a_bell_rings(capsys):
    OperatorFeedback('bell').give('recording')
    assert capsys.readouterr().err == '\a'


def test_configurations_are_shipped():
    assert (Path(__file__).parents[1] / 'config' / 'foxglove_layout.json').is_file()


def test_a_full_disk_has_no_speed_and_leaves_no_probe(tmp_path, monkeypatch):
    folder = EpisodeFolder(tmp_path)

    def full(_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('os.fdatasync', full)
    assert folder.write_speed() == 0.0
    assert not (tmp_path / '.write_probe').exists()
    folder.close()


def test_an_episode_without_a_row_is_judged(tmp_path, embodiment):
    recording = EpisodeRecording(
        tmp_path / 'bag', embodiment, {'joint_states': 'sensor_msgs/msg/JointState'}, {'task': 'x'}
    )
    verdict = judge(recording.finish({}), load_thresholds(), {}, 'bag')
    assert (verdict.verdict, verdict.rows) == ('fail', 0)
    assert verdict.reasons[0] == 'The episode has no row.'
