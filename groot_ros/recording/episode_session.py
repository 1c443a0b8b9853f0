# SPDX-License-Identifier: Apache-2.0
"""Episodes of one recorder, one after the other: each is started, paused, ended and judged here."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from groot_ros import __version__
from groot_ros.bags.label import Label
from groot_ros.embodiment import Embodiment
from groot_ros.errors import GrootRosError, explain_error
from groot_ros.quality.verdict import Thresholds, Verdict, judge
from groot_ros.recording.episode_folder import EpisodeFolder, IndexEntry
from groot_ros.recording.episode_recorder import EpisodeRecording, RecordingSettings
from groot_ros.recording.operator_feedback import OperatorFeedback
from groot_ros.recording.preflight import (
    RecorderSnapshot,
    bytes_per_second,
    lost_streams,
    preflight,
    recording_problems,
)
from groot_ros.recording.task_list import MAX_TASK_LENGTH, TaskProgress, TaskQueue
from groot_ros.resources import VERDICT_FILE

_NAMED_OUTCOMES = {'success': 'a success', 'failure': 'a failure'}
_NOT_RECORDING = 'No episode is being recorded: start one first.'


@dataclass
class SessionSettings:
    """How a session records and judges.

    Topics of the embodiment are relative to `namespace`. No episode starts with less than `min_free_bytes` of
    free disk space.
    """

    thresholds: Thresholds
    recording: RecordingSettings = field(default_factory=RecordingSettings)
    task_queue: TaskQueue | None = None
    namespace: str = '/'
    min_free_bytes: float = 0.0


class EpisodeSession:
    """Records at most one episode at a time. `put` may be called from any thread, all else from one thread.

    `observe` reports what is published now, and the session adds the state of the disk. `on_finish` gets the
    verdict of every episode, also of a discarded one. `info` and `warn` write a line to the log. A method
    whose order cannot be carried out raises GrootRosError with the reason.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        settings: SessionSettings,
        feedback: OperatorFeedback,
        observe: Callable[[], RecorderSnapshot],
        on_finish: Callable[[Verdict], None],
        info: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self.recording: EpisodeRecording | None = None
        self.episode = ''
        self.task = ''
        self.chosen_task = ''
        self.last_verdict = ''
        self.saved = 0
        self.write_speed = float('inf')
        self._embodiment = embodiment
        self._settings = settings
        self.feedback = feedback
        self._observe = observe
        self._on_finish = on_finish
        self._info = info
        self._warn = warn
        self._locked_folder: EpisodeFolder | None = None
        self._operator_name = ''
        self._began_s = 0.0
        self._known_problems: set[str] = set()
        self._lost_before: list[str] = []

    def open(self, path: Path) -> None:
        """Locks the folder of episodes. Raises GrootRosError if another recorder has it."""
        self._locked_folder = EpisodeFolder(path)
        self.measure_write_speed()

    def close(self) -> None:
        """Unlocks the folder for another recorder."""
        if self._locked_folder is not None:
            self._locked_folder.close()
            self._locked_folder = None

    @property
    def folder(self) -> EpisodeFolder:
        """The folder of episodes, between `open` and `close`."""
        assert self._locked_folder is not None
        return self._locked_folder

    @property
    def elapsed_s(self) -> float:
        """Time in s since the start of the episode, with its pauses."""
        return time.monotonic() - self._began_s

    def measure_write_speed(self) -> None:
        """Measures the speed of the disk; takes a moment, so not while an episode is being recorded."""
        self.write_speed = self.folder.write_speed()

    def put(self, topic: str, arrival_ns: int, cdr: bytes) -> None:
        """Records a serialized message of a topic; does nothing if no episode is being recorded."""
        recording = self.recording
        if recording is not None and topic in recording.trace.streams:
            recording.put(topic, arrival_ns, cdr)

    def add_lost(self, topic: str, count: int) -> None:
        """Counts and reports messages that the middleware lost."""
        if self.recording is not None and topic in self.recording.trace.streams:
            self.recording.add_lost(topic, count)
        self._warn(f'The middleware lost {count} messages of {topic}.')

    def problems(self) -> list[str]:
        """While idle, why no episode can start; while recording, what is wrong now."""
        return self._problems(self._observe())

    def next_task(self) -> TaskProgress | None:
        """The next task of the list; None if it is done or there is no list."""
        if self._settings.task_queue is None:
            return None
        return self._settings.task_queue.next_task(self.folder.good_episode_counts())

    def advance_task(self) -> str:
        """Goes on to another task of the list for the next episode; returns a message for the operator.

        A task that `choose_task` set no longer holds.
        """
        self._task_queue().advance(self.folder.good_episode_counts())
        self.chosen_task = ''
        return self.announce_next_task()

    def skip_task(self) -> str:
        """Leaves the next task of the list out; returns a message for the operator."""
        skipped = self._task_queue().skip(self.folder.good_episode_counts())
        self.chosen_task = ''
        return f'skipped {skipped.task.text}; {self.announce_next_task()}'

    def tasks(self) -> list[TaskProgress]:
        """All tasks of the list with what is done of each; empty without a list."""
        if self._settings.task_queue is None:
            return []
        return self._settings.task_queue.progress(self.folder.good_episode_counts())

    def choose_task(self, task: str) -> str:
        """Sets the task of episodes that are started without one; empty follows the list again."""
        if len(task) > MAX_TASK_LENGTH:
            raise GrootRosError(
                f'The task has {len(task)} characters, and at most {MAX_TASK_LENGTH} are allowed: shorten it.'
            )
        self.chosen_task = task
        if task:
            return f'the next task is: {task}'
        return 'the task list chooses the next task' if self._settings.task_queue else 'no task is chosen'

    def relabel(self, episode: str, label: Label) -> str:
        """Changes outcome, task or notes of a saved episode; returns a message for the operator."""
        self._refuse_current(episode)
        entry = self.folder.relabel(episode, label)
        self._info(f'{episode} was relabelled: {entry.outcome}, {entry.task}')
        return f'{episode} is now {_NAMED_OUTCOMES.get(entry.outcome, entry.outcome)}: {entry.task}'

    def delete(self, episode: str) -> str:
        """Deletes a saved episode for good; returns a message for the operator."""
        self._refuse_current(episode)
        self.folder.delete(episode)
        self._info(f'{episode} was deleted.')
        return f'{episode} was deleted'

    def _refuse_current(self, episode: str) -> None:
        if self.recording is not None and episode == self.episode:
            raise GrootRosError(f'{episode} is being recorded: stop it first.')

    def disk_minutes(self) -> float:
        """How many minutes of recording fit on the disk, estimated for images with much detail."""
        rate = bytes_per_second(self._embodiment, self._settings.recording)
        return self.folder.free_bytes() / rate / 60

    def start(self, task: str, operator_name: str, force: bool) -> str:
        """Starts an episode and returns its name. Without a task, the chosen or the next one is taken.

        Raises GrootRosError with every reason if it cannot start; `force` starts it even so, unless a topic
        that rows need is missing.
        """
        if self.recording is not None:
            raise GrootRosError(f'{self.episode} is being recorded already: stop or discard it first.')
        task = task or self._next_task_text()
        snapshot = self._observe()
        problems = self._problems(snapshot)
        if problems and not force:
            raise GrootRosError(f'Not ready: {"; ".join(problems)}. Set `force` to record nevertheless.')
        absent = [topic for topic in self._embodiment.required_topics if topic not in snapshot.types]
        if absent:
            raise GrootRosError(f'Nothing publishes {", ".join(absent)}: start its driver, rows need it.')
        self.recording = self._make_recording(task, operator_name, snapshot, problems)
        self.episode = self.recording.path.name
        self.task = task
        self._operator_name = operator_name
        self._began_s = time.monotonic()
        self._known_problems = set()
        self._lost_before = []
        self._info(f'Recording {self.episode}: {task}')
        self.feedback.give('recording')
        return self.episode

    def pause(self, on: bool) -> str:
        """Pauses the episode, or resumes it with a new segment; returns a message for the operator."""
        recording = self._current()
        if recording.paused == on:
            raise GrootRosError('It is paused already.' if on else 'It is not paused.')
        recording.pause(on, time.time_ns())
        if on:
            self.feedback.give('paused')
            return 'paused: nothing is recorded'
        self.feedback.give('recording')
        return 'recording continues in a new segment'

    def discard(self) -> str:
        """Deletes the episode that is being recorded and returns its name."""
        if self.recording is None:
            raise GrootRosError('No episode is being recorded: there is nothing to discard.')
        path = self.recording.path
        self.finish('discarded')
        self.folder.discard(path)
        self._info(f'{path.name} was discarded.')
        return path.name

    def redo(self) -> str:
        """Discards the episode, starts another with the same task and operator, and returns its name."""
        discarded = self.discard()
        try:
            return self.start(self.task, self._operator_name, force=False)
        except (GrootRosError, OSError) as error:
            raise GrootRosError(f'discarded {discarded}; {error}') from error

    def finish(self, outcome: str, notes: str = '') -> Verdict:
        """Closes the bag and judges it; saves the verdict unless the outcome is `discarded`.

        An exception of the recording becomes the `failure` of the verdict.
        """
        recording = self._current()
        self.recording = None
        failure = ''
        try:
            recording.finish({'outcome': outcome, 'notes': notes})
        except (GrootRosError, OSError) as error:
            reason = explain_error(error).rstrip('.')
            failure = f'{recording.path.name} holds what was recorded before a failure: {reason}'
            if not (recording.path / 'metadata.yaml').exists():
                failure += f'; stop the recorder, mend this, and run `groot-ros recover {recording.path}`'
        info = {'task': self.task, 'outcome': outcome, 'notes': notes}
        verdict = judge(recording.trace, self._settings.thresholds, info, recording.path.name, failure)
        if outcome != 'discarded':
            self._save(verdict, recording.path)
        self.last_verdict = verdict.verdict
        self._on_finish(verdict)
        return verdict

    def finish_if_failed(self) -> bool:
        """Saves what was recorded before a failure, if the episode cannot go on; returns whether it did."""
        if self.recording is None or self.recording.failure is None:
            return False
        self.finish('interrupted')
        return True

    def finish_if_stream_lost(self) -> bool:
        """Saves the episode as interrupted if a stream that rows need is lost; returns whether it did.

        Call it about five times a second. It acts on the second call that finds a stream lost: after a moment
        in which the recorder itself stood still, what has arrived is taken before the next call.
        """
        if self.recording is None or self.recording.paused:
            return False
        lost = lost_streams(self._embodiment, self._observe(), self.elapsed_s)
        confirmed = [topic for topic in lost if topic in self._lost_before]
        self._lost_before = lost
        if not confirmed:
            return False
        self.finish('interrupted', f'The episode was ended, because {", ".join(confirmed)} fell silent.')
        return True

    def announce_verdict(self, verdict: Verdict) -> None:
        """Reports a saved episode and the next task in the log and to the operator."""
        named = _NAMED_OUTCOMES.get(verdict.outcome, verdict.outcome)
        text = (
            f'{verdict.episode}: saved as {named}, {verdict.rows} rows, {verdict.filled} filled, '
            f'{verdict.lost} lost, {verdict.summary()}'
        )
        if verdict.verdict == 'pass':
            self._info(text)
        else:
            self._warn(text)
        self.feedback.give(f'saved as {named}, {verdict.verdict}')
        self.announce_next_task()

    def announce_next_task(self) -> str:
        """Reports the next task of the list in the log and to the operator, and returns the clause."""
        progress = self.next_task()
        if progress:
            text = f'next: {progress.task.text}'
            self._info(f'Next: {progress.task.text} ({progress.done} of {progress.task.count} done)')
        elif self._settings.task_queue:
            left_out = self._settings.task_queue.left_out()
            text = f'the task list is done{left_out}'
            self._info(f'The task list is done{left_out}.')
        else:
            return ''
        self.feedback.give(text)
        return text

    def warn_new_problems(self, problems: list[str]) -> None:
        """Warns of each problem once, when it begins; changing numbers in its text do not make it new."""
        by_text = {re.sub(r'[\d.]+', '', problem): problem for problem in problems}
        for text in by_text.keys() - self._known_problems:
            self._warn(f'{self.episode}: {by_text[text]}.')
            self.feedback.give('warning')
        self._known_problems = set(by_text)

    def _current(self) -> EpisodeRecording:
        if self.recording is None:
            raise GrootRosError(_NOT_RECORDING)
        return self.recording

    def _problems(self, snapshot: RecorderSnapshot) -> list[str]:
        snapshot.free_bytes = self.folder.free_bytes()
        snapshot.write_speed = self.write_speed
        settings = self._settings
        problems = preflight(self._embodiment, settings.recording, snapshot, settings.min_free_bytes)
        if self.recording is not None:
            problems += recording_problems(self.recording, self.elapsed_s)
        return problems

    def _task_queue(self) -> TaskQueue:
        """The queue of tasks, while it may be changed."""
        if self._settings.task_queue is None:
            raise GrootRosError('There is no task list: give the recorder a tasks_file.')
        if self.recording is not None:
            raise GrootRosError(f'{self.episode} is being recorded: stop, discard or redo it first.')
        return self._settings.task_queue

    def _next_task_text(self) -> str:
        if self.chosen_task:
            return self.chosen_task
        progress = self.next_task()
        if progress:
            return progress.task.text
        reason = 'The task list is done' if self._settings.task_queue else 'An episode needs a task'
        raise GrootRosError(f'{reason}: say in words what the demonstration shows.')

    def _make_recording(
        self, task: str, operator_name: str, snapshot: RecorderSnapshot, problems: list[str]
    ) -> EpisodeRecording:
        settings = self._settings
        info = {
            'task': task,
            'operator': operator_name,
            'embodiment': self._embodiment.text(),
            'namespace': settings.namespace,
            'fps': self._embodiment.fps,
            'video': settings.recording.video,
            'version': __version__,
            'forced': problems,
        }
        path = self.folder.next_path()
        return EpisodeRecording(
            path,
            self._embodiment,
            snapshot.types,
            info,
            settings.namespace,
            settings.recording,
            snapshot.offered,
        )

    def _save(self, verdict: Verdict, path: Path) -> None:
        """Writes verdict.json, and the episode into the index."""
        self.saved += 1
        entry = IndexEntry(
            verdict.episode, verdict.task, verdict.outcome, verdict.verdict, verdict.rows, verdict.duration_s
        )
        try:
            verdict.save(path)
            self.folder.add(entry)
        except OSError as error:
            self._warn(f'{VERDICT_FILE} of {verdict.episode} could not be written: {explain_error(error)}')
