# SPDX-License-Identifier: Apache-2.0
"""Services that wait for a device while their node goes on."""

import threading
from collections.abc import Callable
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.service import Service

from groot_ros.ros.guarded_node import GuardedNode

_RCLError = rclpy_implementation.RCLError


def create_waiting_service(
    node: GuardedNode, service_type: Any, name: str, callback: Callable[[Any, Any], Any]
) -> Service:
    """A service whose callback fills its response in a thread of its own, so that the executor goes on.

    The responses of `service_type` have `success` and `message`.

    An executor calls the callback and gives what it returns to `send_response`: here the callback returns the
    request and the empty response, and `send_response` starts the thread.
    """
    service = node.create_service(service_type, name, lambda request, response: (request, response))
    send = service.send_response

    def answer(call: tuple[Any, Any], header: Any) -> None:
        answered = node.answer(name, callback, *call)
        try:
            send(answered, header)
        except _RCLError:  # ROS was shut down meanwhile
            if node.context.ok():
                raise

    service.send_response = lambda call, header: threading.Thread(
        target=answer, args=(call, header), name=name, daemon=True
    ).start()
    return service
