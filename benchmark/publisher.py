# SPDX-License-Identifier: Apache-2.0
"""A process that publishes like a cell: arm, gripper and cameras with known signals.

At its end it prints the stamps of all it sent.
"""

import argparse
import array
import json
import signal
import threading
import time

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from groot_ros.msg import GripperState
from sensor_msgs.msg import Image, JointState

from benchmark import signals
from groot_ros.ros.fastdds import configure_fastdds_profile
from groot_ros.ros.qos import IMAGE_QOS, STREAM_QOS
from groot_ros.ros.time import to_time_msg
from groot_ros.ur5e_kinematics import JOINT_NAMES


class Publisher:
    """Publishes each stream in a thread of its own, on an absolute schedule."""

    def __init__(self, cameras: int, width: int, height: int, fps: float) -> None:
        self.node = rclpy.create_node('publisher')
        self.sent: dict[str, list[int]] = {}
        self.late_s = 0.0
        self._running = True
        self._began_s = int(time.time())
        self._threads = [
            self._thread('arm', 125.0, self._arm()),
            self._thread('gripper', 50.0, self._gripper()),
        ]
        self._threads += [
            self._thread(f'camera{k}', fps, self._camera(k, width, height)) for k in range(cameras)
        ]

    def run(self) -> None:
        for thread in self._threads:
            thread.start()
        while self._running:
            time.sleep(0.1)
        for thread in self._threads:
            thread.join()

    def stop(self, *_) -> None:
        self._running = False

    def _thread(self, name: str, rate_hz: float, publish) -> threading.Thread:
        def work() -> None:
            next_s = time.time()
            while self._running:
                time.sleep(max(next_s - time.time(), 0.0))
                publish(round(next_s * 1e9))
                self.late_s = max(self.late_s, time.time() - next_s)
                next_s += 1.0 / rate_hz

        return threading.Thread(target=work, name=name)

    def _seconds(self, stamp_ns: int) -> float:
        """Time of the signals: small numbers keep their digits, and no wrap makes them jump."""
        return stamp_ns / 1e9 - self._began_s

    def _send(self, publisher, topic: str, message, stamp_ns: int) -> None:
        message.header.stamp = to_time_msg(stamp_ns)
        publisher.publish(message)
        self.sent.setdefault(topic, []).append(stamp_ns)

    def _arm(self):
        joints = self.node.create_publisher(JointState, 'joint_states', STREAM_QOS)
        poses = self.node.create_publisher(PoseStamped, 'tcp_pose', STREAM_QOS)

        def publish(stamp_ns: int) -> None:
            t = self._seconds(stamp_ns)
            message = JointState(
                name=list(JOINT_NAMES),
                position=signals.joints(t).tolist(),
                velocity=signals.velocities(t).tolist(),
            )
            self._send(joints, 'joint_states', message, stamp_ns)
            pose = PoseStamped()
            values = signals.pose(t).tolist()
            pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = values[:3]
            o = pose.pose.orientation
            o.x, o.y, o.z, o.w = values[3:]
            self._send(poses, 'tcp_pose', pose, stamp_ns)

        return publish

    def _gripper(self):
        states = self.node.create_publisher(GripperState, 'gripper/state', STREAM_QOS)

        def publish(stamp_ns: int) -> None:
            opening = signals.opening(self._seconds(stamp_ns))
            self._send(states, 'gripper/state', GripperState(opening=opening, target=opening), stamp_ns)

        return publish

    def _camera(self, number: int, width: int, height: int):
        topic = f'camera{number}/image'
        images = self.node.create_publisher(Image, topic, IMAGE_QOS)
        source = signals.Images(width, height)

        def publish(stamp_ns: int) -> None:
            message = Image(height=height, width=width, encoding='rgb8', step=3 * width)
            message.data = array.array('B', np.ascontiguousarray(source.at(stamp_ns)).tobytes())
            self._send(images, topic, message, stamp_ns)

        return publish


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--cameras', type=int, default=2)
    parser.add_argument('--size', type=int, nargs=2, default=(640, 480))
    parser.add_argument('--fps', type=float, default=30.0)
    chosen = parser.parse_args()
    configure_fastdds_profile()
    rclpy.init()
    publisher = Publisher(chosen.cameras, *chosen.size, chosen.fps)
    signal.signal(signal.SIGTERM, publisher.stop)
    signal.signal(signal.SIGINT, publisher.stop)
    publisher.run()
    print(json.dumps({'sent': publisher.sent, 'late_s': publisher.late_s}), flush=True)


if __name__ == '__main__':
    main()
