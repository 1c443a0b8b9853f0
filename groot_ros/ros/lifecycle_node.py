# SPDX-License-Identifier: Apache-2.0
"""GrootNode, the base class of our nodes: lifecycle, read-only parameters and /diagnostics."""

from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.publisher import Publisher

from groot_ros.errors import GrootRosError
from groot_ros.ros.parameters import ParameterSpec, settings_from
from groot_ros.sampling.stream_monitor import Health

_RCLError = rclpy_implementation.RCLError
_DIAGNOSTICS_S = 1.0

AUTOSTART = ParameterSpec(
    True, 'configure and activate when the process starts; false leaves both to a lifecycle manager'
)


class GrootNode(LifecycleNode):
    """A lifecycle node. Subclasses override `configure`, `activate`, `deactivate` and `cleanup`.

    A non-empty `failure` ends the process with that sentence and exit code 1; `finished` ends it with 0.
    """

    def __init__(self, name: str, parameters: dict[str, ParameterSpec]) -> None:
        super().__init__(name)
        self.failure: str = ''
        self.finished = False
        self.active = False
        self._configured = False
        self._problem: str = ''
        specs = {**parameters, 'autostart': AUTOSTART}
        self._values = {
            key: self.declare_parameter(key, spec.default, spec.descriptor()).value
            for key, spec in specs.items()
        }
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self.create_timer(_DIAGNOSTICS_S, self._publish_diagnostics)

    def configure(self) -> None:
        """Opens devices and files. Raises GrootRosError if that fails."""

    def activate(self) -> None:
        """Starts the work of the node."""

    def deactivate(self) -> None:
        """Stops the work of the node; the arm holds its position."""

    def cleanup(self) -> None:
        """Closes devices and files. Called once after `configure`, whichever way the node ends."""

    @property
    def configured(self) -> bool:
        """Whether `configure` was called, and `cleanup` not yet."""
        return self._configured

    def diagnose(self) -> list[Health]:
        """The state of each part of the node, for /diagnostics."""
        return []

    def parameter(self, name: str) -> Any:
        """The value that a parameter had when the node started."""
        return self._values[name]

    def settings(self, cls: type, **others: Any) -> Any:
        """A settings dataclass, filled from the parameters of `specs_from` and from `others`."""
        return settings_from(cls, self._values, **others)

    def now_ns(self) -> int:
        """The ROS time in ns."""
        return self.get_clock().now().nanoseconds

    def fail(self, reason: str) -> None:
        """Ends the process with this reason, unless it already ends with another."""
        self.failure = self.failure or reason

    def publish(self, publisher: Publisher, message: Any) -> None:
        """Publishes if the node is active. Safe in a thread of a device while Ctrl-C shuts ROS down."""
        if not self.active:
            return
        try:
            publisher.publish(message)
        except _RCLError:
            if self.context.ok():
                raise

    def warn(self, text: str) -> None:
        """Logs a warning, unless ROS is already shut down."""
        if self.context.ok():
            self.get_logger().warning(text)

    def start(self) -> None:
        """Configures and activates the node. Raises GrootRosError if one of the two fails."""
        for transition in (self.trigger_configure, self.trigger_activate):
            if transition() != TransitionCallbackReturn.SUCCESS:
                raise GrootRosError(self._problem or f'{self.get_name()} could not be started.')

    def shutdown(self) -> None:
        """Deactivates and cleans up, as far as that is still to be done."""
        if self.active:
            self.active = False
            self.deactivate()
        if self._configured:
            self._configured = False
            self.cleanup()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Runs `configure`; the transition fails if that raises GrootRosError."""
        self._configured = True
        return self._try(self.configure, TransitionCallbackReturn.FAILURE)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Runs `activate`; the transition fails if that raises GrootRosError."""
        self.active = True
        return self._try(self.activate, TransitionCallbackReturn.FAILURE)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Runs `deactivate`, and makes the node inactive even if that raises GrootRosError."""
        result = self._try(self.deactivate, TransitionCallbackReturn.ERROR)
        self.active = False
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Runs `cleanup`, after `deactivate` if the node is still active."""
        return self._try(self.shutdown, TransitionCallbackReturn.ERROR)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition: deactivates, cleans up and ends the process."""
        self.finished = True
        return self._try(self.shutdown, TransitionCallbackReturn.ERROR)

    def _try(self, work: Callable[[], None], on_error: TransitionCallbackReturn) -> TransitionCallbackReturn:
        try:
            work()
        except GrootRosError as error:
            self._problem = str(error)
            if not self.parameter('autostart'):
                self.get_logger().error(self._problem)
            return on_error
        return TransitionCallbackReturn.SUCCESS

    def _publish_diagnostics(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        parts = self.diagnose() if self.active else [Health('lifecycle', 1, 'not active', {})]
        message.status = [self._diagnostic_status(health) for health in parts]
        if message.status:
            self._diagnostics.publish(message)

    def _diagnostic_status(self, health: Health) -> DiagnosticStatus:
        return DiagnosticStatus(
            level=bytes([health.level]),
            name=f'{self.get_fully_qualified_name()}: {health.part}',
            message=health.text,
            values=[KeyValue(key=key, value=value) for key, value in health.values.items()],
        )
