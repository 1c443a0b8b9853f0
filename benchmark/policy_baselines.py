# SPDX-License-Identifier: Apache-2.0
"""Two other ways to execute chunks, as nodes that publish policy/tcp_delta; compared in policy_execution.py.

`stop_and_go` does what the real-robot examples of GR00T do: a blocking request, then the first half of the
chunk at row rate, and again. `linear` sends requests during the motion, as LeRobot's asynchronous inference
does: deltas that overlap in time are averaged element by element, 0.3 of the old and 0.7 of the new.

`python -m benchmark.policy_baselines WAY PORT SECONDS`
"""

import contextlib
import queue
import sys
import threading
import time

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from groot_ros.msg import TcpDelta
from rclpy.executors import ExternalShutdownException

from benchmark.policy_model import HORIZON
from groot_ros.errors import PolicyError
from groot_ros.geometry import Array
from groot_ros.inference.client import Client
from groot_ros.message_fields import pose_from_msg, stamp_to_ns
from groot_ros.ros.qos import COMMAND_QOS, STREAM_QOS
from groot_ros.ros.time import to_time_msg

ROW_S = 1 / 20
TIMEOUT_S = 0.6
USED = HORIZON // 2


class Baseline:
    """The node of a baseline: its client of the policy, the measured pose and its commands."""

    def __init__(self, port: int) -> None:
        self.node = rclpy.create_node('policy')
        self._publisher = self.node.create_publisher(TcpDelta, 'policy/tcp_delta', COMMAND_QOS)
        self.node.create_subscription(PoseStamped, 'tcp_pose', self._on_pose, STREAM_QOS)
        self._client = Client('127.0.0.1', port, 'n1.7', timeout_s=TIMEOUT_S)
        self._sequence = 0
        self.pose: Array | None = None
        self.pose_ns = 0

    def _on_pose(self, message: PoseStamped) -> None:
        self.pose = pose_from_msg(message)
        self.pose_ns = stamp_to_ns(message.header.stamp)

    def spin_until(self, due_ns: int) -> None:
        while time.time_ns() < due_ns:
            rclpy.spin_once(self.node, timeout_sec=max(min((due_ns - time.time_ns()) / 1e9, 0.005), 0.0))

    def submit(self, pose: Array) -> Array:
        """Deltas (16, 6), after as many tries as it takes."""
        observation = {
            'video': {},
            'state': {'tcp_pose': pose[None, None].astype(np.float32)},
            'language': {},
        }
        while True:
            try:
                action, _ = self._client.request('get_action', {'observation': observation, 'options': None})
            except PolicyError:
                continue
            return np.hstack([action['delta_tcp_position'][0], action['delta_tcp_orientation'][0]])

    def send(self, delta: Array, tick_ns: int) -> None:
        self._sequence += 1
        message = TcpDelta(source='policy', sequence=self._sequence, duration=ROW_S, opening=float('nan'))
        message.translation = delta[:3]
        message.rotation = delta[3:]
        message.header.stamp = to_time_msg(tick_ns)
        self._publisher.publish(message)

    def hold(self) -> None:
        """Lets the arm hold while nothing is commanded, or the driver would stop it for silence."""
        self._sequence += 1
        self._publisher.publish(TcpDelta(source='policy', sequence=self._sequence, released=True))


def stop_and_go(baseline: Baseline, until_s: float) -> None:
    while time.monotonic() < until_s:
        baseline.hold()
        baseline.spin_until(time.time_ns() + 5_000_000)
        deltas = baseline.submit(baseline.pose)
        began_ns = time.time_ns()
        for step in range(USED):
            baseline.send(deltas[step], began_ns + round(step * ROW_S * 1e9))
            baseline.spin_until(began_ns + round((step + 1) * ROW_S * 1e9))


def linear(baseline: Baseline, until_s: float) -> None:
    questions = queue.Queue()
    answers = queue.Queue()

    def work() -> None:
        while (question := questions.get()) is not None:
            answers.put((question[0], baseline.submit(question[1])))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    plan: dict[int, Array] = {}
    tick = 0
    asked = False
    began_ns = time.time_ns()
    while time.monotonic() < until_s:
        baseline.spin_until(began_ns + round(tick * ROW_S * 1e9))
        if not asked and sum(step >= tick for step in plan) <= USED:
            questions.put((tick, baseline.pose))
            asked = True
        while not answers.empty():
            since, deltas = answers.get()
            asked = False
            since = tick if not any(step >= tick for step in plan) else since
            for step, delta in enumerate(deltas, start=since):
                plan[step] = 0.3 * plan[step] + 0.7 * delta if step in plan else delta
        if tick in plan:
            baseline.send(plan.pop(tick), began_ns + round(tick * ROW_S * 1e9))
        else:
            baseline.hold()
        tick += 1
    questions.put(None)


def main() -> None:
    way = sys.argv[1]
    port = int(sys.argv[2])
    seconds = float(sys.argv[3])
    rclpy.init(args=[])
    baseline = Baseline(port)
    while baseline.pose is None:
        rclpy.spin_once(baseline.node, timeout_sec=0.1)
    with contextlib.suppress(ExternalShutdownException):  # stopped by whoever started it
        execute = {'stop_and_go': stop_and_go, 'linear': linear}[way]
        execute(baseline, time.monotonic() + seconds)
        baseline.hold()
        rclpy.shutdown()


if __name__ == '__main__':
    main()
