# SPDX-License-Identifier: Apache-2.0
"""What every node shares: life cycle, parameters with descriptions, /diagnostics, QoS, and a main that ends cleanly."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from groot_ros.errors import GrootRosError
from groot_ros.resources import share_directory
from groot_ros.sampling.stream_monitor import Health

RCLError = rclpy_implementation.RCLError
COMMAND_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
# Some seconds of history: what a busy receiver missed can be sent again after the middleware's next heartbeat (3 s in Fast DDS).
STREAM_QOS = QoSProfile(depth=2000, reliability=ReliabilityPolicy.RELIABLE)
IMAGE_QOS = QoSProfile(depth=30, reliability=ReliabilityPolicy.RELIABLE)
STATUS_QOS = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
_DIAGNOSTICS_S = 1.0
_SHARED_MEMORY, _SHARED_MEMORY_BYTES = '/dev/shm', 1 << 30
_PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')


@dataclass
class ParameterSpec:
    """One parameter: default, what it means, and its range where it is a number."""

    default: Any
    description: str
    lowest: float | None = None
    highest: float | None = None


AUTOSTART = ParameterSpec(
    True, 'configure and activate at the start; false leaves that to a lifecycle manager'
)


class GrootNode(LifecycleNode):
    """A lifecycle node. Subclasses say what the transitions do in `open`, `begin`, `end` and `close`.

    A sentence in `failure` ends the process with that sentence and exit code 1.
    """

    def __init__(self, name: str, parameters: dict[str, ParameterSpec]) -> None:
        super().__init__(name)
        self.failure: str = ''
        self.finished = self.active = self._is_open = False
        self._problem: str = ''
        described = {**parameters, 'autostart': AUTOSTART}
        self._read = {key: self._declare(key, parameter) for key, parameter in described.items()}
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self.create_timer(_DIAGNOSTICS_S, self._publish_diagnostics)

    def open(self) -> None:
        """Takes devices and files (configure). Raises GrootRosError where that fails."""

    def begin(self) -> None:
        """Starts the work (activate)."""

    def end(self) -> None:
        """Ends the work and leaves the arm holding (deactivate)."""

    def close(self) -> None:
        """Releases devices and files (cleanup, shutdown); called once, on every way out."""

    def diagnose(self) -> list[Health]:
        """How the parts of the node stand, for /diagnostics."""
        return []

    def parameter(self, name: str) -> Any:
        """Value of a parameter, as it was at the start."""
        return self._read[name]

    def now_ns(self) -> int:
        """ROS time in ns."""
        return self.get_clock().now().nanoseconds

    def fail(self, reason: str) -> None:
        """Ends the process."""
        self.failure = self.failure or reason

    def publish(self, publisher: Publisher, message: Any) -> None:
        """Publishes while the node is active and Ctrl-C has not ended ROS: a device's thread may be in the middle of its work then."""
        if not self.active:
            return
        try:
            publisher.publish(message)
        except RCLError:
            if self.context.ok():
                raise

    def warn(self, text: str) -> None:
        """Logs a warning, unless the node is already on its way out."""
        if self.context.ok():
            self.get_logger().warning(text)

    def start(self) -> None:
        """Configures and activates. Raises GrootRosError where that fails."""
        for transition in (self.trigger_configure, self.trigger_activate):
            if transition() != TransitionCallbackReturn.SUCCESS:
                raise GrootRosError(self._problem or f'{self.get_name()} could not be started')

    def leave(self) -> None:
        """Ends the work and releases what is held; harmless when done before."""
        if self.active:
            self.active = False
            self.end()
        if self._is_open:
            self._is_open = False
            self.close()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Calls `open`."""
        self._is_open = True
        return self._try(self.open, TransitionCallbackReturn.FAILURE)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Calls `begin`."""
        self.active = True
        return self._try(self.begin, TransitionCallbackReturn.FAILURE)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Calls `end`."""
        done = self._try(self.end, TransitionCallbackReturn.ERROR)
        self.active = False
        return done

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Calls `close`."""
        return self._try(self.leave, TransitionCallbackReturn.ERROR)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leaves the process in order."""
        self.finished = True
        return self._try(self.leave, TransitionCallbackReturn.ERROR)

    def _try(self, work: Callable[[], None], otherwise: TransitionCallbackReturn) -> TransitionCallbackReturn:
        try:
            work()
        except GrootRosError as error:
            self._problem = str(error)
            if not self.parameter('autostart'):
                self.get_logger().error(self._problem)
            return otherwise
        return TransitionCallbackReturn.SUCCESS

    def _declare(self, name: str, parameter: ParameterSpec) -> Any:
        descriptor = ParameterDescriptor(description=parameter.description, read_only=True)
        if parameter.lowest is not None and parameter.highest is not None:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=parameter.lowest, to_value=parameter.highest)
            ]
        return self.declare_parameter(name, parameter.default, descriptor).value

    def _publish_diagnostics(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        for health in self.diagnose() if self.active else [Health('life cycle', 1, 'not active', {})]:
            values = [KeyValue(key=key, value=value) for key, value in health.values.items()]
            name = f'{self.get_fully_qualified_name()}: {health.part}'
            message.status.append(
                DiagnosticStatus(level=bytes([health.level]), name=name, message=health.text, values=values)
            )
        if message.status:
            self._diagnostics.publish(message)


def to_time_msg(stamp_ns: int) -> Time:
    """builtin_interfaces/Time of nanoseconds."""
    return Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)


def stamp_to_ns(stamp: Time) -> int:
    """Nanoseconds of a builtin_interfaces/Time."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def run_node(make: Callable[[], GrootNode]) -> int:
    """Spins a node until Ctrl-C, SIGTERM, its shutdown or its failure; prints a failure as one sentence and returns the exit code."""
    configure_fastdds_profile()
    node, interrupt = None, _Interrupt()
    signal.signal(signal.SIGINT, interrupt)  # before rclpy's own handler, which calls this one too
    try:
        rclpy.init(args=sys.argv)
        node = make()
        if node.parameter('autostart'):
            node.start()
        executor = EventsExecutor()
        executor.add_node(node)
        interrupt.waits = True
        while rclpy.ok() and not node.failure and not node.finished:
            executor.spin_once(timeout_sec=0.5)
        return _report(node.failure)
    except RCLError:
        if rclpy.ok():
            raise
        return 0  # Ctrl-C came in the middle of a call
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except (GrootRosError, ParameterException) as error:
        return _report(str(error))
    finally:
        if node is not None:
            node.leave()
        rclpy.try_shutdown()


def configure_fastdds_profile() -> None:
    """Lets Fast DDS use config/fastdds.xml, unless the user has chosen a profile: see there why. Before rclpy.init.

    Not where shared memory is scarce, as in a container with Docker's 64 MiB: a segment that cannot be filled ends in SIGBUS.
    """
    if (
        not any(name in os.environ for name in _PROFILE_VARIABLES)
        and _free_shared_memory() > _SHARED_MEMORY_BYTES
    ):
        os.environ[_PROFILE_VARIABLES[0]] = str(share_directory() / 'config' / 'fastdds.xml')


def _free_shared_memory() -> int:
    return shutil.disk_usage(_SHARED_MEMORY).free if Path(_SHARED_MEMORY).is_dir() else 0


class _Interrupt:
    """Ctrl-C: while a node spins, the first one lets the callback in hand end, since rclpy stops the spinning; a second one breaks it off."""

    def __init__(self) -> None:
        self.waits = False

    def __call__(self, *_: object) -> None:
        if not self.waits:
            raise KeyboardInterrupt
        self.waits = False


def _report(failure: str) -> int:
    if failure:
        print(f'error: {failure}', file=sys.stderr, flush=True)
    return 1 if failure else 0
