# SPDX-License-Identifier: Apache-2.0
"""Priority for the loops that must not be late: the servo loop, the driver node, the simulated controller."""

import os

SERVO_PRIORITY = 30
CONTROLLER_PRIORITY = 40
_NODE_NICENESS = -15


def set_realtime_priority(priority: int) -> bool:
    """Puts this thread, and none that it starts, under SCHED_FIFO.

    Returns False if the user has no right to do so: grant `rtprio` in /etc/security/limits.d.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError:
        return False
    return True


def raise_node_priority() -> bool:
    """Gives this thread, and those that it starts, most of a busy processor, but never all of it.

    Threads of the ROS middleware must not be under SCHED_FIFO: Fast DDS waits for a lock in a loop, and the
    thread that holds the lock then gets no processor. Returns False if the user has no right to do so: grant
    `nice` in /etc/security/limits.d.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _NODE_NICENESS)
    except OSError:
        return False
    return True
