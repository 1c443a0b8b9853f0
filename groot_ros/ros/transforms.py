# SPDX-License-Identifier: Apache-2.0
"""Names of coordinate frames, and transforms between them on /tf and /tf_static."""

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3

from groot_ros.geometry import Array
from groot_ros.ros.lifecycle_node import GrootNode
from groot_ros.ros.parameters import ParameterSpec
from groot_ros.ros.qos import STATUS_QOS, STREAM_QOS

try:
    from tf2_msgs.msg import TFMessage
except ImportError:  # ROS from wheels has it only after `make setup`, which builds it
    TFMessage = None

# As ur_robot_driver names them: the base of the controller, and the TCP that it reports.
BASE_FRAME = 'base'
TOOL_FRAME = 'tool0_controller'
FRAME_PARAMETERS = {
    'tf_prefix': ParameterSpec(
        '', "what all frame_ids begin with, such as 'left_', so that two cells have frames of their own"
    ),
}


class TransformPublisher:
    """Publishes transforms on /tf, or on /tf_static, which late subscribers get too.

    Nothing is published where tf2_msgs is not installed.
    """

    def __init__(self, node: GrootNode, static: bool = False) -> None:
        self._node = node
        self._publisher = None
        if TFMessage is not None:
            topic = '/tf_static' if static else '/tf'
            self._publisher = node.create_publisher(TFMessage, topic, STATUS_QOS if static else STREAM_QOS)

    def publish(self, transforms: list[TransformStamped]) -> None:
        """Publishes transforms in one message, while the node is active.

        A late subscriber of /tf_static gets the newest message only, so it must have all of the node.
        """
        if self._publisher is not None:
            self._node.publish(self._publisher, TFMessage(transforms=transforms))


def make_transform(stamp: Time, parent: str, child: str, pose: Array) -> TransformStamped:
    """Places the frame `child` in the frame `parent` at a pose x y z qx qy qz qw (7,)."""
    transform = TransformStamped(child_frame_id=child)
    transform.header.stamp = stamp
    transform.header.frame_id = parent
    x, y, z, qx, qy, qz, qw = pose.tolist()
    transform.transform = Transform(
        translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(x=qx, y=qy, z=qz, w=qw)
    )
    return transform
