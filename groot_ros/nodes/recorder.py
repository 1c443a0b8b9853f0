# SPDX-License-Identifier: Apache-2.0
"""The recorder node: records one bag per episode and judges it. Services and an action control it."""

import importlib.util
import re
import time
from pathlib import Path

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from groot_ros import __version__
from groot_ros.action import RecordEpisode
from groot_ros.embodiment import load_embodiment
from groot_ros.errors import GrootRosError, choose
from groot_ros.msg import EpisodeStatus, StreamHealth
from groot_ros.quality.verdict import Verdict, judge, load_thresholds
from groot_ros.recording.episode_folder import EpisodeFolder, IndexEntry
from groot_ros.recording.episode_recorder import (
    DEPTH_FORMATS,
    VIDEO_FORMATS,
    EpisodeRecording,
    RecordingSettings,
)
from groot_ros.recording.operator_feedback import OperatorFeedback
from groot_ros.recording.preflight import RecorderSnapshot, preflight, recording_problems
from groot_ros.recording.report_process import ReportProcesses
from groot_ros.recording.task_list import Task, load_tasks, next_task
from groot_ros.resources import DEFAULT_EMBODIMENT, VERDICT_FILE
from groot_ros.ros.lifecycle_node import GrootNode
from groot_ros.ros.parameters import ParameterSpec
from groot_ros.ros.qos import STATUS_QOS
from groot_ros.ros.run import run_node
from groot_ros.ros.topic_subscriber import StreamWatch
from groot_ros.sampling.stream_monitor import Health
from groot_ros.srv import Preflight, StartEpisode, StopEpisode
from groot_ros.video.h264 import fastest_codec

_DISCOVERY_S = 0.5
_WATCH_S = 0.2
_STATUS_S = 1.0
_NOT_RECORDING = 'No episode is being recorded: start one first.'

PARAMETERS = {
    'embodiment': ParameterSpec(DEFAULT_EMBODIMENT, 'name of an embodiment, or path of its YAML file'),
    'output_dir': ParameterSpec('episodes', 'folder that episodes are written into'),
    'video': ParameterSpec(
        'h264',
        "'h264' writes one frame per row; 'jpeg' or 'raw' write every frame: larger, for another fps later",
    ),
    'hardware_encoder': ParameterSpec(True, 'use a hardware H.264 encoder if one works'),
    'keyframe_interval_s': ParameterSpec(
        0.5, 'time between keyframes, s: short ones make random access in training fast', 0.05, 10.0
    ),
    'jpeg_quality': ParameterSpec(90, 'JPEG quality, 1 to 100'),
    'depth': ParameterSpec('png', "format of depth images in extra_topics: 'png' (16 bit, mm) or 'raw'"),
    'quality_thresholds': ParameterSpec(
        '', 'YAML file with thresholds that replace those of config/quality_thresholds.yaml'
    ),
    'tasks_file': ParameterSpec(
        '', 'YAML file with the tasks to show and how often (tasks: [{text: ..., count: 20}])'
    ),
    'min_free_gb': ParameterSpec(2.0, 'an episode does not start with less free disk space, GB', 0.0, 1e6),
    'report': ParameterSpec(True, 'write report.html next to each bag, in a process of low priority'),
    'operator_feedback': ParameterSpec(
        'none', "how the operator hears what happens: 'none', 'bell' or 'speech'"
    ),
}


class Recorder(GrootNode):
    """Records one episode at a time. All judgement is in recording/ and quality/, which work without ROS."""

    def __init__(self) -> None:
        super().__init__('recorder', PARAMETERS)
        self._embodiment = load_embodiment(self.parameter('embodiment'))
        self._recording_settings = self._make_settings()
        self._thresholds = load_thresholds(self.parameter('quality_thresholds'))
        self._tasks = self._load_tasks()
        self._feedback = OperatorFeedback(self.parameter('operator_feedback'))
        self._reports = ReportProcesses(self.parameter('quality_thresholds'))
        self._watch = StreamWatch(self, self._embodiment, self._on_message, self._on_lost)
        self._locked_folder: EpisodeFolder | None = None
        self._write_speed = float('inf')
        self._recording: EpisodeRecording | None = None
        self._began_s = 0.0
        self._episode = ''
        self._task = ''
        self._operator_name = ''
        self._last_verdict = ''
        self._saved = 0
        self._known_problems: set[str] = set()
        self._goal_handle: ServerGoalHandle | None = None
        self._episode_ended: Future | None = None
        self._status = self.create_publisher(EpisodeStatus, 'episode_status', STATUS_QOS)
        self._create_services()
        self.create_timer(_DISCOVERY_S, self._watch.follow_publishers)
        self.create_timer(_WATCH_S, self._watch_episode)
        self.create_timer(_STATUS_S, self._publish_status)

    def configure(self) -> None:
        """Locks the folder of episodes. Raises GrootRosError if another recorder has it."""
        self._locked_folder = EpisodeFolder(Path(self.parameter('output_dir')).expanduser())
        self._write_speed = self._folder.write_speed()
        if self.parameter('report') and importlib.util.find_spec('matplotlib') is None:
            self.warn(
                'No report.html is written, because matplotlib is not installed: '
                'pip install "groot_ros[report]", or set report:=false.'
            )
        self._announce_next_task()

    def deactivate(self) -> None:
        """Saves an episode that is being recorded, so that nothing is lost."""
        if self._recording is not None:
            self._finish('interrupted', 'the recorder was stopped')

    def cleanup(self) -> None:
        """Ends report processes and unlocks the folder."""
        self._reports.terminate()
        if self._locked_folder is not None:
            self._locked_folder.close()
            self._locked_folder = None

    def diagnose(self) -> list[Health]:
        """The state of each stream, of the episode and of the disk."""
        now_ns = time.time_ns()
        streams = [self._watch.meter(topic).health(now_ns) for topic in self._watch.needed]
        values = {
            'free disk space (GB)': f'{self._folder.free_bytes() / 1e9:.1f}',
            'write speed (MB/s)': f'{self._write_speed / 1e6:.0f}',
        }
        state = 'no episode'
        if self._recording is not None:
            trace = self._recording.trace
            state = f'{self._episode}: {trace.rows} rows'
            values['rows'] = str(trace.rows)
            values['filled'] = str(trace.filled)
            values['lost messages'] = str(trace.lost)
            values['queued messages'] = str(self._recording.queue_length)
            values['max encoder lag (s)'] = f'{self._recording.max_encoder_lag_s:.3f}'
        problems = self._problems()
        episode = Health('episode', int(bool(problems)), '; '.join(problems) or state, values)
        return [*streams, episode]

    @property
    def _folder(self) -> EpisodeFolder:
        assert self._locked_folder is not None
        return self._locked_folder

    def _create_services(self) -> None:
        self.create_service(StartEpisode, '~/start', self._on_start)
        self.create_service(StopEpisode, '~/stop', self._on_stop)
        self.create_service(Trigger, '~/discard', self._on_discard)
        self.create_service(Trigger, '~/redo', self._on_redo)
        self.create_service(SetBool, '~/pause', self._on_pause)
        self.create_service(Preflight, '~/preflight', self._on_preflight)
        self._record_action = ActionServer(
            self,
            RecordEpisode,
            '~/record',
            self._on_record,
            goal_callback=self._on_goal,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )

    def _load_tasks(self) -> list[Task]:
        file = self.parameter('tasks_file')
        return load_tasks(Path(file).expanduser()) if file else []

    def _make_settings(self) -> RecordingSettings:
        video = choose('video format', self.parameter('video'), VIDEO_FORMATS)
        depth = choose('depth format', self.parameter('depth'), DEPTH_FORMATS)
        codec = 'libx264'
        if video == 'h264' and self.parameter('hardware_encoder'):
            codec = fastest_codec()
        return RecordingSettings(
            video, codec, self.parameter('keyframe_interval_s'), self.parameter('jpeg_quality'), depth
        )

    def _on_message(self, topic: str, arrival_ns: int, cdr: bytes) -> None:
        if self._recording is not None and topic in self._recording.trace.streams:
            self._recording.put(topic, arrival_ns, cdr)

    def _on_lost(self, topic: str, count: int) -> None:
        if self._recording is not None and topic in self._recording.trace.streams:
            self._recording.add_lost(topic, count)
        self.warn(f'The middleware lost {count} messages of {topic}.')

    def _problems(self) -> list[str]:
        """While idle, why no episode can start; while recording, what is wrong now."""
        snapshot = RecorderSnapshot(
            types=self._watch.types | self._watch.unknown,
            publishers=self._watch.publishers(),
            stats=self._watch.stats(time.time_ns()),
            free_bytes=self._folder.free_bytes(),
            write_speed=self._write_speed,
        )
        min_free_bytes = self.parameter('min_free_gb') * 1e9
        problems = preflight(self._embodiment, self._recording_settings, snapshot, min_free_bytes)
        for topic, msgtype in self._watch.changed.items():
            before = self._watch.types[topic]
            problems.append(f'{topic} came as {before} and now as {msgtype}: start the recorder again')
        if self._recording is not None:
            elapsed_s = time.monotonic() - self._began_s
            problems += recording_problems(self._recording, elapsed_s)
        return problems

    def _on_preflight(self, request: Preflight.Request, response: Preflight.Response) -> Preflight.Response:
        problems = []
        if self._recording is None:
            self._write_speed = self._folder.write_speed()
        else:
            problems.append('an episode is being recorded')
        problems += self._problems()
        response.success = not problems
        response.message = '; '.join(problems) or 'green: an episode can start'
        response.streams = self._stream_health()
        return response

    def _on_start(
        self, request: StartEpisode.Request, response: StartEpisode.Response
    ) -> StartEpisode.Response:
        try:
            response.episode = self._start(request.task.strip(), request.operator_name, request.force)
            response.success = True
            response.message = f'recording {response.episode}: {self._task}'
        except (GrootRosError, OSError) as error:
            response.success = False
            response.message = str(error)
        self._publish_status()
        return response

    def _start(self, task: str, operator: str, force: bool) -> str:
        """Starts an episode and returns its name. Raises GrootRosError with the reason if it cannot start."""
        if not self.active:
            raise GrootRosError('The recorder is not active: activate it first.')
        if self._recording is not None:
            raise GrootRosError(f'{self._episode} is being recorded already: stop or discard it first.')
        task = task or self._next_task_text()
        problems = self._problems()
        if problems and not force:
            raise GrootRosError(f'Not ready: {"; ".join(problems)}. Set `force` to record nevertheless.')
        absent = [topic for topic in self._watch.needed if topic not in self._watch.types]
        if absent:
            raise GrootRosError(f'Nothing publishes {", ".join(absent)}: start its driver, rows need it.')
        namespace = self.get_namespace().rstrip('/') + '/'
        info = {
            'task': task,
            'operator': operator,
            'embodiment': self._embodiment.text(),
            'namespace': namespace,
            'fps': self._embodiment.fps,
            'video': self._recording_settings.video,
            'version': __version__,
            'forced': problems,
        }
        path = self._folder.next_path()
        self._recording = EpisodeRecording(
            path, self._embodiment, dict(self._watch.types), info, namespace, self._recording_settings
        )
        self._episode = path.name
        self._task = task
        self._operator_name = operator
        self._began_s = time.monotonic()
        self._known_problems = set()
        self.get_logger().info(f'Recording {self._episode}: {task}')
        self._feedback.give('recording')
        return self._episode

    def _next_task_text(self) -> str:
        progress = next_task(self._tasks, self._folder.good_episode_counts())
        if progress:
            return progress.task.text
        reason = 'The task list is done' if self._tasks else 'An episode needs a task'
        raise GrootRosError(f'{reason}: say in words what the demonstration shows.')

    def _on_stop(self, request: StopEpisode.Request, response: StopEpisode.Response) -> StopEpisode.Response:
        if self._recording is None:
            response.success = False
            response.message = _NOT_RECORDING
            return response
        path = self._recording.path
        verdict = self._finish('success' if request.succeeded else 'failure', request.notes)
        response.episode = path.name
        response.success = not verdict.failure
        response.verdict = verdict.verdict
        response.message = verdict.failure or f'saved {path}: {verdict.summary()}'
        self._publish_status()
        return response

    def _on_discard(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._discard()
        self._publish_status()
        return response

    def _on_redo(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Discards the episode and starts another with the same task."""
        response.success, response.message = self._discard()
        if response.success:
            try:
                episode = self._start(self._task, self._operator_name, force=False)
                response.message = f'recording {episode} again'
            except (GrootRosError, OSError) as error:
                response.success = False
                response.message = f'{response.message}; {error}'
        self._publish_status()
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success = False
        if self._recording is None:
            response.message = _NOT_RECORDING
        elif self._recording.paused == request.data:
            response.message = 'It is paused already.' if request.data else 'It is not paused.'
        else:
            response.success = True
            response.message = self._pause(self._recording, request.data)
        self._publish_status()
        return response

    def _pause(self, recording: EpisodeRecording, on: bool) -> str:
        recording.pause(on, time.time_ns())
        if on:
            self._feedback.give('paused')
            return 'paused: nothing is recorded'
        self._feedback.give('recording')
        return 'recording continues in a new segment'

    def _on_goal(self, goal: RecordEpisode.Goal) -> GoalResponse:
        if self._recording is not None:
            self.warn('A goal was rejected, because an episode is being recorded already.')
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    async def _on_record(self, handle: ServerGoalHandle) -> RecordEpisode.Result:
        """Records one episode from start to end; every status is also the feedback."""
        goal = handle.request
        result = RecordEpisode.Result()
        try:
            result.episode = self._start(goal.task.strip(), goal.operator_name, goal.force)
        except (GrootRosError, OSError) as error:
            handle.abort()
            result.message = str(error)
            return result
        self._goal_handle = handle
        self._episode_ended = Future()
        outcome, verdict = await self._episode_ended
        self._episode_ended = None
        self._goal_handle = None
        result.success = outcome == 'success' and not verdict.failure
        result.message = verdict.failure or f'{outcome}, {verdict.summary()}'
        result.verdict = verdict.verdict
        if handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.succeed()
        return result

    def _watch_episode(self) -> None:
        self._close_failed_episode()
        self._follow_goal()

    def _close_failed_episode(self) -> None:
        """Saves an episode that cannot go on, with what was recorded before the failure."""
        if self._recording is not None and self._recording.failure is not None:
            self._finish('interrupted', '')
            self._publish_status()

    def _follow_goal(self) -> None:
        """Ends an episode whose goal was cancelled or has used up its time limit."""
        if self._goal_handle is None or self._recording is None:
            return
        if self._episode_ended is None or self._episode_ended.done():
            return
        limit_s = self._goal_handle.request.time_limit
        if self._goal_handle.is_cancel_requested:
            self._discard()
        elif limit_s > 0 and time.monotonic() - self._began_s > limit_s:
            self._finish('failure', f'not done within {limit_s:g} s')

    def _discard(self) -> tuple[bool, str]:
        """Deletes the episode; returns whether there was one, and a message."""
        if self._recording is None:
            return False, 'No episode is being recorded: there is nothing to discard.'
        path = self._recording.path
        self._finish('discarded', '')
        self._folder.discard(path)
        self.get_logger().info(f'{path.name} was discarded.')
        return True, f'discarded {path.name}'

    def _finish(self, outcome: str, notes: str) -> Verdict:
        """Closes the bag and judges it. An exception of the recording becomes the verdict's `failure`."""
        recording = self._recording
        assert recording is not None
        self._recording = None
        failure = ''
        try:
            recording.finish({'outcome': outcome, 'notes': notes})
        except (GrootRosError, OSError) as error:
            failure = f'{recording.path.name} holds what was recorded before a failure: {error}'
            if not (recording.path / 'metadata.yaml').exists():
                failure += f'; stop the recorder, make room, and run `groot-ros recover {recording.path}`'
        info = {'task': self._task, 'outcome': outcome}
        verdict = judge(recording.trace, self._thresholds, info, recording.path.name, failure)
        if outcome != 'discarded':
            self._save_verdict(verdict, recording.path)
        self._last_verdict = verdict.verdict
        if self._episode_ended is not None and not self._episode_ended.done():
            self._episode_ended.set_result((outcome, verdict))
        return verdict

    def _save_verdict(self, verdict: Verdict, path: Path) -> None:
        """Writes verdict.json and the index, reports the verdict, and starts report.html."""
        self._saved += 1
        try:
            verdict.save(path)
            self._folder.add(
                IndexEntry(
                    verdict.episode,
                    verdict.task,
                    verdict.outcome,
                    verdict.verdict,
                    verdict.rows,
                    verdict.duration_s,
                )
            )
        except OSError as error:
            self.warn(f'{VERDICT_FILE} of {verdict.episode} could not be written: {error.strerror}.')
        if not self.context.ok():
            return
        self._log_verdict(verdict)
        self._feedback.give(f'{verdict.outcome}, {verdict.verdict}')
        self._announce_next_task()
        if self.parameter('report') and not verdict.failure:
            self._reports.start(path)

    def _log_verdict(self, verdict: Verdict) -> None:
        text = (
            f'{verdict.episode}: {verdict.outcome}, {verdict.rows} rows, {verdict.filled} filled, '
            f'{verdict.lost} lost, {verdict.summary()}'
        )
        if verdict.verdict == 'pass':  # rclpy allows one severity for each line of code
            self.get_logger().info(text)
        else:
            self.warn(text)

    def _announce_next_task(self) -> None:
        """Reports the next task of the list to the operator."""
        progress = next_task(self._tasks, self._folder.good_episode_counts())
        if progress:
            done = f'{progress.done} of {progress.task.count} done'
            self.get_logger().info(f'Next: {progress.task.text} ({done})')
            self._feedback.give(f'next: {progress.task.text}')
        elif self._tasks:
            self.get_logger().info('The task list is done.')
            self._feedback.give('the task list is done')

    def _publish_status(self) -> None:
        if not self.active:
            return
        problems = self._problems()
        status = EpisodeStatus(
            task=self._task,
            episode=self._episode,
            saved=self._saved,
            verdict=self._last_verdict,
            disk_free=float(self._folder.free_bytes()),
            problems=problems,
            streams=self._stream_health(),
        )
        status.header.stamp = self.get_clock().now().to_msg()
        progress = next_task(self._tasks, self._folder.good_episode_counts())
        if progress:
            status.next_task = progress.task.text
            status.next_task_done = progress.done
            status.next_task_wanted = progress.task.count
        if self._recording is not None:
            _fill_recording(status, self._recording)
            self._warn_new_problems(problems)
        self.publish(self._status, status)
        if self._goal_handle is not None and self._recording is not None:
            self._goal_handle.publish_feedback(RecordEpisode.Feedback(status=status))

    def _warn_new_problems(self, problems: list[str]) -> None:
        """Warns of each problem once, when it begins; changing numbers in its text do not make it new."""
        by_text = {re.sub(r'[\d.]+', '', problem): problem for problem in problems}
        for text in by_text.keys() - self._known_problems:
            self.warn(f'{self._episode}: {by_text[text]}.')
            self._feedback.give('warning')
        self._known_problems = set(by_text)

    def _stream_health(self) -> list[StreamHealth]:
        streams = self._recording.trace.streams if self._recording is not None else {}
        found = []
        for topic, stats in self._watch.stats(time.time_ns()).items():
            health = StreamHealth(
                topic=topic,
                rate=stats.rate_hz,
                expected_rate=self._embodiment.expected_hz(topic),
                age=stats.age_s,
                jitter=stats.jitter_s,
                max_gap=stats.max_gap_s,
                problem=stats.problem,
            )
            if topic in streams:
                health.received = len(streams[topic].stamps_ns)
                health.lost = streams[topic].lost
            found.append(health)
        return found


def _fill_recording(status: EpisodeStatus, recording: EpisodeRecording) -> None:
    """Adds the fields of an episode that is being recorded."""
    status.state = EpisodeStatus.PAUSED if recording.paused else EpisodeStatus.RECORDING
    status.rows = recording.trace.rows
    status.filled = recording.trace.filled
    status.encoder_lag = recording.max_encoder_lag_s
    status.queue = recording.queue_length
    status.lost = recording.trace.lost


def main() -> int:
    """Entry of `ros2 run groot_ros recorder`."""
    return run_node(Recorder)


if __name__ == '__main__':
    raise SystemExit(main())
