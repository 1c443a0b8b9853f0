"""What every node shares: parameters with descriptions, stamps, QoS, and a main that ends cleanly on Ctrl-C or a fault."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import rclpy
from builtin_interfaces.msg import Time
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from groot_ros.errors import GrootRosError

RCLError = rclpy_implementation.RCLError
COMMAND_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
STREAM_QOS = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
IMAGE_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
STATUS_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@dataclass
class Parameter:
    """One parameter: default, what it means, and its range where it is a number."""

    default: Any
    description: str
    lowest: float | None = None
    highest: float | None = None


class GrootNode(Node):
    """A node whose `failure`, once set, ends the process with that sentence and exit code 1."""

    def __init__(self, name: str, parameters: dict[str, Parameter]) -> None:
        super().__init__(name)
        self.failure: str = ''
        self._read = {key: self._declare(key, parameter) for key, parameter in parameters.items()}

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
        """Publishes, unless Ctrl-C has ended ROS already: a device's thread may still be in the middle of its work then."""
        try:
            publisher.publish(message)
        except RCLError:
            if self.context.ok():
                raise

    def warn(self, text: str) -> None:
        """Logs a warning, unless the node is already on its way out."""
        if self.context.ok():
            self.get_logger().warning(text)

    def close(self) -> None:
        """Releases devices; called once, on every way out."""

    def _declare(self, name: str, parameter: Parameter) -> Any:
        descriptor = ParameterDescriptor(description=parameter.description, read_only=True)
        if parameter.lowest is not None and parameter.highest is not None:
            descriptor.floating_point_range = [FloatingPointRange(from_value=parameter.lowest, to_value=parameter.highest)]
        return self.declare_parameter(name, parameter.default, descriptor).value


def time_of(stamp_ns: int) -> Time:
    """builtin_interfaces/Time of nanoseconds."""
    return Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)


def ns_of(stamp: Time) -> int:
    """Nanoseconds of a builtin_interfaces/Time."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def run_node(make: Callable[[], GrootNode]) -> int:
    """Spins a node until Ctrl-C, SIGTERM or its failure; prints a failure as one sentence and returns the exit code."""
    node = None
    try:
        rclpy.init(args=sys.argv)
        node = make()
        executor = EventsExecutor()
        executor.add_node(node)
        while rclpy.ok() and not node.failure:
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
            node.close()
        rclpy.try_shutdown()


def _report(failure: str) -> int:
    if failure:
        print(f'error: {failure}', file=sys.stderr, flush=True)
    return 1 if failure else 0
