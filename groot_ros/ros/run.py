# SPDX-License-Identifier: Apache-2.0
"""The main function of our nodes: signals, exit codes, and failures in one sentence."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import rclpy
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from groot_ros.bringup.option_values import check_parameter_file
from groot_ros.errors import GrootRosError, explain_error
from groot_ros.ros.fastdds import configure_fastdds_profile
from groot_ros.ros.lifecycle_node import GrootNode

# Times of day, where ROS writes seconds since 1970.
_LOG_FORMAT = ('RCUTILS_CONSOLE_OUTPUT_FORMAT', '[{severity}] [{date_time_with_ms}] [{name}]: {message}')
_PARAMETER_FILE = '--params-file'
_POLL_S = 0.1
# One Ctrl-C arrives several times: from the terminal, and from launch, which forwards it.
_SAME_PRESS_S = 0.3
_CUTTING_PRESS = 3
_INTERRUPTED = 130


def run_node(make_node: Callable[[], GrootNode]) -> int:
    """Spins a node until Ctrl-C, SIGTERM, its shutdown transition or its failure, and ends it in order.

    Prints a failure as one sentence on stderr. Returns the exit code: 1 after a failure, otherwise 0.
    ROS stays up while the node ends, so that its last commands, verdicts and answers are sent.
    """
    os.environ.setdefault(*_LOG_FORMAT)
    configure_fastdds_profile()
    stop = StopSignals()
    stop.install()
    node = None
    failure = ''
    try:
        check_arguments(sys.argv)
        rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
        node = make_node()
        _report_threads(node)
        if node.parameter('autostart') and not stop.wanted:
            node.start()
        _spin(node, stop)
        failure = node.failure
    except Exception as error:
        failure = explain_error(error)
    failure = failure or _end(node)
    rclpy.try_shutdown()
    return _exit_code(failure)


def check_arguments(arguments: list[str]) -> None:
    """Raises GrootRosError if a parameter file of the command line does not exist or is no mapping.

    ROS itself names neither the option nor the reason, and ignores a file of another kind.
    """
    for option, value in zip(arguments, [*arguments[1:], ''], strict=True):
        if option != _PARAMETER_FILE:
            continue
        if not value or value.startswith('-'):
            raise GrootRosError(f'The option {_PARAMETER_FILE} has no value: give the path of a YAML file.')
        check_parameter_file(value)


class StopSignals:
    """SIGINT and SIGTERM: the first asks the node to end in order, a second changes nothing, a third cuts.

    None of them raises, so that no device is left half closed and no bag half written.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.wanted = False
        self._clock = clock
        self._presses = 0
        self._newest_s = -_SAME_PRESS_S

    def install(self) -> None:
        """Takes over both signals of this process."""
        signal.signal(signal.SIGINT, self)
        signal.signal(signal.SIGTERM, self)

    def __call__(self, *_: object) -> None:
        """Takes a signal: the first asks the node to end, later ones may cut the end short."""
        self.wanted = True
        now_s = self._clock()
        if now_s - self._newest_s < _SAME_PRESS_S:
            return
        self._newest_s = now_s
        self._presses += 1
        if self._presses >= _CUTTING_PRESS:
            os._exit(_INTERRUPTED)


def make_executor() -> Executor:
    """The executor of our nodes: rclpy's EventsExecutor, which needs about half the processor time.

    It is experimental, and came with rclpy 7.1.4: without it, the default executor.
    """
    try:
        from rclpy.experimental.events_executor import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor()
    return EventsExecutor()


def _spin(node: GrootNode, stop: StopSignals) -> None:
    executor = make_executor()
    executor.add_node(node)
    while rclpy.ok() and not stop.wanted and not node.failure and not node.finished:
        try:
            executor.spin_once(timeout_sec=_POLL_S)
        except Exception as error:  # what no guard of GuardedNode has seen, such as a callback of rclpy's own
            node.fault('a callback', error)


def _report_threads(node: GrootNode) -> None:
    """An exception that ends a thread is a fault of the node."""

    def report(ended: threading.ExceptHookArgs) -> None:
        if isinstance(ended.exc_value, Exception):
            node.fault(f'the thread {ended.thread.name!r}' if ended.thread else 'a thread', ended.exc_value)

    threading.excepthook = report


def _end(node: GrootNode | None) -> str:
    """Deactivates and cleans up; returns what failed, or ''."""
    if node is None:
        return ''
    try:
        node.shutdown()
    except Exception as error:
        return f'{node.get_name()} did not end in order: {explain_error(error)}'
    return ''


def _exit_code(failure: str) -> int:
    if not failure:
        return 0
    print(f'error: {failure}', file=sys.stderr, flush=True)
    return 1
