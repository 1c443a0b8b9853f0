# SPDX-License-Identifier: Apache-2.0
"""The recorder node: records one bag per episode and judges it. Services and an action control it."""

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rclpy.action.server import ServerGoalHandle
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from groot_ros.action import RecordEpisode
from groot_ros.bags.label import make_label
from groot_ros.embodiment import load_embodiment
from groot_ros.errors import GrootRosError, choose, explain_error
from groot_ros.msg import EpisodeStatus, StreamHealth
from groot_ros.nodes.recorder_messages import episode_status, stream_health
from groot_ros.quality.verdict import Verdict, load_thresholds
from groot_ros.recording.episode_recorder import DEPTH_FORMATS, VIDEO_FORMATS, RecordingSettings
from groot_ros.recording.episode_session import EpisodeSession, SessionSettings
from groot_ros.recording.operator_feedback import OperatorFeedback
from groot_ros.recording.preflight import RecorderSnapshot
from groot_ros.recording.report_process import ReportProcesses
from groot_ros.recording.task_list import TaskQueue, load_tasks
from groot_ros.resources import DEFAULT_EMBODIMENT
from groot_ros.ros.lifecycle_node import GrootNode
from groot_ros.ros.parameters import ParameterSpec
from groot_ros.ros.qos import STATUS_QOS
from groot_ros.ros.run import run_node
from groot_ros.ros.topic_subscriber import StreamWatch
from groot_ros.sampling.stream_monitor import Health
from groot_ros.srv import DeleteEpisode, Preflight, RelabelEpisode, SetTask, StartEpisode, StopEpisode
from groot_ros.video.h264 import fastest_codec

_NOT_ACTIVE = 'The recorder is not active: activate it first.'
_DISCOVERY_S = 0.5
_WATCH_S = 0.2
# A page says within a second that the recorder has fallen silent.
_STATUS_S = 0.25

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
        '', 'YAML file with thresholds that replace those of config/quality_thresholds.yaml', may_change=True
    ),
    'tasks_file': ParameterSpec(
        '',
        'YAML file with the tasks to show and how often (tasks: [{text: ..., count: 20}])',
        may_change=True,
    ),
    'min_free_gb': ParameterSpec(
        2.0, 'an episode does not start with less free disk space, GB', 0.0, 1e6, may_change=True
    ),
    'report': ParameterSpec(
        True, 'write report.html next to each bag, in a process of low priority', may_change=True
    ),
    'operator_feedback': ParameterSpec(
        'none', "how the operator hears what happens: 'none', 'bell' or 'speech'", may_change=True
    ),
}


class Recorder(GrootNode):
    """Gives an EpisodeSession to ROS: parameters, topics, services, an action, status and diagnostics."""

    def __init__(self) -> None:
        super().__init__('recorder', PARAMETERS)
        self._embodiment = load_embodiment(self.parameter('embodiment'))
        self._settings = self._make_settings()
        self._session = EpisodeSession(
            self._embodiment,
            self._settings,
            OperatorFeedback(self.parameter('operator_feedback')),
            observe=self._observe,
            on_finish=self._on_finish,
            info=self._info,
            warn=self.warn,
        )
        self._reports = ReportProcesses(self.parameter('quality_thresholds'))
        self._watch = StreamWatch(self, self._embodiment, self._session.put, self._session.add_lost)
        self._goal_handle: ServerGoalHandle | None = None
        self._episode_ended: Future | None = None
        self._status = self.create_publisher(EpisodeStatus, 'episode_status', STATUS_QOS)
        self._create_services()
        self.create_timer(_DISCOVERY_S, self._watch.follow_publishers)
        self.create_timer(_WATCH_S, self._watch_episode)
        self.create_timer(_STATUS_S, self._publish_status)

    def configure(self) -> None:
        """Locks the folder of episodes. Raises GrootRosError if another recorder has it."""
        self._session.open(Path(self.parameter('output_dir')).expanduser())
        if self.parameter('report') and importlib.util.find_spec('matplotlib') is None:
            self.warn(
                'No report.html is written, because matplotlib is not installed: '
                'pip install "groot_ros[report]", or set report:=false.'
            )
        self._session.announce_next_task()

    def deactivate(self) -> None:
        """Saves an episode that is being recorded, so that nothing is lost."""
        self._interrupt('the recorder was stopped')

    def change_parameter(self, name: str, value: Any) -> None:
        """Takes over thresholds, tasks, cues and the free space that the next episode needs."""
        if name == 'quality_thresholds':
            self._settings.thresholds = load_thresholds(value)
            self._reports.thresholds = value
        elif name == 'tasks_file':
            self._settings.task_queue = _load_tasks(value)
        elif name == 'min_free_gb':
            self._settings.min_free_bytes = value * 1e9
        elif name == 'operator_feedback':
            self._session.feedback = OperatorFeedback(value)

    def on_fault(self, reason: str) -> None:
        """Saves an episode that is being recorded, as interrupted, and ends the goal that waits for it."""
        self._interrupt(reason)
        if self._episode_ended is not None and not self._episode_ended.done():
            self._episode_ended.set_exception(GrootRosError(reason))

    def _interrupt(self, reason: str) -> None:
        if self._session.recording is not None:
            self._session.finish('interrupted', reason)

    def cleanup(self) -> None:
        """Ends report processes and unlocks the folder."""
        self._reports.terminate()
        self._session.close()

    def diagnose(self) -> list[Health]:
        """The state of each stream, of the episode and of the disk."""
        now_ns = time.time_ns()
        streams = [self._watch.meter(topic).health(now_ns) for topic in self._watch.needed]
        values = {
            'free disk space (GB)': f'{self._session.folder.free_bytes() / 1e9:.1f}',
            'write speed (MB/s)': f'{self._session.write_speed / 1e6:.0f}',
        }
        state = 'no episode'
        recording = self._session.recording
        if recording is not None:
            trace = recording.trace
            state = f'{self._session.episode}: {trace.rows} rows'
            values['rows'] = str(trace.rows)
            values['filled'] = str(trace.filled)
            values['lost messages'] = str(trace.lost)
            values['queued messages'] = str(recording.queue_length)
            values['max encoder lag (s)'] = f'{recording.max_encoder_lag_s:.3f}'
        problems = self._session.problems()
        episode = Health('episode', int(bool(problems)), '; '.join(problems) or state, values)
        return [*streams, episode]

    def _create_services(self) -> None:
        self.create_service(StartEpisode, '~/start', self._on_start)
        self.create_service(StopEpisode, '~/stop', self._on_stop)
        self.create_service(Trigger, '~/discard', self._on_discard)
        self.create_service(Trigger, '~/redo', self._on_redo)
        self.create_service(SetBool, '~/pause', self._on_pause)
        self.create_service(Trigger, '~/next_task', self._on_next_task)
        self.create_service(Trigger, '~/skip_task', self._on_skip_task)
        self.create_service(Preflight, '~/preflight', self._on_preflight)
        self.create_service(SetTask, '~/set_task', self._on_set_task)
        self.create_service(RelabelEpisode, '~/relabel', self._on_relabel)
        self.create_service(DeleteEpisode, '~/delete', self._on_delete)
        self._record_action = self.create_action_server(
            RecordEpisode, '~/record', self._on_record, self._goal_refusal
        )

    def _make_settings(self) -> SessionSettings:
        return SessionSettings(
            thresholds=load_thresholds(self.parameter('quality_thresholds')),
            recording=self._make_recording_settings(),
            task_queue=_load_tasks(self.parameter('tasks_file')),
            namespace=self.get_namespace().rstrip('/') + '/',
            min_free_bytes=self.parameter('min_free_gb') * 1e9,
        )

    def _make_recording_settings(self) -> RecordingSettings:
        video = choose('video format', self.parameter('video'), VIDEO_FORMATS)
        depth = choose('depth format', self.parameter('depth'), DEPTH_FORMATS)
        codec = 'libx264'
        if video == 'h264' and self.parameter('hardware_encoder'):
            codec = fastest_codec()
        return RecordingSettings(
            video, codec, self.parameter('keyframe_interval_s'), self.parameter('jpeg_quality'), depth
        )

    def _observe(self) -> RecorderSnapshot:
        return RecorderSnapshot(
            types=dict(self._watch.types),
            unknown=dict(self._watch.unknown),
            changed=dict(self._watch.changed),
            offered=dict(self._watch.offered),
            publishers=self._watch.publishers(),
            stats=self._watch.stats(time.time_ns()),
        )

    def _info(self, text: str) -> None:
        self.get_logger().info(text)

    def _on_finish(self, verdict: Verdict) -> None:
        """Reports a saved episode, starts its report.html, and ends the goal that waits for it."""
        if verdict.outcome != 'discarded' and self.context.ok():
            self._session.announce_verdict(verdict)
            if self.parameter('report') and not verdict.failure:
                self._reports.start(self._path_of(verdict))
        if self._episode_ended is not None and not self._episode_ended.done():
            self._episode_ended.set_result(verdict)

    def _path_of(self, verdict: Verdict) -> Path:
        return self._session.folder.path / verdict.episode

    def _on_preflight(self, request: Preflight.Request, response: Preflight.Response) -> Preflight.Response:
        if not self.active:
            return Preflight.Response(success=False, message=_NOT_ACTIVE)
        problems = []
        if self._session.recording is None:
            self._session.measure_write_speed()
        else:
            problems.append('an episode is being recorded')
        problems += self._session.problems()
        response.success = not problems
        response.message = '; '.join(problems) or 'green: an episode can start'
        response.streams = self._stream_health()
        return response

    def _on_start(
        self, request: StartEpisode.Request, response: StartEpisode.Response
    ) -> StartEpisode.Response:
        try:
            response.episode = self._start(request)
            response.success = True
            response.message = f'recording {response.episode}: {self._session.task}'
        except (GrootRosError, OSError) as error:
            response.success = False
            response.message = str(error)
        self._publish_status()
        return response

    def _start(self, request: StartEpisode.Request | RecordEpisode.Goal) -> str:
        """Starts an episode and returns its name. Raises GrootRosError with the reason if it cannot start."""
        if not self.active:
            raise GrootRosError(_NOT_ACTIVE)
        episode = self._session.start(request.task.strip(), request.operator_name, request.force)
        self._watch.ask_latched_again()  # so that every bag has /tf_static and the newest status
        return episode

    def _on_stop(self, request: StopEpisode.Request, response: StopEpisode.Response) -> StopEpisode.Response:
        outcome = 'success' if request.succeeded else 'failure'
        try:
            verdict = self._session.finish(outcome, request.notes)
        except GrootRosError as error:
            response.success = False
            response.message = str(error)
            return response
        response.episode = verdict.episode
        response.success = not verdict.failure
        response.verdict = verdict.verdict
        response.message = (
            verdict.failure or f'saved {self._path_of(verdict)}: {outcome}, {verdict.summary()}'
        )
        self._publish_status()
        return response

    def _on_discard(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._respond(response, lambda: f'discarded {self._session.discard()}')

    def _on_redo(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._respond(response, self._redo)

    def _redo(self) -> str:
        episode = self._session.redo()
        self._watch.ask_latched_again()
        return f'recording {episode} again'

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        return self._respond(response, lambda: self._session.pause(request.data))

    def _on_next_task(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._respond(response, lambda: self._change_task(self._session.advance_task))

    def _on_skip_task(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._respond(response, lambda: self._change_task(self._session.skip_task))

    def _change_task(self, change: Callable[[], str]) -> str:
        if not self.active:
            raise GrootRosError(_NOT_ACTIVE)
        return change()

    def _on_set_task(self, request: SetTask.Request, response: SetTask.Response) -> SetTask.Response:
        return self._respond(response, lambda: self._session.choose_task(request.task.strip()))

    def _on_relabel(
        self, request: RelabelEpisode.Request, response: RelabelEpisode.Response
    ) -> RelabelEpisode.Response:
        entries = {key: getattr(request, key).strip() for key in ('outcome', 'task', 'notes')}
        return self._respond(response, lambda: self._session.relabel(request.episode, make_label(**entries)))

    def _on_delete(
        self, request: DeleteEpisode.Request, response: DeleteEpisode.Response
    ) -> DeleteEpisode.Response:
        return self._respond(response, lambda: self._session.delete(request.episode))

    def _respond(self, response: Any, work: Callable[[], str]) -> Any:
        """Fills a response with the message that `work` returns, or with the error that it raises."""
        try:
            if not self.configured:
                raise GrootRosError(_NOT_ACTIVE)
            response.message = work()
            response.success = True
        except (GrootRosError, OSError) as error:
            response.message = explain_error(error)
            response.success = False
        self._publish_status()
        return response

    def _goal_refusal(self) -> str:
        return 'an episode is being recorded already' if self._session.recording is not None else ''

    async def _on_record(self, handle: ServerGoalHandle) -> RecordEpisode.Result:
        """Records one episode from start to end; every status is also the feedback."""
        result = RecordEpisode.Result()
        try:
            result.episode = self._start(handle.request)
        except OSError as error:
            raise GrootRosError(str(error)) from error
        self._goal_handle = handle
        self._episode_ended = Future()
        try:
            verdict = await self._episode_ended
        finally:
            self._episode_ended = None
            self._goal_handle = None
        result.success = verdict.outcome == 'success' and not verdict.failure
        result.message = verdict.failure or f'{verdict.outcome}, {verdict.summary()}'
        result.verdict = verdict.verdict
        return result

    def _watch_episode(self) -> None:
        if self._session.finish_if_failed() or self._session.finish_if_stream_lost():
            self._publish_status()
        self._follow_goal()

    def _follow_goal(self) -> None:
        """Ends an episode whose goal was cancelled or has used up its time limit."""
        if self._goal_handle is None or self._session.recording is None:
            return
        if self._episode_ended is None or self._episode_ended.done():
            return
        limit_s = self._goal_handle.request.time_limit
        if self._goal_handle.is_cancel_requested:
            self._session.discard()
        elif limit_s > 0 and self._session.elapsed_s > limit_s:
            self._session.finish('failure', f'not done within {limit_s:g} s')

    def _publish_status(self) -> None:
        if not self.active:
            return
        session = self._session
        problems = session.problems()
        stamp = self.get_clock().now().to_msg()
        status = episode_status(stamp, session, problems, self._stream_health())
        if session.recording is not None:
            session.warn_new_problems(problems)
        self.publish(self._status, status)
        if self._goal_handle is not None and session.recording is not None:
            self._goal_handle.publish_feedback(RecordEpisode.Feedback(status=status))

    def _stream_health(self) -> list[StreamHealth]:
        stats = self._watch.stats(time.time_ns())
        return stream_health(stats, self._embodiment, self._session.recording)


def _load_tasks(file: str) -> TaskQueue | None:
    return TaskQueue(load_tasks(Path(file).expanduser())) if file else None


def main() -> int:
    """Entry of `ros2 run groot_ros recorder`."""
    return run_node(Recorder)


if __name__ == '__main__':
    raise SystemExit(main())
