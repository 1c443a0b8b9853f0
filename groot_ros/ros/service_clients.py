# SPDX-License-Identifier: Apache-2.0
"""The services of recorder and ur5e_driver, as the node teleop calls them: without waiting for the reply."""

from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from groot_ros.srv import StartEpisode, StopEpisode


class ServiceClients:
    """Calls return a Future; what a service refuses is logged as a warning, what it does as information."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._start = node.create_client(StartEpisode, 'recorder/start')
        self._stop = node.create_client(StopEpisode, 'recorder/stop')
        self._redo = node.create_client(Trigger, 'recorder/redo')
        self._pause = node.create_client(SetBool, 'recorder/pause')
        self._discard = node.create_client(Trigger, 'recorder/discard')
        self._enable = node.create_client(SetBool, 'ur5e_driver/enable')
        self._freedrive = node.create_client(SetBool, 'ur5e_driver/freedrive')
        self._recover = node.create_client(Trigger, 'ur5e_driver/recover')

    def start(self, task: str, operator_name: str) -> Future:
        """Begins an episode."""
        return self._call(self._start, StartEpisode.Request(task=task, operator_name=operator_name))

    def stop(self, succeeded: bool) -> Future:
        """Ends and saves the episode."""
        return self._call(self._stop, StopEpisode.Request(succeeded=succeeded))

    def discard(self) -> Future:
        """Throws the episode away."""
        return self._call(self._discard, Trigger.Request())

    def redo(self) -> Future:
        """Throws the episode away and begins it again."""
        return self._call(self._redo, Trigger.Request())

    def pause(self, on: bool) -> Future:
        """Leaves out what comes, or goes on recording."""
        return self._call(self._pause, SetBool.Request(data=on))

    def enable(self, on: bool) -> Future:
        """Lets commands move the arm, or no longer."""
        return self._call(self._enable, SetBool.Request(data=on))

    def freedrive(self, on: bool) -> Future:
        """Lets a hand guide the arm, or no longer."""
        return self._call(self._freedrive, SetBool.Request(data=on))

    def recover(self) -> Future:
        """Recovers from a protective stop."""
        return self._call(self._recover, Trigger.Request())

    def _call(self, client, request) -> Future:
        future = client.call_async(request)
        if not client.service_is_ready():
            self._node.get_logger().warning(f'{client.srv_name} is not there: is its node running?')
        future.add_done_callback(self._tell)
        return future

    def _tell(self, future: Future) -> None:
        if not self._node.context.ok():
            return
        answer = future.result()
        if answer.success:  # rclpy allows one severity at a place in the code
            self._node.get_logger().info(answer.message)
        else:
            self._node.get_logger().warning(answer.message)
