"""recorder: serialized messages in, one bag an episode out; episodes are started and ended by services."""

import importlib
import time
from functools import partial
from pathlib import Path

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import QoSProfile
from std_srvs.srv import Trigger

from groot_ros import __version__
from groot_ros.bags.recording import EpisodeRecording
from groot_ros.embodiment import load_embodiment
from groot_ros.episodes import EpisodeFolder
from groot_ros.errors import GrootRosError
from groot_ros.msg import EpisodeStatus, StreamHealth
from groot_ros.nodes.common import STATUS_QOS, GrootNode, Parameter, run_node
from groot_ros.srv import StartEpisode, StopEpisode

_FRESH_S = 1.0
_TICK_WAIT_S = 1.0

PARAMETERS = {
    'embodiment': Parameter('ur5e_robotiq_zed', 'name of an embodiment, or path of its YAML file'),
    'output_dir': Parameter('episodes', 'folder that the episodes go into'),
}


class Recorder(GrootNode):
    """Subscriptions follow what is published; a recording takes their bytes unchanged."""

    def __init__(self) -> None:
        super().__init__('recorder', PARAMETERS)
        self._embodiment = load_embodiment(self.parameter('embodiment'))
        cameras = [camera.topic for camera in self._embodiment.cameras]
        self._needed = [*self._embodiment.row_topics, *cameras]
        self._wanted = list(dict.fromkeys([*self._needed, *self._embodiment.also_record]))
        self._types: dict[str, str] = {}
        self._last_s: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._recording: EpisodeRecording | None = None
        self._path: Path | None = None
        self._task = ''
        self._saved = 0
        self._status = self.create_publisher(EpisodeStatus, 'episode_status', STATUS_QOS)
        self.create_service(StartEpisode, '~/start', self._on_start)
        self.create_service(StopEpisode, '~/stop', self._on_stop)
        self.create_service(Trigger, '~/discard', self._on_discard)
        self.create_timer(0.5, self._subscribe_to_new)
        self.create_timer(1.0, self._publish_status)

    def open(self) -> None:
        """Takes the folder; raises GrootRosError where another recorder has it."""
        self._folder = EpisodeFolder(Path(self.parameter('output_dir')).expanduser())

    def end(self) -> None:
        """Saves an episode that still runs, so that nothing is lost."""
        if self._recording is not None:
            self._finish('interrupted', 'the recorder was stopped')

    def close(self) -> None:
        """Frees the folder."""
        self._folder.close()

    def _subscribe_to_new(self) -> None:
        for topic in [topic for topic in self._wanted if topic not in self._types]:
            publishers = self.get_publishers_info_by_topic(topic)
            if publishers:
                self._subscribe(topic, publishers[0].topic_type, publishers[0].qos_profile)

    def _subscribe(self, topic: str, kind: str, offered: QoSProfile) -> None:
        package, _, name = kind.split('/')
        message_class = getattr(importlib.import_module(f'{package}.msg'), name)
        # A subscription asks for what its publisher offers; asking for more would receive nothing.
        profile = QoSProfile(depth=100, reliability=offered.reliability, durability=offered.durability)
        events = SubscriptionEventCallbacks(message_lost=partial(self._on_lost, topic))
        self.create_subscription(message_class, topic, partial(self._on_message, topic), profile, raw=True, event_callbacks=events)
        self._types[topic] = kind

    def _on_message(self, topic: str, cdr: bytes) -> None:
        self._last_s[topic] = time.monotonic()
        self._counts[topic] = self._counts.get(topic, 0) + 1
        if self._recording is not None:
            self._recording.put(topic, time.time_ns(), bytes(cdr))

    def _on_lost(self, topic: str, event) -> None:
        if self._recording is not None:
            self._recording.note_lost(topic, event.total_count_change)
        self.warn(f'The middleware lost {event.total_count_change} messages of {topic}.')

    def _missing(self) -> str:
        """Which needed streams do not flow, as a sentence, or ''."""
        now_s = time.monotonic()
        absent = [topic for topic in self._needed if topic not in self._types]
        silent = [topic for topic in self._needed if topic in self._types and now_s - self._last_s.get(topic, 0.0) > _FRESH_S]
        if absent:
            return f'Nothing publishes {", ".join(absent)}: start its driver.'
        if silent:
            return f'{", ".join(silent)} is published but silent: look at its driver.'
        return ''

    def _on_start(self, request: StartEpisode.Request, response: StartEpisode.Response) -> StartEpisode.Response:
        try:
            response.episode = self._start(request.task.strip(), request.operator_name)
            response.success, response.message = True, f'recording {response.episode}'
        except (GrootRosError, OSError) as error:
            response.success, response.message = False, str(error)
        self._publish_status()
        return response

    def _start(self, task: str, operator: str) -> str:
        if not self.active:
            raise GrootRosError('The recorder is not active: activate it first.')
        if self._recording is not None:
            raise GrootRosError(f'{self._path.name} is being recorded already: stop or discard it first.')  # type: ignore[union-attr]
        if not task:
            raise GrootRosError('An episode needs a task: say in words what the demonstration shows.')
        if missing := self._missing():
            raise GrootRosError(missing)
        namespace = self.get_namespace().rstrip('/') + '/'
        info = {
            'task': task, 'operator': operator, 'embodiment': self._embodiment.text(), 'namespace': namespace, 'fps': self._embodiment.fps,
            'version': __version__,
        }  # fmt: skip
        self._path, self._task = self._folder.next_path(), task
        self._recording = EpisodeRecording(self._path, self._embodiment, dict(self._types), info, namespace)
        self.get_logger().info(f'Recording {self._path.name}: {task}')
        return self._path.name

    def _on_stop(self, request: StopEpisode.Request, response: StopEpisode.Response) -> StopEpisode.Response:
        if self._recording is None or self._path is None:
            response.success, response.message = False, 'No episode is being recorded: start one first.'
            return response
        response.episode = self._path.name
        problem = self._finish('success' if request.succeeded else 'failure', request.notes)
        response.success, response.message = not problem, problem or f'saved {self._path}'
        self._publish_status()
        return response

    def _on_discard(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._recording is None or self._path is None:
            response.success, response.message = False, 'No episode is being recorded: there is nothing to discard.'
            return response
        self._finish('discarded', '')
        self._folder.discard(self._path)
        response.success, response.message = True, f'discarded {self._path.name}'
        self._publish_status()
        return response

    def _finish(self, outcome: str, notes: str) -> str:
        """Closes the bag and says what went wrong, or ''."""
        recording, self._recording = self._recording, None
        assert recording is not None and self._path is not None
        try:
            counts = recording.finish({'outcome': outcome, 'notes': notes})
        except (GrootRosError, OSError) as error:
            torn = not (self._path / 'metadata.yaml').exists()
            mending = f'; stop the recorder, make room, and run `groot-ros recover {self._path}`' if torn else ''
            self.warn(f'{self._path.name} ended early: {error}{mending}')
            return f'{self._path.name} holds what came before a fault: {error}{mending}'
        self._saved += outcome != 'discarded'
        if self.context.ok():
            self.get_logger().info(f'{self._path.name}: {outcome}, {counts.ticks} ticks, {counts.filled} filled, {counts.overflows} lost.')
        return ''

    def _publish_status(self) -> None:
        recording = self._recording
        status = EpisodeStatus(state=EpisodeStatus.RECORDING if recording else EpisodeStatus.IDLE, task=self._task, saved=self._saved)
        status.header.stamp = self.get_clock().now().to_msg()
        status.episode = self._path.name if self._path else ''
        if recording is not None:
            status.rows, status.filled = recording.counts.ticks, recording.counts.filled
            status.encoder_lag = recording.counts.longest_encoder_lag_ms / 1e3
            if recording.failure is not None:
                self.warn(f'The recording of {status.episode} failed: {recording.failure}; stop it.')
            elif missing := self._missing():
                self.warn(f'{status.episode}: {missing}')
        status.streams = [self._health(topic) for topic in self._wanted]
        self._counts.clear()
        self._status.publish(status)

    def _health(self, topic: str) -> StreamHealth:
        health = StreamHealth(topic=topic, rate=float(self._counts.get(topic, 0)))
        health.age = time.monotonic() - self._last_s[topic] if topic in self._last_s else -1.0
        if self._recording is not None and topic in self._recording.counts.topics:
            count = self._recording.counts.topics[topic]
            health.received, health.lost, health.largest_gap = count.received, count.lost, count.largest_gap_ns / 1e9
        return health


def main() -> int:
    """Entry of `ros2 run groot_ros recorder`."""
    return run_node(Recorder)


if __name__ == '__main__':
    raise SystemExit(main())
