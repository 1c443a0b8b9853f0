# SPDX-License-Identifier: Apache-2.0
"""operator_page: a web page that shows what the nodes report, and passes on what an operator orders."""

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

from groot_ros.embodiment import load_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.msg import EpisodeStatus, PolicyStatus, RobotStatus
from groot_ros.nodes.page_calls import PageCalls
from groot_ros.operator_page.access import PAGE_TOKEN_VARIABLE, Access
from groot_ros.operator_page.cameras import CameraImages
from groot_ros.operator_page.episodes import EpisodeLibrary, LastVerdict
from groot_ros.operator_page.server import PageServer
from groot_ros.operator_page.serving import ServerThread
from groot_ros.operator_page.view import Newest, arm_view, episode_view, policy_view
from groot_ros.resources import DEFAULT_EMBODIMENT
from groot_ros.ros.lifecycle_node import GrootNode
from groot_ros.ros.parameters import ParameterSpec
from groot_ros.ros.qos import STATUS_QOS
from groot_ros.ros.run import run_node
from groot_ros.sampling.stream_monitor import Health
from groot_ros.srv import DeleteEpisode, Preflight, RelabelEpisode, StartEpisode, StopEpisode

PARAMETERS = {
    'embodiment': ParameterSpec(
        DEFAULT_EMBODIMENT, 'embodiment whose cameras are shown: a name, or the path of a YAML file'
    ),
    'page_host': ParameterSpec(
        '127.0.0.1',
        'address to serve the page at; any but that of this machine only needs the environment variable '
        f'{PAGE_TOKEN_VARIABLE}',
    ),
    'page_port': ParameterSpec(8090, 'port of the page; 0 for any free one', 0, 65535),
    'episodes_dir': ParameterSpec('episodes', 'folder that the recorder writes episodes into'),
}
_WATCH_CAMERAS_S = 0.1
_FIND_COMMANDERS_S = 1.0
_SOURCES = ('teleop', 'policy')
# An image that the network lost is not sent again: the next one is newer.
_VIEW_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_IMAGE_TYPES = {'sensor_msgs/msg/Image': Image, 'sensor_msgs/msg/CompressedImage': CompressedImage}
# A stop answers at once, an enable uploads a script, and the end of an episode waits for its disk.
_STOP_S = 5.0
_CALL_S = 15.0
_SAVE_S = 60.0


class OperatorPage(GrootNode):
    """Serves the page. It reads topics and calls services; nothing in the cell depends on it."""

    def __init__(self) -> None:
        super().__init__('operator_page', PARAMETERS)
        self._arm = Newest()
        self._recorder = Newest()
        self._policy = Newest()
        self._commanders: dict[str, list[str]] = {}
        self._cameras: dict[str, Subscription] = {}
        self._images = CameraImages([])
        self._shown_cameras: list[dict[str, Any]] = []
        self._library: EpisodeLibrary | None = None
        self._last_verdict = LastVerdict(lambda episode: {})
        self._server: PageServer | None = None
        self._thread: ServerThread | None = None
        self._calls = PageCalls(self)
        self._subscribe()
        self._create_clients()
        self.create_timer(_WATCH_CAMERAS_S, self._follow_viewers)
        self.create_timer(_FIND_COMMANDERS_S, self._find_commanders)

    def configure(self) -> None:
        """Serves the page. Raises GrootRosError for an address without a token, or a port in use."""
        host = self.parameter('page_host')
        access = Access(host, os.environ.get(PAGE_TOKEN_VARIABLE, ''))
        embodiment = load_embodiment(self.parameter('embodiment'))
        self._images = CameraImages([camera.topic for camera in embodiment.cameras])
        self._shown_cameras = [
            {'topic': camera.topic, 'width': camera.width, 'height': camera.height}
            for camera in embodiment.cameras
        ]
        self._library = EpisodeLibrary(Path(self.parameter('episodes_dir')).expanduser())
        self._last_verdict = LastVerdict(self._library.verdict)
        self._server = PageServer(self, access, self._images, self._library, self.fault)
        self._thread = ServerThread(self._server.app, host, self.parameter('page_port'))
        shown = f'[{host}]' if ':' in host else host
        note = f', with the token of {PAGE_TOKEN_VARIABLE}' if access.needs_token else ''
        self.get_logger().info(f'The page is at http://{shown}:{self._thread.port}/{note}')

    def cleanup(self) -> None:
        """Ends the server. The cell goes on as it is."""
        if self._thread is not None:
            self._thread.stop()
        if self._library is not None:
            self._library.close()
        self._thread = self._server = self._library = None

    def diagnose(self) -> list[Health]:
        """Who controls."""
        controller = self._server.controller.address if self._server is not None else ''
        return [Health('page', 0, f'{controller} controls' if controller else 'nobody looks', {})]

    def state(self) -> dict[str, Any]:
        """What the page shows now. Called by the server's thread."""
        now_s = time.monotonic()
        recorder = self._recorder.view(self._recorder_view, 'The recorder', now_s)
        return {
            'arm': self._arm.view(lambda status: arm_view(status, self._commanders), 'ur5e_driver', now_s),
            'recorder': recorder,
            'policy': self._policy.view(policy_view, 'policy_server', now_s),
            'cameras': self._shown_cameras,
        }

    def _recorder_view(self, status: EpisodeStatus) -> dict[str, Any]:
        view = episode_view(status)
        if status.state == EpisodeStatus.IDLE:
            view['verdict'] = self._last_verdict.of(status.episode, status.saved, status.verdict)
        return view

    async def carry_out(self, order: Any) -> tuple[bool, str]:
        """Calls the service of an order. Called by the server's loop."""
        client, request, timeout_s = self._service_of(order)
        answer = await self._calls.call(client, request, timeout_s)
        return answer.success, answer.message

    def _service_of(self, order: Any) -> tuple[Any, Any, float]:
        """Client, request and waiting time of an order."""
        match order.order:
            case 'stop_arm':
                return self._enable, SetBool.Request(data=False), _STOP_S
            case 'enable_arm':
                return self._enable, SetBool.Request(data=True), _CALL_S
            case 'recover_arm':
                return self._recover, Trigger.Request(), _CALL_S
            case 'stop_policy':
                return self._run_policy, SetBool.Request(data=False), _STOP_S
            case 'preflight':
                return self._preflight, Preflight.Request(), _CALL_S
            case 'start_episode':
                request = StartEpisode.Request(task=order.task, operator_name=order.operator_name)
                return self._start, request, _CALL_S
            case 'stop_episode':
                request = StopEpisode.Request(succeeded=order.succeeded, notes=order.notes)
                return self._stop, request, _SAVE_S
            case 'pause_episode':
                return self._pause, SetBool.Request(data=order.on), _CALL_S
            case 'redo_episode':
                return self._redo, Trigger.Request(), _SAVE_S
            case 'discard_episode':
                return self._discard, Trigger.Request(), _SAVE_S
            case 'next_task':
                return self._next_task, Trigger.Request(), _CALL_S
            case 'skip_task':
                return self._skip_task, Trigger.Request(), _CALL_S
            case 'relabel_episode':
                request = RelabelEpisode.Request(
                    episode=order.episode, outcome=order.outcome, notes=order.notes
                )
                return self._relabel, request, _CALL_S
            case 'delete_episode':
                return self._delete, DeleteEpisode.Request(episode=order.episode), _SAVE_S
        raise GrootRosError(f'The order {order.order} has no service.')

    def _create_clients(self) -> None:
        self._enable = self.create_client(SetBool, 'ur5e_driver/enable')
        self._recover = self.create_client(Trigger, 'ur5e_driver/recover')
        self._preflight = self.create_client(Preflight, 'recorder/preflight')
        self._start = self.create_client(StartEpisode, 'recorder/start')
        self._stop = self.create_client(StopEpisode, 'recorder/stop')
        self._pause = self.create_client(SetBool, 'recorder/pause')
        self._redo = self.create_client(Trigger, 'recorder/redo')
        self._discard = self.create_client(Trigger, 'recorder/discard')
        self._next_task = self.create_client(Trigger, 'recorder/next_task')
        self._skip_task = self.create_client(Trigger, 'recorder/skip_task')
        self._relabel = self.create_client(RelabelEpisode, 'recorder/relabel')
        self._delete = self.create_client(DeleteEpisode, 'recorder/delete')
        self._run_policy = self.create_client(SetBool, 'policy_server/enable')

    def _subscribe(self) -> None:
        for kind, topic, newest in (
            (RobotStatus, 'robot_status', self._arm),
            (EpisodeStatus, 'episode_status', self._recorder),
            (PolicyStatus, 'policy_status', self._policy),
        ):
            self.create_subscription(kind, topic, partial(self._take, newest), STATUS_QOS)

    def _take(self, newest: Newest, message: Any) -> None:
        before = newest.message
        newest.take(message, time.monotonic())
        if self._server is not None and (before is None or before.state != message.state):
            self._server.changed()

    def _find_commanders(self) -> None:
        """Names the nodes that may command the arm, for the sentence before it is enabled."""
        self._commanders = {
            source: [
                info.node_name
                for info in self.get_publishers_info_by_topic(self.resolve_topic_name(f'{source}/tcp_delta'))
            ]
            for source in _SOURCES
        }

    def _follow_viewers(self) -> None:
        """Subscribes to the cameras that somebody looks at, and to no other."""
        watched = self._images.watched_topics()
        for topic in set(self._cameras) - watched:
            self.destroy_subscription(self._cameras.pop(topic))
        for topic in watched - set(self._cameras):
            self._watch_camera(topic)

    def _watch_camera(self, topic: str) -> None:
        publishers = self.get_publishers_info_by_topic(self.resolve_topic_name(topic))
        kinds = [info.topic_type for info in publishers if info.topic_type in _IMAGE_TYPES]
        if kinds:
            take = partial(self._images.put, topic, msgtype=kinds[0])
            self._cameras[topic] = self.create_subscription(
                _IMAGE_TYPES[kinds[0]], topic, take, _VIEW_QOS, raw=True
            )


def main() -> int:
    """Entry of `ros2 run groot_ros operator_page`."""
    return run_node(OperatorPage)


if __name__ == '__main__':
    raise SystemExit(main())
