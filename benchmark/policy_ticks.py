# SPDX-License-Identifier: Apache-2.0
"""Jitter of the commands of the policy server at 30 and 100 Hz.

A bare timer that publishes the same message in the same run is the comparison.
"""

import os
import subprocess
import sys
import time

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from groot_ros.msg import ActionChunk, RobotStatus, TcpDelta
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import SetBool

from benchmark.common import options, report
from groot_ros.message_fields import stamp_to_ns
from groot_ros.ros.qos import COMMAND_QOS, STATUS_QOS, STREAM_QOS
from groot_ros.ros.time import to_time_msg

RATES_HZ = (30.0, 100.0)
SECONDS = 20.0
NEAR_S = 0.02
Figures = list[tuple[str, float, str]]


def bare(rate_hz: float) -> None:
    """Publishes what the policy server publishes, and does nothing else."""
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('bare')
    publisher = node.create_publisher(TcpDelta, 'bare/tcp_delta', COMMAND_QOS)
    period_ns = round(1e9 / rate_hz)
    due = [time.time_ns()]

    def tick() -> None:
        due[0] += period_ns
        message = TcpDelta(source='policy', duration=period_ns / 1e9)
        message.header.stamp = to_time_msg(due[0])
        publisher.publish(message)

    node.create_timer(period_ns / 1e9, tick)
    executor = EventsExecutor()
    executor.add_node(node)
    while True:
        executor.spin_once(timeout_sec=0.5)


class Arm:
    """Publishes the status of an enabled arm, and notes when commands arrive."""

    def __init__(self) -> None:
        self.node = rclpy.create_node('arm')
        self.late_ns: dict[str, list[tuple[int, int]]] = {'policy': [], 'bare': []}
        self.chunks_ns: list[int] = []
        self._status = self.node.create_publisher(RobotStatus, 'robot_status', STATUS_QOS)
        self._targets = [
            self.node.create_publisher(PoseStamped, topic, STREAM_QOS) for topic in ('tcp_target', 'tcp_pose')
        ]
        self._echoes = self.node.create_publisher(TcpDelta, 'command/tcp_delta', COMMAND_QOS)
        for name, noted in self.late_ns.items():
            self.node.create_subscription(
                TcpDelta,
                f'{name}/tcp_delta',
                lambda message, noted=noted: self._note(message, noted),
                COMMAND_QOS,
            )
        self.node.create_subscription(
            ActionChunk, 'policy/action_chunk', lambda _: self.chunks_ns.append(time.time_ns()), COMMAND_QOS
        )
        self.node.create_timer(0.02, self._publish)

    def _note(self, message: TcpDelta, noted: list[tuple[int, int]]) -> None:
        if not message.released:
            now_ns = time.time_ns()
            noted.append((now_ns, now_ns - stamp_to_ns(message.header.stamp)))
            message.target = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
            self._echoes.publish(message)

    def _publish(self) -> None:
        self._status.publish(
            RobotStatus(state=RobotStatus.ENABLED, connected=True, source='policy', speed_scaling=1.0)
        )
        for publisher in self._targets:
            message = PoseStamped()
            message.header.stamp = to_time_msg(time.time_ns())
            message.pose.orientation.w = 1.0
            publisher.publish(message)


def measured(rate_hz: float) -> Figures:
    arm = Arm()
    executor = EventsExecutor()
    executor.add_node(arm.node)
    parameters = {'backend': 'scripted', 'command_hz': rate_hz, 'max_lead_m': 0.3}
    words = [word for key, value in parameters.items() for word in ('-p', f'{key}:={value}')]
    processes = [
        subprocess.Popen(
            [sys.executable, '-m', 'groot_ros.nodes.policy_server', '--ros-args', *words],
            stderr=subprocess.DEVNULL,
        ),
        subprocess.Popen([sys.executable, '-m', 'benchmark.policy_ticks', '--bare', str(rate_hz)]),
    ]
    client = arm.node.create_client(SetBool, 'policy_server/enable')
    began_s = time.monotonic()
    asked = []

    def enable() -> None:
        if not arm.late_ns['policy'] and client.service_is_ready():
            asked.append(client.call_async(SetBool.Request(data=True)))

    arm.node.create_timer(1.0, enable)
    while (not arm.late_ns['policy'] or not arm.late_ns['bare']) and time.monotonic() < began_s + 60:
        executor.spin_once(timeout_sec=0.2)
    settled_ns = time.time_ns() + 2_000_000_000
    until_s = time.monotonic() + SECONDS + 2
    while time.monotonic() < until_s:
        executor.spin_once(timeout_sec=0.2)
    for process in processes:
        process.terminate()
        process.wait(20)
    arm.node.destroy_node()
    return figures_of(arm, rate_hz, settled_ns)


def figures_of(arm: Arm, rate_hz: float, since_ns: int) -> Figures:
    jitter: dict[str, float] = {}
    found: Figures = []
    for name, noted in arm.late_ns.items():
        late = np.array([entry for entry in noted if entry[0] > since_ns], float)
        off_ms = np.abs(late[:, 1] - np.median(late[:, 1])) / 1e6
        jitter[name] = float(np.quantile(off_ms, 0.99))
        found += [
            (f'{rate_hz:g} Hz, {name}: commands', len(late), ''),
            (f'{rate_hz:g} Hz, {name}: jitter, p99', jitter[name], 'ms'),
        ]
        if name == 'policy':
            found += chunk_figures(arm, rate_hz, late, off_ms)
    ratio = jitter['policy'] / jitter['bare']
    return [*found, (f'{rate_hz:g} Hz: jitter, policy server / bare timer', ratio, '')]


def chunk_figures(arm: Arm, rate_hz: float, late: np.ndarray, off_ms: np.ndarray) -> Figures:
    """The delay of the commands of the policy server, and their jitter right after a chunk and otherwise."""
    delay_ms = float(np.median(late[:, 1])) / 1e6
    found = [(f'{rate_hz:g} Hz, policy: delay after the tick, median', delay_ms, 'ms')]
    chunks = np.array(arm.chunks_ns, float)
    near_ns = NEAR_S * 1e9 + 1e9 / rate_hz
    near = np.array([np.any((now >= chunks) & (now < chunks + near_ns)) for now in late[:, 0]])
    for text, part in (('after a chunk has come', near), ('otherwise', ~near)):
        p99_ms = float(np.quantile(off_ms[part], 0.99))
        found.append((f'{rate_hz:g} Hz, policy: jitter of commands {text}, p99', p99_ms, 'ms'))
    return found


def main() -> None:
    if '--bare' in sys.argv:
        bare(float(sys.argv[-1]))
        return
    chosen = options(__doc__)
    os.environ.setdefault('ROS_DOMAIN_ID', '78')
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    rclpy.init(args=[])
    figures = [figure for rate_hz in RATES_HZ for figure in measured(rate_hz)]
    rclpy.shutdown()
    report('Commands of the policy server in time', figures, chosen.json)


if __name__ == '__main__':
    main()
