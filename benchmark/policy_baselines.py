# SPDX-License-Identifier: Apache-2.0
"""Two other ways to carry out chunks, as nodes that publish policy/tcp_delta: stop and go, and averaging each number on its own.

`stop_and_go` is what the real-robot examples of GR00T do: a blocking request, the first half of the chunk at row rate, and again.
`linear` asks beside the motion, as LeRobot's asynchronous inference does: deltas that overlap in time are averaged number by number,
0.3 of the old and 0.7 of the new.

`python -m benchmark.policy_rivals WAY PORT SECONDS`
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

ROW_S, TIMEOUT_S = 1 / 20, 0.6
USED = HORIZON // 2


class Rival:
    """A node with what both ways share."""

    def __init__(self, port: int) -> None:
        self.node = rclpy.create_node('policy')
        self._publisher = self.node.create_publisher(TcpDelta, 'policy/tcp_delta', COMMAND_QOS)
        self.node.create_subscription(PoseStamped, 'tcp_pose', self._on_pose, STREAM_QOS)
        self._client, self._sequence = Client('127.0.0.1', port, 'n1.7', timeout_s=TIMEOUT_S), 0
        self.pose: Array | None = None
        self.pose_ns = 0

    def _on_pose(self, message: PoseStamped) -> None:
        self.pose, self.pose_ns = pose_from_msg(message), stamp_to_ns(message.header.stamp)

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
        message.translation, message.rotation, message.header.stamp = (
            delta[:3],
            delta[3:],
            to_time_msg(tick_ns),
        )
        self._publisher.publish(message)

    def hold(self) -> None:
        """Lets the arm hold while nothing is commanded, or the driver would stop it for silence."""
        self._sequence += 1
        self._publisher.publish(TcpDelta(source='policy', sequence=self._sequence, released=True))


def stop_and_go(rival: Rival, until_s: float) -> None:
    while time.monotonic() < until_s:
        rival.hold()
        rival.spin_until(time.time_ns() + 5_000_000)
        deltas, began_ns = rival.submit(rival.pose), time.time_ns()
        for step in range(USED):
            rival.send(deltas[step], began_ns + round(step * ROW_S * 1e9))
            rival.spin_until(began_ns + round((step + 1) * ROW_S * 1e9))


def linear(rival: Rival, until_s: float) -> None:
    questions, answers = queue.Queue(), queue.Queue()

    def work() -> None:
        while (question := questions.get()) is not None:
            answers.put((question[0], rival.submit(question[1])))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    plan: dict[int, Array] = {}
    tick, asked, began_ns = 0, False, time.time_ns()
    while time.monotonic() < until_s:
        rival.spin_until(began_ns + round(tick * ROW_S * 1e9))
        if not asked and sum(step >= tick for step in plan) <= USED:
            questions.put((tick, rival.pose))
            asked = True
        while not answers.empty():
            since, deltas = answers.get()
            asked = False
            since = tick if not any(step >= tick for step in plan) else since
            for step, delta in enumerate(deltas, start=since):
                plan[step] = 0.3 * plan[step] + 0.7 * delta if step in plan else delta
        if tick in plan:
            rival.send(plan.pop(tick), began_ns + round(tick * ROW_S * 1e9))
        else:
            rival.hold()
        tick += 1
    questions.put(None)


def main() -> None:
    way, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    rclpy.init(args=[])
    rival = Rival(port)
    while rival.pose is None:
        rclpy.spin_once(rival.node, timeout_sec=0.1)
    with contextlib.suppress(ExternalShutdownException):  # stopped by whoever started it
        {'stop_and_go': stop_and_go, 'linear': linear}[way](rival, time.monotonic() + seconds)
        rival.hold()
        rclpy.shutdown()


if __name__ == '__main__':
    main()
