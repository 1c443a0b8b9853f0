# SPDX-License-Identifier: Apache-2.0
"""The services of recorder and ur5e_driver, as the node teleop calls them: without waiting for the reply."""

from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from groot_ros.ros.guarded_node import GuardedNode
from groot_ros.srv import StartEpisode, StopEpisode


class ServiceClients:
    """Calls return a Future. A reply is logged: as a warning if the service refused."""

    def __init__(self, node: GuardedNode) -> None:
        self._node = node
        self._start = node.create_client(StartEpisode, 'recorder/start')
        self._stop = node.create_client(StopEpisode, 'recorder/stop')
        self._redo = node.create_client(Trigger, 'recorder/redo')
        self._pause = node.create_client(SetBool, 'recorder/pause')
        self._discard = node.create_client(Trigger, 'recorder/discard')
        self._next_task = node.create_client(Trigger, 'recorder/next_task')
        self._skip_task = node.create_client(Trigger, 'recorder/skip_task')
        self._enable = node.create_client(SetBool, 'ur5e_driver/enable')
        self._freedrive = node.create_client(SetBool, 'ur5e_driver/freedrive')
        self._recover = node.create_client(Trigger, 'ur5e_driver/recover')

    def start(self, task: str, operator_name: str) -> Future:
        """Asks the recorder to start an episode of a task."""
        return self._call(self._start, StartEpisode.Request(task=task, operator_name=operator_name))

    def stop(self, succeeded: bool) -> Future:
        """Stops and saves the episode."""
        return self._call(self._stop, StopEpisode.Request(succeeded=succeeded))

    def discard(self) -> Future:
        """Deletes the episode that is being recorded."""
        return self._call(self._discard, Trigger.Request())

    def redo(self) -> Future:
        """Deletes the episode that is being recorded and starts it again."""
        return self._call(self._redo, Trigger.Request())

    def pause(self, on: bool) -> Future:
        """Pauses or resumes the recording."""
        return self._call(self._pause, SetBool.Request(data=on))

    def next_task(self) -> Future:
        """Goes on to another task of the recorder's list for the next episode."""
        return self._call(self._next_task, Trigger.Request())

    def skip_task(self) -> Future:
        """Leaves the next task of the recorder's list out."""
        return self._call(self._skip_task, Trigger.Request())

    def enable(self, on: bool) -> Future:
        """Enables or disables commands to the arm."""
        return self._call(self._enable, SetBool.Request(data=on))

    def freedrive(self, on: bool) -> Future:
        """Starts or ends freedrive, in which a hand guides the arm."""
        return self._call(self._freedrive, SetBool.Request(data=on))

    def recover(self) -> Future:
        """Recovers from a protective stop."""
        return self._call(self._recover, Trigger.Request())

    def _call(self, client, request) -> Future:
        future = client.call_async(request)
        if not client.service_is_ready():
            self._node.get_logger().warning(f'{client.srv_name} is not available: is its node running?')
        # An exception in a task ends the process: the events executor of rclpy 7.1 has a segmentation fault.
        future.add_done_callback(self._node.guarded(client.srv_name, self._log_reply))
        return future

    def _log_reply(self, future: Future) -> None:
        if not self._node.context.ok():
            return
        answer = future.result()
        if answer.success:  # two calls, since rclpy allows one severity per line of code
            self._node.get_logger().info(answer.message)
        else:
            self._node.get_logger().warning(answer.message)
