# SPDX-License-Identifier: Apache-2.0
"""recorder: serialized messages in, one bag an episode out, judged at its end; episodes are controlled by services and an action."""

import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from groot_ros import __version__
from groot_ros.action import RecordEpisode
from groot_ros.embodiment import load_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.msg import EpisodeStatus, StreamHealth
from groot_ros.quality.verdict import Verdict, judge, load_thresholds
from groot_ros.recording.episode_folder import EpisodeFolder, IndexEntry
from groot_ros.recording.episode_recorder import VIDEO_FORMATS, EpisodeRecording, RecordingSettings
from groot_ros.recording.operator_feedback import OperatorFeedback
from groot_ros.recording.preflight import RecorderSnapshot, preflight
from groot_ros.recording.task_list import load_tasks, next_task
from groot_ros.resources import DEFAULT_EMBODIMENT, REPORT_FILE, VERDICT_FILE
from groot_ros.ros.lifecycle_node import GrootNode
from groot_ros.ros.parameters import ParameterSpec
from groot_ros.ros.qos import STATUS_QOS
from groot_ros.ros.run import run_node
from groot_ros.ros.topic_subscriber import StreamWatch
from groot_ros.sampling.stream_monitor import Health
from groot_ros.srv import Preflight, StartEpisode, StopEpisode
from groot_ros.video.h264 import fastest_codec

_DISCOVERY_S, _WATCH_S, _STATUS_S = 0.5, 0.2, 1.0
_FIRST_ROW_S, _MAX_WRITER_LAG_S = 2.0, 0.5
_NOT_RECORDING = 'No episode is being recorded: start one first.'

PARAMETERS = {
    'embodiment': ParameterSpec(DEFAULT_EMBODIMENT, 'name of an embodiment, or path of its YAML file'),
    'output_dir': ParameterSpec('episodes', 'folder that the episodes go into'),
    'video': ParameterSpec(
        'h264', "'h264': one frame a row; 'jpeg' or 'raw': every frame, larger, for other frame rates later"
    ),
    'hardware_encoder': ParameterSpec(True, 'use a hardware H.264 encoder where one answers'),
    'keyframe_interval_s': ParameterSpec(
        0.5, 'time between keyframes, s: short ones make random access in training fast', 0.05, 10.0
    ),
    'jpeg_quality': ParameterSpec(90, 'quality of jpeg, 1 to 100'),
    'depth': ParameterSpec('png', "depth images among extra_topics: 'png' (16 bit, mm) or 'raw'"),
    'quality_thresholds': ParameterSpec(
        '', 'YAML with thresholds other than those of config/quality_thresholds.yaml'
    ),
    'tasks_file': ParameterSpec(
        '', 'YAML with the tasks to show and how often (tasks: [{text: ..., count: 20}])'
    ),
    'min_free_gb': ParameterSpec(2.0, 'an episode does not begin with less on the disk, GB', 0.0, 1e6),
    'report': ParameterSpec(True, 'write report.html with plots beside each bag, in a process of low priority'),
    'operator_feedback': ParameterSpec('none', "tell the operator what happens: 'none', 'bell' or 'speech'"),
}


class Recorder(GrootNode):
    """One episode at a time; everything that can be judged without ROS is done by bags/ and quality/."""

    def __init__(self) -> None:
        super().__init__('recorder', PARAMETERS)
        self._embodiment = load_embodiment(self.parameter('embodiment'))
        self._recording_settings = self._make_settings()
        self._thresholds = load_thresholds(self.parameter('quality_thresholds'))
        self._tasks = (
            load_tasks(Path(self.parameter('tasks_file')).expanduser())
            if self.parameter('tasks_file')
            else []
        )
        self._feedback = OperatorFeedback(self.parameter('operator_feedback'))
        self._watch = StreamWatch(self, self._embodiment, self._on_message, self._on_lost)
        self._recording: EpisodeRecording | None = None
        self._path: Path | None = None
        self._task = self._operator_name = self._last_verdict = ''
        self._saved, self._began_s, self._write_speed = 0, 0.0, float('inf')
        self._known_problems: set[str] = set()
        self._episode_ended: Future | None = None
        self._report_processes: list[subprocess.Popen] = []
        self._status = self.create_publisher(EpisodeStatus, 'episode_status', STATUS_QOS)
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
        self.create_timer(_DISCOVERY_S, self._watch.follow_publishers)
        self.create_timer(_WATCH_S, self._close_failed_episode)
        self.create_timer(_STATUS_S, self._publish_status)

    def configure(self) -> None:
        """Takes the folder; raises GrootRosError where another recorder has it."""
        self._folder = EpisodeFolder(Path(self.parameter('output_dir')).expanduser())
        self._write_speed = self._folder.write_speed()
        if self.parameter('report') and importlib.util.find_spec('matplotlib') is None:
            self.warn(
                'No report.html is written: matplotlib is not installed (pip install "groot_ros[report]", or report:=false).'
            )
        self._announce_next_task()

    def deactivate(self) -> None:
        """Saves an episode that still runs, so that nothing is lost."""
        if self._recording is not None:
            self._finish('interrupted', 'the recorder was stopped')

    def cleanup(self) -> None:
        """Frees the folder."""
        for page in self._report_processes:
            page.terminate()
        self._folder.close()

    def diagnose(self) -> list[Health]:
        """Each stream, the writer and the disk."""
        now_ns = time.time_ns()
        found = [self._watch.meter(topic).health(now_ns) for topic in self._watch.needed]
        recording, problems = self._recording, self._problems()
        values = {
            'free on the disk (GB)': f'{self._folder.free_bytes() / 1e9:.1f}',
            'disk takes (MB/s)': f'{self._write_speed / 1e6:.0f}',
        }
        if recording is not None:
            values |= {
                'rows': str(recording.trace.rows), 'filled': str(recording.trace.filled), 'waiting messages': str(recording.queue_length),
                'lost messages': str(recording.trace.lost), 'longest encoder lag (s)': f'{recording.max_encoder_lag_s:.3f}',
            }  # fmt: skip
        state = 'no episode' if recording is None else f'{self._path.name}: {recording.trace.rows} rows'  # type: ignore[union-attr]
        return [*found, Health('episode', int(bool(problems)), '; '.join(problems) or state, values)]

    def _make_settings(self) -> RecordingSettings:
        video, depth = self.parameter('video'), self.parameter('depth')
        if video not in VIDEO_FORMATS:
            raise GrootRosError(
                f'The video format {video!r} is not known: use one of {", ".join(VIDEO_FORMATS)}.'
            )
        if depth not in ('png', 'raw'):
            raise GrootRosError(f"The depth format {depth!r} is not known: use 'png' or 'raw'.")
        codec = fastest_codec() if video == 'h264' and self.parameter('hardware_encoder') else 'libx264'
        return RecordingSettings(
            video, codec, self.parameter('keyframe_interval_s'), self.parameter('jpeg_quality'), depth
        )

    def _on_message(self, topic: str, arrival_ns: int, cdr: bytes) -> None:
        if self._recording is not None and topic in self._recording.trace.streams:
            self._recording.put(topic, arrival_ns, cdr)

    def _on_lost(self, topic: str, count: int) -> None:
        if self._recording is not None and topic in self._recording.trace.streams:
            self._recording.note_lost(topic, count)
        self.warn(f'The middleware lost {count} messages of {topic}.')

    def _snapshot(self) -> RecorderSnapshot:
        types = self._watch.types | self._watch.unknown
        return RecorderSnapshot(
            types,
            self._watch.publishers(),
            self._watch.figures(time.time_ns()),
            self._folder.free_bytes(),
            self._write_speed,
        )

    def _problems(self) -> list[str]:
        """While idle, why no episode can begin; while recording, what goes wrong now."""
        found = preflight(
            self._embodiment, self._recording_settings, self._snapshot(), self.parameter('min_free_gb') * 1e9
        )
        found += [
            f'{topic} came as {self._watch.types[topic]} and now as {msgtype}: start the recorder again'
            for topic, msgtype in self._watch.changed.items()
        ]
        recording = self._recording
        if recording is None:
            return found
        if recording.writer_lag_s > _MAX_WRITER_LAG_S:
            found.append(
                f'writing falls behind, by {recording.writer_lag_s:.1f} s now: fewer cameras, or a smaller picture'
            )
        if recording.trace.overflows:
            found.append(f'writing fell behind too far: {recording.trace.overflows} messages were lost')
        if (
            not recording.trace.rows
            and not recording.paused
            and time.monotonic() - self._began_s > _FIRST_ROW_S
        ):
            found.append(
                f'no row yet: nothing came of {", ".join(recording.missing_topics()) or "the reference camera"}'
            )
        return found

    def _on_preflight(self, request: Preflight.Request, response: Preflight.Response) -> Preflight.Response:
        if self._recording is None:
            self._write_speed = self._folder.write_speed()
            problems = self._problems()
        else:
            problems = ['an episode is being recorded', *self._problems()]
        response.success, response.message = (
            not problems,
            '; '.join(problems) or 'green: an episode can begin',
        )
        response.streams = self._stream_health()
        return response

    def _on_start(
        self, request: StartEpisode.Request, response: StartEpisode.Response
    ) -> StartEpisode.Response:
        try:
            response.episode = self._start(request.task.strip(), request.operator_name, request.force)
            response.success, response.message = True, f'recording {response.episode}: {self._task}'
        except (GrootRosError, OSError) as error:
            response.success, response.message = False, str(error)
        self._publish_status()
        return response

    def _start(self, task: str, operator: str, force: bool) -> str:
        if not self.active:
            raise GrootRosError('The recorder is not active: activate it first.')
        if self._recording is not None:
            raise GrootRosError(f'{self._path.name} is being recorded already: stop or discard it first.')  # type: ignore[union-attr]
        progress = next_task(self._tasks, self._folder.good_episode_counts())
        task = task or (progress.task.text if progress else '')
        if not task:
            done = 'The task list is done' if self._tasks else 'An episode needs a task'
            raise GrootRosError(f'{done}: say in words what the demonstration shows.')
        if (problems := self._problems()) and not force:
            raise GrootRosError(f'Not ready: {"; ".join(problems)}. `force` begins nevertheless.')
        if absent := [topic for topic in self._watch.needed if topic not in self._watch.types]:
            raise GrootRosError(f'Nothing publishes {", ".join(absent)}: without it there are no rows.')
        namespace = self.get_namespace().rstrip('/') + '/'
        info = {
            'task': task, 'operator': operator, 'embodiment': self._embodiment.text(), 'namespace': namespace, 'fps': self._embodiment.fps,
            'video': self._recording_settings.video, 'version': __version__, 'forced': problems,
        }  # fmt: skip
        self._path, self._task, self._operator_name = self._folder.next_path(), task, operator
        self._recording = EpisodeRecording(
            self._path, self._embodiment, dict(self._watch.types), info, namespace, self._recording_settings
        )
        self._began_s, self._known_problems = time.monotonic(), set()
        self.get_logger().info(f'Recording {self._path.name}: {task}')
        self._feedback.give('recording')
        return self._path.name

    def _on_stop(self, request: StopEpisode.Request, response: StopEpisode.Response) -> StopEpisode.Response:
        if self._recording is None or self._path is None:
            response.success, response.message = False, _NOT_RECORDING
            return response
        response.episode = self._path.name
        verdict = self._finish('success' if request.succeeded else 'failure', request.notes)
        response.success, response.verdict = not verdict.failure, verdict.verdict
        response.message = verdict.failure or f'saved {self._path}: {_format_verdict(verdict)}'
        self._publish_status()
        return response

    def _on_discard(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._discard()
        self._publish_status()
        return response

    def _on_redo(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Discards the episode and begins it again, with the same task."""
        task, operator = self._task, self._operator_name
        response.success, response.message = self._discard()
        if response.success:
            try:
                response.message = f'recording {self._start(task, operator, force=False)} again'
            except (GrootRosError, OSError) as error:
                response.success, response.message = False, f'{response.message}; {error}'
        self._publish_status()
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        recording = self._recording
        if recording is None:
            response.success, response.message = False, _NOT_RECORDING
        elif recording.paused == request.data:
            response.success, response.message = (
                False,
                'It is paused already.' if request.data else 'It is not paused.',
            )
        else:
            recording.pause(request.data, time.time_ns())
            response.success, response.message = (
                True,
                'paused: nothing is recorded' if request.data else 'recording goes on, as a new segment',
            )
            self._feedback.give('paused' if request.data else 'recording')
        self._publish_status()
        return response

    def _on_goal(self, goal: RecordEpisode.Goal) -> GoalResponse:
        if self._recording is not None:
            self.warn('A goal was refused: an episode is being recorded already.')
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    async def _on_record(self, handle: ServerGoalHandle) -> RecordEpisode.Result:
        """From start to end of one episode; feedback comes with every status."""
        goal, result = handle.request, RecordEpisode.Result()
        try:
            result.episode = self._start(goal.task.strip(), goal.operator_name, goal.force)
        except (GrootRosError, OSError) as error:
            handle.abort()
            result.message = str(error)
            return result
        self._episode_ended, self._goal_handle = Future(), handle
        outcome, verdict = await self._episode_ended
        self._episode_ended = None
        result.success = outcome == 'success' and not verdict.failure
        result.message, result.verdict = verdict.failure or f'{outcome}, {_format_verdict(verdict)}', verdict.verdict
        (handle.canceled if handle.is_cancel_requested else handle.succeed)()
        return result

    def _follow_goal(self) -> None:
        """Ends an episode whose goal was cancelled, or has used up its time."""
        if self._episode_ended is None or self._episode_ended.done() or self._recording is None:
            return
        limit_s = self._goal_handle.request.time_limit
        if self._goal_handle.is_cancel_requested:
            self._discard()
        elif limit_s > 0 and time.monotonic() - self._began_s > limit_s:
            self._finish('failure', f'not done within {limit_s:g} s')

    def _close_failed_episode(self) -> None:
        """Closes an episode that cannot go on, as far as it is good."""
        if self._recording is not None and self._recording.failure is not None:
            self._finish('interrupted', '')
            self._publish_status()
        self._follow_goal()

    def _discard(self) -> tuple[bool, str]:
        if self._recording is None or self._path is None:
            return False, 'No episode is being recorded: there is nothing to discard.'
        self._finish('discarded', '')
        self._folder.discard(self._path)
        self.get_logger().info(f'{self._path.name} was discarded.')
        return True, f'discarded {self._path.name}'

    def _finish(self, outcome: str, notes: str) -> Verdict:
        """Closes the bag and judges it; a fault stands in the verdict's `failure`."""
        recording, self._recording = self._recording, None
        assert recording is not None and self._path is not None
        failure = ''
        try:
            recording.finish({'outcome': outcome, 'notes': notes})
        except (GrootRosError, OSError) as error:
            torn = not (self._path / 'metadata.yaml').exists()
            mending = (
                f'; stop the recorder, make room, and run `groot-ros recover {self._path}`' if torn else ''
            )
            failure = f'{self._path.name} holds what came before a fault: {error}{mending}'
        info = {'task': self._task, 'outcome': outcome}
        verdict = judge(recording.trace, self._thresholds, info, self._path.name, failure)
        if outcome != 'discarded':
            self._save_verdict(verdict)
        self._last_verdict = verdict.verdict
        if self._episode_ended is not None and not self._episode_ended.done():
            self._episode_ended.set_result((outcome, verdict))
        return verdict

    def _save_verdict(self, verdict: Verdict) -> None:
        assert self._path is not None
        self._saved += 1
        try:
            verdict.save(self._path)
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
        text = f'{verdict.episode}: {verdict.outcome}, {verdict.rows} rows, {verdict.filled} filled, {verdict.lost} lost, {_format_verdict(verdict)}'
        if verdict.verdict == 'pass':  # rclpy allows one severity at a place in the code
            self.get_logger().info(text)
        else:
            self.warn(text)
        self._feedback.give(f'{verdict.outcome}, {verdict.verdict}')
        self._announce_next_task()
        if self.parameter('report') and not verdict.failure:
            command = [
                sys.executable,
                '-m',
                'groot_ros.cli',
                'inspect',
                str(self._path),
                '--report',
                str(self._path / REPORT_FILE),
            ]
            thresholds = (
                ['--quality-thresholds', self.parameter('quality_thresholds')]
                if self.parameter('quality_thresholds')
                else []
            )
            quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
            self._report_processes = [page for page in self._report_processes if page.poll() is None]
            self._report_processes.append(
                subprocess.Popen([*command, *thresholds], preexec_fn=_set_idle_priority, **quiet)
            )

    def _announce_next_task(self) -> None:
        """Tells the next task of the list."""
        if progress := next_task(self._tasks, self._folder.good_episode_counts()):
            self.get_logger().info(
                f'Next: {progress.task.text} ({progress.done} of {progress.task.count} done)'
            )
            self._feedback.give(f'next: {progress.task.text}')
        elif self._tasks:
            self.get_logger().info('The task list is done.')
            self._feedback.give('the task list is done')

    def _publish_status(self) -> None:
        if not self.active:
            return
        status, recording = (
            EpisodeStatus(task=self._task, saved=self._saved, verdict=self._last_verdict),
            self._recording,
        )
        status.header.stamp = self.get_clock().now().to_msg()
        status.episode = self._path.name if self._path else ''
        status.disk_free = float(self._folder.free_bytes())
        status.problems = self._problems()
        if progress := next_task(self._tasks, self._folder.good_episode_counts()):
            status.next_task, status.next_task_done, status.next_task_wanted = (
                progress.task.text,
                progress.done,
                progress.task.count,
            )
        if recording is not None:
            status.state = EpisodeStatus.PAUSED if recording.paused else EpisodeStatus.RECORDING
            status.rows, status.filled = recording.trace.rows, recording.trace.filled
            status.encoder_lag, status.queue, status.lost = (
                recording.max_encoder_lag_s,
                recording.queue_length,
                recording.trace.lost,
            )
            self._warn_new_problems(status.problems)
        status.streams = self._stream_health()
        self.publish(self._status, status)
        if self._episode_ended is not None and recording is not None:
            self._goal_handle.publish_feedback(RecordEpisode.Feedback(status=status))

    def _warn_new_problems(self, problems: list[str]) -> None:
        """Each problem once, in the second in which it begins, whatever numbers it says later."""
        kinds = {re.sub(r'[\d.]+', '', problem): problem for problem in problems}
        for kind in kinds.keys() - self._known_problems:
            self.warn(f'{self._path.name}: {kinds[kind]}.')  # type: ignore[union-attr]
            self._feedback.give('warning')
        self._known_problems = set(kinds)

    def _stream_health(self) -> list[StreamHealth]:
        found, traces = [], self._recording.trace.streams if self._recording is not None else {}
        for topic, figures in self._watch.figures(time.time_ns()).items():
            health = StreamHealth(
                topic=topic,
                rate=figures.rate_hz,
                expected_rate=self._embodiment.expected_hz(topic),
                age=figures.age_s,
            )
            health.jitter, health.max_gap, health.problem = (
                figures.jitter_s,
                figures.max_gap_s,
                figures.problem,
            )
            if topic in traces:
                health.received, health.lost = len(traces[topic].stamps_ns), traces[topic].lost
            found.append(health)
        return found


def _set_idle_priority() -> None:
    # Only the time that nothing else wants: the next episode may already be running.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _format_verdict(verdict: Verdict) -> str:
    """The verdict and its worst reasons, in a line."""
    reasons = verdict.reasons
    more = f' and {len(reasons) - 2} more in {VERDICT_FILE}' if len(reasons) > 2 else ''
    return verdict.verdict + (f' ({"; ".join(reasons[:2])}{more})' if reasons else '')


def main() -> int:
    """Entry of `ros2 run groot_ros recorder`."""
    return run_node(Recorder)


if __name__ == '__main__':
    raise SystemExit(main())
