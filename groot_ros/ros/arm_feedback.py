# SPDX-License-Identifier: Apache-2.0
"""What ur5e_driver reports to the policy server: the target, the measured pose and the status of the arm."""

from collections.abc import Callable

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node

from groot_ros.geometry import Array
from groot_ros.message_fields import pose_from_msg, stamp_to_ns
from groot_ros.msg import RobotStatus, TcpDelta
from groot_ros.policies.commanded_pose import ArmTarget
from groot_ros.ros.qos import COMMAND_QOS, STATUS_QOS, STREAM_QOS

_MAX_TARGET_AGE_NS = 500_000_000


class ArmFeedback:
    """Keeps the newest target and measured poses (7,) in the base frame and the newest RobotStatus.

    `on_status` is called after each status, `on_echo` with sequence and target (7,) after each accepted
    command of the policy.
    """

    def __init__(
        self,
        node: Node,
        min_speed_scaling: float,
        on_status: Callable[[], None],
        on_echo: Callable[[int, Array], None],
    ) -> None:
        self.status = RobotStatus()
        self.target = ArmTarget()
        self.measured: Array | None = None
        self._target_ns = 0
        self.min_speed_scaling = min_speed_scaling
        self._on_status = on_status
        self._on_echo = on_echo
        node.create_subscription(PoseStamped, 'tcp_target', self._take_target, STREAM_QOS)
        node.create_subscription(PoseStamped, 'tcp_pose', self._take_pose, STREAM_QOS)
        node.create_subscription(TcpDelta, 'command/tcp_delta', self._take_echo, COMMAND_QOS)
        node.create_subscription(RobotStatus, 'robot_status', self._take_status, STATUS_QOS)

    @property
    def enabled(self) -> bool:
        """Whether the arm accepts commands."""
        return self.status.state == RobotStatus.ENABLED

    def blocking_reason(self, now_ns: int) -> str:
        """Why a policy cannot start now; empty if it can."""
        if not self.enabled:
            return 'the arm is not enabled: call ur5e_driver/enable first'
        if now_ns - self._target_ns > _MAX_TARGET_AGE_NS:
            return 'tcp_target is silent: check that ur5e_driver runs'
        return self.pause_reason() or self.target.moving_reason(now_ns)

    def pause_reason(self) -> str:
        """Why a running policy must pause: another source has the arm, or the speed slider has stopped it."""
        return self.override_reason() or self.slider_reason()

    def override_reason(self) -> str:
        """The source that commands the arm instead of the policy, in words; empty if none does."""
        if self.status.source in ('', 'policy'):
            return ''
        return f'{self.status.source} commands the arm'

    def slider_reason(self) -> str:
        """Why the speed slider stops the arm; empty if it does not."""
        if self.status.connected and self.status.speed_scaling < self.min_speed_scaling:
            return f'the speed slider is at {self.status.speed_scaling * 100:.0f} %'
        return ''

    def _take_target(self, message: PoseStamped) -> None:
        self._target_ns = stamp_to_ns(message.header.stamp)
        self.target.add_tcp_target(pose_from_msg(message), self._target_ns)

    def _take_echo(self, message: TcpDelta) -> None:
        self.target.add_echo(message.target)
        if message.source == 'policy':
            self._on_echo(message.sequence, message.target)

    def _take_pose(self, message: PoseStamped) -> None:
        self.measured = pose_from_msg(message)

    def _take_status(self, message: RobotStatus) -> None:
        self.status = message
        if not self.enabled:
            self.target.forget_echo()
        self._on_status()
