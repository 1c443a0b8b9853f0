# SPDX-License-Identifier: Apache-2.0
"""The main function of our nodes: signals, exit codes, and failures in one sentence."""

import os
import signal
import sys
from collections.abc import Callable

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation

from groot_ros.errors import GrootRosError
from groot_ros.ros.fastdds import configure_fastdds_profile
from groot_ros.ros.lifecycle_node import GrootNode

_RCLError = rclpy_implementation.RCLError
_POLL_S = 0.5
# Times of day, where ROS writes seconds since 1970.
_LOG_FORMAT = ('RCUTILS_CONSOLE_OUTPUT_FORMAT', '[{severity}] [{date_time_with_ms}] [{name}]: {message}')


def run_node(make_node: Callable[[], GrootNode]) -> int:
    """Spins a node until Ctrl-C, SIGTERM, its shutdown transition or its failure.

    Prints a failure as one sentence on stderr. Returns the exit code: 1 after a failure, otherwise 0.
    """
    configure_fastdds_profile()
    os.environ.setdefault(*_LOG_FORMAT)
    node = None
    interrupt = _Interrupt()
    # Installed before rclpy installs its own handler, which calls ours too.
    signal.signal(signal.SIGINT, interrupt)
    try:
        rclpy.init(args=sys.argv)
        node = make_node()
        if node.parameter('autostart'):
            node.start()
        _spin(node, interrupt)
        return _exit_code(node.failure)
    except _RCLError:
        if rclpy.ok():
            raise
        return 0  # Ctrl-C came during a call into rcl
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except (GrootRosError, ParameterException) as error:
        return _exit_code(str(error))
    finally:
        if node is not None:
            node.shutdown()
        rclpy.try_shutdown()


class _Interrupt:
    """Handles Ctrl-C: the first lets the running callback of a spinning node finish, a second does not."""

    def __init__(self) -> None:
        self.spinning = False

    def __call__(self, *_: object) -> None:
        if not self.spinning:
            raise KeyboardInterrupt
        self.spinning = False


def _spin(node: GrootNode, interrupt: _Interrupt) -> None:
    executor = EventsExecutor()
    executor.add_node(node)
    interrupt.spinning = True
    while rclpy.ok() and not node.failure and not node.finished:
        executor.spin_once(timeout_sec=_POLL_S)


def _exit_code(failure: str) -> int:
    if not failure:
        return 0
    print(f'error: {failure}', file=sys.stderr, flush=True)
    return 1
