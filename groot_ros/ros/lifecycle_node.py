# SPDX-License-Identifier: Apache-2.0
"""GrootNode, the base class of our nodes: lifecycle, parameters and /diagnostics."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import SetParametersResult
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher

from groot_ros.errors import GrootRosError, explain_error, nearest
from groot_ros.ros.guarded_node import GuardedNode
from groot_ros.ros.parameters import ParameterSpec, settings_from
from groot_ros.sampling.stream_monitor import Health

_RCLError = rclpy_implementation.RCLError
_DIAGNOSTICS_S = 1.0
# Parameters that rclpy declares only when it needs them.
_ROS_OWN_PARAMETERS = ('qos_overrides.', 'use_sim_time', 'start_type_description_service')

AUTOSTART = ParameterSpec(
    True, 'configure and activate when the process starts; false leaves both to a lifecycle manager'
)


class GrootNode(GuardedNode):
    """A lifecycle node. Subclasses override `configure`, `activate`, `deactivate` and `cleanup`.

    Where `configure` or `activate` raises, `cleanup` or `deactivate` undoes what it began.
    A non-empty `failure` ends the process with that sentence and exit code 1; `finished` ends it with 0.
    """

    uses_sim_time = False

    def __init__(self, name: str, parameters: dict[str, ParameterSpec]) -> None:
        super().__init__(name)
        self.failure: str = ''
        self.finished = False
        self.active = False
        self._configured = False
        self._last_refusal = ''
        self._guard_transitions()
        specs = {**parameters, 'autostart': AUTOSTART}
        self._changing = {name for name, spec in specs.items() if spec.may_change}
        self._values = {
            key: self.declare_parameter(key, spec.default, spec.descriptor()).value
            for key, spec in specs.items()
        }
        self._refuse_unknown_parameters()
        self._check_clock(self.get_parameter('use_sim_time').value)
        # Read-only parameters refuse their own value too.
        self.describe_parameter('start_type_description_service').read_only = False
        self.add_on_set_parameters_callback(self._on_set_parameters)
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

    def change_parameter(self, name: str, value: Any) -> None:
        """Takes over a new value of a parameter that may change. Raises GrootRosError to refuse it."""

    def diagnose(self) -> list[Health]:
        """The state of each part of the node, for /diagnostics."""
        return []

    def parameter(self, name: str) -> Any:
        """The value of a parameter."""
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
                raise GrootRosError(self._last_refusal)

    def shutdown(self) -> None:
        """Deactivates and cleans up, as far as that is still to be done; one even if the other fails."""
        try:
            if self.active:
                self.deactivate()
        finally:
            self.active = False
            self._clean_up()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Runs `configure`, and `cleanup` if that raises: then the node stays unconfigured."""
        self.problem = ''
        self._configured = True
        if self._try(self.configure):
            return TransitionCallbackReturn.SUCCESS
        self.guarded('cleanup', self._clean_up)()
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Runs `activate`, and `deactivate` if that raises: then the node stays inactive."""
        self.active = True
        if self._try(self.activate):
            return TransitionCallbackReturn.SUCCESS
        self.guarded('deactivate', self.deactivate)()
        self.active = False
        return TransitionCallbackReturn.FAILURE

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Runs `deactivate`; if that raises, the node is cleaned up and unconfigured."""
        succeeded = self._try(self.deactivate)
        self.active = False
        return TransitionCallbackReturn.SUCCESS if succeeded else TransitionCallbackReturn.ERROR

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Runs `cleanup`. The node is unconfigured afterwards, even if that raises."""
        succeeded = self._try(self.shutdown)
        return TransitionCallbackReturn.SUCCESS if succeeded else TransitionCallbackReturn.ERROR

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition: deactivates, cleans up and ends the process."""
        self.finished = True
        succeeded = self._try(self.shutdown)
        return TransitionCallbackReturn.SUCCESS if succeeded else TransitionCallbackReturn.ERROR

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a transition that failed: cleans up what is left. The node can be configured again."""
        self.guarded('cleanup', self.shutdown)()
        return TransitionCallbackReturn.SUCCESS

    def _clean_up(self) -> None:
        if self._configured:
            self._configured = False
            self.cleanup()

    def _try(self, work: Callable[[], None]) -> bool:
        """Runs a part of a transition; an exception is logged, kept for `start`, and gives False."""
        try:
            work()
        except Exception as error:
            self._last_refusal = explain_error(error)
            if not isinstance(error, GrootRosError):
                self._last_refusal = f'{work.__name__} of {self.get_name()} failed: {self._last_refusal}'
            if not self.parameter('autostart'):
                self.get_logger().error(self._last_refusal)
            return False
        return True

    def _guard_transitions(self) -> None:
        """Refuses impossible transitions, which rclpy answers with an exception out of its executor."""
        service = next(s for s in self.services if s.srv_name.endswith('/change_state'))
        service.callback = partial(self._change_state, service.callback)

    def _change_state(self, change: Callable[[Any, Any], Any], request: Any, response: Any) -> Any:
        wanted = request.transition
        possible = [(number, label) for number, label, *_ in self._state_machine.available_transitions]
        if any(label == wanted.label if wanted.label else number == wanted.id for number, label in possible):
            return self.answer('change_state', change, request, response)
        state = self._state_machine.current_state[1]
        names = ', '.join(sorted({label for _, label in possible if not label.startswith('transition_')}))
        self.warn(
            f'The transition {wanted.label or wanted.id} is not possible in the state {state}: '
            f'use one of {names or "none"}.'
        )
        response.success = False
        return response

    def _on_set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        changed = [item for item in parameters if not self._has_value(item)]
        for item in changed:
            if item.name not in self._changing:
                reason = (
                    f'{item.name} is read when the node starts: set it in a parameter file or at the start.'
                )
                return SetParametersResult(successful=False, reason=reason)
        try:
            for item in changed:
                self.change_parameter(item.name, item.value)
                self._values[item.name] = item.value
        except Exception as error:
            return SetParametersResult(successful=False, reason=explain_error(error))
        return SetParametersResult(successful=True)

    def _has_value(self, wanted: Parameter) -> bool:
        present = self.get_parameter(wanted.name)
        if isinstance(present.value, Sequence) and isinstance(wanted.value, Sequence):
            return list(present.value) == list(wanted.value)
        return present.value == wanted.value

    def _refuse_unknown_parameters(self) -> None:
        """Raises GrootRosError for a misspelt parameter: a limit that is not read would limit nothing."""
        for name in self._parameter_overrides:
            if self.has_parameter(name) or name.startswith(_ROS_OWN_PARAMETERS):
                continue
            raise GrootRosError(
                f'{self.get_name()} has no parameter {name!r}{nearest(name, self._values)}. '
                'In a file for several nodes, give the parameters of each under its name, '
                f'such as /**/{self.get_name()}.'
            )

    def _check_clock(self, simulated: bool) -> None:
        if simulated and not self.uses_sim_time:
            raise GrootRosError(
                f'{self.get_name()} stamps by the clock of this machine: leave use_sim_time false. '
                'Only the converter works with bags that are played.'
            )

    def _publish_diagnostics(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        parts = self.diagnose() if self.active else [Health('lifecycle', 1, 'not active', {})]
        if self.problem:
            parts = [*parts, Health('fault', 2, self.problem, {})]
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
