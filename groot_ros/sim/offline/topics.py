# SPDX-License-Identifier: Apache-2.0
"""What the offline cell would publish: messages with the fields of the real ones, for the same sampling."""

from types import SimpleNamespace
from typing import Any

from groot_ros.embodiment import CameraField, Embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.sim.offline.cell import OfflineCell
from groot_ros.sim.ports import CAMERAS
from groot_ros.sim.rendering import SceneRenderer
from groot_ros.ur5e_kinematics import JOINT_NAMES

_NS_PER_S = 1_000_000_000


def check_topics(embodiment: Embodiment) -> None:
    """Raises GrootRosError for an embodiment with a topic that the simulated cell does not have."""
    wanted = {*embodiment.sampled_topics, *(camera.topic for camera in embodiment.cameras)}
    known = {*_STATE_TOPICS, *(f'{name}/image' for name in CAMERAS)}
    if missing := sorted(wanted - known):
        raise GrootRosError(
            f'The embodiment {embodiment.name} needs {", ".join(missing)}, and the simulated cell has '
            f'{", ".join(sorted(known))}: choose an embodiment of a UR5e with this gripper.'
        )


def state_message(cell: OfflineCell, topic: str) -> Any:
    """The message of a state topic, stamped now."""
    message = _STATE_TOPICS[topic](cell)
    message.header = _header(cell.now_ns)
    return message


class ImageMessage:
    """A sensor_msgs/Image of a camera of the scene, which is rendered only when its pixels are used."""

    encoding = 'rgb8'

    def __init__(self, cell: OfflineCell, camera: CameraField, renderer: SceneRenderer) -> None:
        self.header = _header(cell.now_ns)
        self._qpos = cell.physics.data.qpos.copy()
        self._camera = scene_camera(camera)
        self._renderer = renderer
        self.width = renderer.width
        self.height = renderer.height
        self.step = 3 * renderer.width

    @property
    def data(self) -> bytes:
        """The pixels, line by line."""
        return self._renderer.render(self._qpos, self._camera).tobytes()


def scene_camera(camera: CameraField) -> str:
    """The camera of the scene whose images are on the topic of a camera: zed for zed/image."""
    return camera.topic.split('/')[0]


def _header(stamp_ns: int) -> SimpleNamespace:
    stamp = SimpleNamespace(sec=stamp_ns // _NS_PER_S, nanosec=stamp_ns % _NS_PER_S)
    return SimpleNamespace(stamp=stamp)


def _joint_states(cell: OfflineCell) -> SimpleNamespace:
    actual = cell.controller.actual
    return SimpleNamespace(name=JOINT_NAMES, position=actual.positions, velocity=actual.velocities)


def _gripper_state(cell: OfflineCell) -> SimpleNamespace:
    return SimpleNamespace(opening=cell.opening, target=cell.opening_target)


def _pose_stamped(pose: Array) -> SimpleNamespace:
    x, y, z, qx, qy, qz, qw = pose
    position = SimpleNamespace(x=x, y=y, z=z)
    orientation = SimpleNamespace(x=qx, y=qy, z=qz, w=qw)
    return SimpleNamespace(pose=SimpleNamespace(position=position, orientation=orientation))


_STATE_TOPICS = {
    'joint_states': _joint_states,
    'gripper/state': _gripper_state,
    'tcp_pose': lambda cell: _pose_stamped(cell.measured),
    'tcp_target': lambda cell: _pose_stamped(cell.controller.target_pose()),
}
