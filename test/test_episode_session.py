# SPDX-License-Identifier: Apache-2.0
"""The life of a recorder's episodes without ROS: start, pause, discard, redo, failure and the task list."""

import json

import pytest

from benchmark.signals import STATE_TYPES, T0_NS
from groot_ros.bags.label import make_label
from groot_ros.bags.message_types import IMAGE_TYPE, typestore
from groot_ros.bags.reader import EpisodeBag
from groot_ros.dataset.options import ConversionOptions, parse_outcomes
from groot_ros.dataset.sources.bag_segment import bag_outcome
from groot_ros.dataset.sources.recording import OutcomeLeftOutError, check_outcome
from groot_ros.errors import GrootRosError
from groot_ros.quality.trace_from_bag import load_trace
from groot_ros.quality.verdict import Thresholds, judge
from groot_ros.recording.episode_session import EpisodeSession, SessionSettings
from groot_ros.recording.operator_feedback import OperatorFeedback
from groot_ros.recording.preflight import RecorderSnapshot
from groot_ros.recording.task_list import Task, TaskList, TaskQueue
from groot_ros.sampling.stream_monitor import StreamStats

TOPIC_TYPES = {**STATE_TYPES, 'zed/image': IMAGE_TYPE}


class Recorder:
    """A session with known streams in place of a node, and what it reports."""

    def __init__(self, folder, embodiment, tasks=()) -> None:
        queue = TaskQueue(TaskList(tasks=list(tasks))) if tasks else None
        self.snapshot = RecorderSnapshot(types=dict(TOPIC_TYPES))
        self.verdicts = []
        self.log = []
        self.warnings = []
        self.session = EpisodeSession(
            embodiment,
            SessionSettings(Thresholds({}), task_queue=queue),
            OperatorFeedback('none'),
            observe=lambda: self.snapshot,
            on_finish=self.verdicts.append,
            info=self.log.append,
            warn=self.warnings.append,
        )
        self.session.open(folder)
        self.session.write_speed = 1e9  # what is tested here is not the speed of this disk

    def start(self, task='move the cube', force=False) -> str:
        return self.session.start(task, 'test', force)

    def play(self, synthetic) -> None:
        for stamp_ns, topic, message in synthetic(seconds=0.5).messages():
            cdr = bytes(typestore().serialize_cdr(message, TOPIC_TYPES[topic]))
            self.session.put(topic, T0_NS + stamp_ns, cdr)


@pytest.fixture
def recorder(tmp_path, embodiment):
    made = []

    def make(tasks=()) -> Recorder:
        made.append(Recorder(tmp_path, embodiment, tasks))
        return made[-1]

    yield make
    for each in made:
        if each.session.recording is not None:
            each.session.finish('interrupted')
        each.session.close()


def test_an_episode_is_recorded_judged_and_listed(recorder, synthetic, tmp_path):
    one = recorder()
    one.play(synthetic)
    assert one.start() == 'episode_000000'
    one.play(synthetic)
    verdict = one.session.finish('success')
    assert one.verdicts == [verdict]
    assert (verdict.verdict, verdict.rows) == ('pass', 10)
    assert (verdict.outcome, verdict.task) == ('success', 'move the cube')
    assert json.loads((tmp_path / 'episode_000000' / 'verdict.json').read_text())['rows'] == 10
    assert [entry.name for entry in one.session.folder.entries] == ['episode_000000']
    assert one.session.saved == 1
    assert one.session.last_verdict == verdict.verdict


def test_without_an_episode_there_is_nothing_to_stop_pause_discard_or_redo(recorder):
    session = recorder().session
    for order in (lambda: session.finish('success'), lambda: session.pause(True)):
        with pytest.raises(GrootRosError, match='No episode is being recorded: start one first'):
            order()
    for order in (session.discard, session.redo):
        with pytest.raises(GrootRosError, match='nothing to discard'):
            order()
    assert not session.finish_if_failed()


def test_a_start_that_is_not_possible_says_why(recorder):
    one = recorder()
    with pytest.raises(GrootRosError, match='An episode needs a task'):
        one.start(task='')
    one.snapshot.publishers = {'tcp_pose': 2}
    with pytest.raises(GrootRosError, match='tcp_pose has 2 publishers'):
        one.start()
    del one.snapshot.types['tcp_pose']
    with pytest.raises(GrootRosError, match='Nothing publishes tcp_pose'):
        one.start(force=True)
    one.snapshot.types = dict(TOPIC_TYPES)
    one.start(force=True)
    with pytest.raises(GrootRosError, match='episode_000000 is being recorded already'):
        one.start()


def test_a_topic_whose_type_is_not_installed_is_published_but_cannot_be_recorded(recorder):
    one = recorder()
    one.snapshot.unknown = {'tcp_pose': one.snapshot.types.pop('tcp_pose')}
    assert one.session.problems() == []
    with pytest.raises(GrootRosError, match='Nothing publishes tcp_pose'):
        one.start()


def test_a_topic_that_changes_its_type_is_named(recorder):
    one = recorder()
    one.snapshot.changed = {'tcp_pose': 'geometry_msgs/msg/Pose'}
    (problem,) = one.session.problems()
    assert problem.startswith(
        'tcp_pose came as geometry_msgs/msg/PoseStamped and now as geometry_msgs/msg/Pose'
    )


def test_redo_records_the_same_task_again_under_the_same_number(recorder, tmp_path):
    one = recorder()
    one.start('another')
    assert one.session.redo() == 'episode_000000'
    assert one.session.task == 'another'
    assert one.verdicts[0].outcome == 'discarded'
    one.snapshot.publishers = {'tcp_pose': 2}
    with pytest.raises(GrootRosError, match='discarded episode_000000; Not ready: tcp_pose has 2'):
        one.session.redo()
    assert not list(tmp_path.glob('episode_0*'))
    assert one.session.saved == 0


def test_a_pause_that_changes_nothing_is_refused(recorder):
    one = recorder()
    one.start()
    with pytest.raises(GrootRosError, match='It is not paused'):
        one.session.pause(False)
    assert one.session.pause(True).startswith('paused')
    with pytest.raises(GrootRosError, match='It is paused already'):
        one.session.pause(True)
    assert one.session.pause(False) == 'recording continues in a new segment'


def test_an_episode_that_cannot_go_on_is_saved_as_interrupted(recorder, eventually):
    one = recorder()
    one.start()
    one.session.put('tcp_pose', T0_NS, b'not a message')
    assert eventually(one.session.finish_if_failed)
    (verdict,) = one.verdicts
    assert (verdict.outcome, verdict.verdict) == ('interrupted', 'fail')
    assert 'episode_000000 holds what was recorded before a failure' in verdict.failure


def make_silent(one, topic, silent_s, began_s=60.0) -> None:
    one.session._began_s -= began_s
    one.snapshot.stats = {topic: StreamStats(rate_hz=0.0, silent_s=silent_s)}


def test_an_episode_whose_camera_is_lost_ends_and_its_verdict_names_it(
    recorder, synthetic, tmp_path, embodiment
):
    one = recorder()
    one.start()
    one.play(synthetic)
    make_silent(one, 'zed/image', 2.1)
    assert not one.session.finish_if_stream_lost()  # the recorder itself may have stood still
    assert one.session.finish_if_stream_lost()
    assert one.session.recording is None
    reason = 'The episode was ended, because zed/image fell silent.'
    saved = json.loads((tmp_path / 'episode_000000/verdict.json').read_text())
    assert (saved['outcome'], saved['verdict'], saved['reasons'][0]) == ('interrupted', 'warn', reason)
    with EpisodeBag(tmp_path / 'episode_000000') as bag:
        again = judge(load_trace(bag, embodiment), Thresholds({}), bag.info, 'episode_000000')
    assert again.reasons == saved['reasons']
    assert not one.session.finish_if_stream_lost()


@pytest.mark.parametrize(
    ('topic', 'silent_s', 'began_s'),
    [('zed/image', 1.9, 60.0), ('zed/image', -1.0, 60.0), ('zed/image', 5.0, 1.0), ('another', 5.0, 60.0)],
)
def test_an_episode_goes_on_while_no_stream_that_it_had_is_lost(recorder, topic, silent_s, began_s):
    one = recorder()
    one.start()
    make_silent(one, topic, silent_s, began_s)
    assert not any(one.session.finish_if_stream_lost() for _ in range(3))
    assert one.session.recording is not None


def test_a_stream_that_is_lost_for_one_look_only_or_in_a_pause_ends_nothing(recorder):
    one = recorder()
    one.start()
    for silent_s in (2.1, 0.01, 2.1, 0.01):
        make_silent(one, 'zed/image', silent_s)
        assert not one.session.finish_if_stream_lost()
    one.session.pause(True)
    make_silent(one, 'zed/image', 9.0)
    assert not any(one.session.finish_if_stream_lost() for _ in range(3))


def test_an_episode_counts_for_its_task_only_if_it_is_usable(recorder, synthetic):
    one = recorder([Task(text='first'), Task(text='second')])
    one.start(task='')
    one.session.announce_verdict(one.session.finish('success'))
    assert 'The episode has no row' in one.warnings[-1]
    assert one.log[-1] == 'Next: first (0 of 1 done)'
    for task in ('first', 'second'):
        one.start(task='')
        assert one.session.task == task
        one.play(synthetic)
        one.session.announce_verdict(one.session.finish('success'))
    assert one.log[-1] == 'The task list is done.'
    with pytest.raises(GrootRosError, match='The task list is done'):
        one.start(task='')


def test_the_next_task_is_changed_between_episodes_only(recorder):
    one = recorder([Task(text='first'), Task(text='second')])
    assert one.session.advance_task() == 'next: second'
    one.start(task='')
    assert one.session.task == 'second'
    for change in (one.session.advance_task, one.session.skip_task):
        with pytest.raises(GrootRosError, match='episode_000000 is being recorded'):
            change()
    one.session.discard()
    assert one.session.skip_task() == 'skipped second; next: first'
    assert (
        one.session.skip_task()
        == 'skipped first; the task list is done, but for what was skipped: first, second'
    )


def test_without_a_list_there_is_no_task_to_skip(recorder):
    session = recorder().session
    for change in (session.advance_task, session.skip_task):
        with pytest.raises(GrootRosError, match='There is no task list: give the recorder a tasks_file'):
            change()


def test_a_problem_is_reported_once_while_only_its_numbers_change(recorder):
    one = recorder()
    one.start()
    one.session.warn_new_problems(['writing is 0.6 s late'])
    one.session.warn_new_problems(['writing is 0.7 s late'])
    assert one.warnings == ['episode_000000: writing is 0.6 s late.']
    one.session.warn_new_problems([])
    one.session.warn_new_problems(['writing is 0.8 s late'])
    assert len(one.warnings) == 2


def test_lost_messages_are_counted_for_the_episode_and_reported(recorder):
    one = recorder()
    one.session.add_lost('tcp_pose', 1)
    one.start()
    one.session.add_lost('tcp_pose', 3)
    assert one.session.recording.trace.lost == 3
    assert one.warnings[-1] == 'The middleware lost 3 messages of tcp_pose.'


@pytest.mark.parametrize(
    ('outcome', 'words'),
    [
        ('success', 'saved as a success'),
        ('failure', 'saved as a failure'),
        ('interrupted', 'saved as interrupted'),
    ],
)
def test_the_operator_hears_how_an_episode_was_saved(recorder, synthetic, monkeypatch, outcome, words):
    heard = []
    one = recorder()
    monkeypatch.setattr(OperatorFeedback, 'give', lambda _, text: heard.append(text))
    one.play(synthetic)
    one.start()
    one.play(synthetic)
    one.session.announce_verdict(one.session.finish(outcome))
    assert any(text.startswith(words) for text in heard)


def recorded(one: Recorder, synthetic, task: str = 'move the cube') -> str:
    name = one.start(task)
    one.play(synthetic)
    one.session.finish('success')
    return name


def test_a_saved_episode_is_relabelled_everywhere_and_its_bag_stays(recorder, synthetic, tmp_path):
    one = recorder(tasks=[Task(text='move the cube', count=2), Task(text='open the box', count=2)])
    name = recorded(one, synthetic)
    recorded(one, synthetic)
    content = next((tmp_path / name).glob('*.mcap')).read_bytes()
    assert [entry.done for entry in one.session.tasks()] == [2, 0]
    assert one.session.relabel(name, make_label(task='open the box', notes='the lid stuck')) == (
        f'{name} is now a success: open the box'
    )
    assert [entry.done for entry in one.session.tasks()] == [1, 1]
    one.session.relabel(name, make_label(outcome='failure'))
    assert [entry.done for entry in one.session.tasks()] == [1, 0]
    assert next((tmp_path / name).glob('*.mcap')).read_bytes() == content
    with EpisodeBag(tmp_path / name) as bag:
        assert (bag.info['outcome'], bag.info['task']) == ('failure', 'open the box')
        assert bag.info['notes'] == 'the lid stuck'
    verdict = json.loads((tmp_path / name / 'verdict.json').read_text())
    assert (verdict['outcome'], verdict['task'], verdict['rows']) == ('failure', 'open the box', 10)
    index = json.loads((tmp_path / 'episodes.json').read_text())['episodes']
    assert [(entry['name'], entry['outcome']) for entry in index] == [
        ('episode_000000', 'failure'),
        ('episode_000001', 'success'),
    ]


def test_an_excluded_episode_does_not_count_and_is_not_converted(recorder, synthetic, tmp_path):
    one = recorder(tasks=[Task(text='move the cube')])
    name = recorded(one, synthetic)
    assert one.session.next_task() is None
    assert one.session.relabel(name, make_label(outcome='excluded')).startswith(f'{name} is now excluded')
    assert one.session.next_task().done == 0
    with EpisodeBag(tmp_path / name) as bag:
        assert bag_outcome(bag) == 'excluded'
        with pytest.raises(OutcomeLeftOutError):
            check_outcome(bag_outcome(bag), ConversionOptions())
        check_outcome(bag_outcome(bag), ConversionOptions(outcomes=parse_outcomes('success,excluded')))


def test_a_saved_episode_is_deleted_and_no_other(recorder, synthetic, tmp_path):
    one = recorder()
    first = recorded(one, synthetic)
    second = recorded(one, synthetic)
    assert one.session.delete(first) == f'{first} was deleted'
    assert not (tmp_path / first).exists()
    assert [entry.name for entry in one.session.folder.entries] == [second]


@pytest.mark.parametrize('name', ['', '..', 'episode_000009', '../outside', '/etc', '.', 'episode_000000/..'])
def test_only_saved_episodes_are_relabelled_or_deleted(recorder, synthetic, tmp_path, name):
    one = recorder()
    recorded(one, synthetic)
    outside = tmp_path.parent / 'outside'
    outside.mkdir(exist_ok=True)
    for order in (lambda: one.session.delete(name), lambda: one.session.relabel(name, make_label())):
        with pytest.raises(GrootRosError, match='There is no saved episode'):
            order()
    assert outside.exists()
    assert (tmp_path / 'episode_000000').exists()


def test_the_episode_that_is_being_recorded_is_neither_relabelled_nor_deleted(recorder):
    one = recorder()
    name = one.start()
    for order in (lambda: one.session.delete(name), lambda: one.session.relabel(name, make_label())):
        with pytest.raises(GrootRosError, match='is being recorded: stop it first'):
            order()


@pytest.mark.parametrize('entries', [{'outcome': 'splendid'}, {'task': 'x' * 2001}, {'notes': 'x' * 4001}])
def test_a_wrong_label_is_refused(entries):
    with pytest.raises(GrootRosError):
        make_label(**entries)


def test_a_damaged_label_is_named(recorder, synthetic, tmp_path):
    name = recorded(recorder(), synthetic)
    (tmp_path / name / 'label.json').write_text('{"outcome": 3}')
    with pytest.raises(GrootRosError, match=r'label\.json is wrong at outcome'):
        EpisodeBag(tmp_path / name)


def test_a_chosen_task_goes_before_the_list_until_it_is_taken_back(recorder, synthetic):
    one = recorder(tasks=[Task(text='of the list', count=1)])
    one.session.choose_task('chosen')
    one.start(task='')
    assert one.session.task == 'chosen'
    one.session.discard()
    assert one.session.choose_task('') == 'the task list chooses the next task'
    one.start(task='')
    assert one.session.task == 'of the list'
    with pytest.raises(GrootRosError, match='has 2001 characters'):
        one.session.choose_task('x' * 2001)


@pytest.mark.parametrize('change', ['advance_task', 'skip_task'])
def test_a_chosen_task_ends_when_another_of_the_list_is_asked_for(recorder, change):
    one = recorder(tasks=[Task(text='first'), Task(text='second')])
    one.session.choose_task('chosen')
    getattr(one.session, change)()
    assert one.session.chosen_task == ''
    assert [entry.task.text for entry in one.session.tasks()] == ['first', 'second']


def test_the_disk_is_told_in_minutes_of_this_embodiment(recorder, monkeypatch):
    one = recorder()
    monkeypatch.setattr(one.session.folder, 'free_bytes', lambda: 60e9)
    # 0.15 bytes a pixel at 640x480 and 20 Hz, and 200 kB/s of numbers
    assert one.session.disk_minutes() == pytest.approx(60e9 / (0.15 * 640 * 480 * 20 + 200e3) / 60)
