# SPDX-License-Identifier: Apache-2.0
"""Real-time priority for the loops that must not be late: the servo loop and the simulated controller."""

import os

NODE_PRIORITY = 20
SERVO_PRIORITY = 30
CONTROLLER_PRIORITY = 40


def set_realtime_priority(priority: int, threads: bool = False) -> bool:
    """Puts this thread under SCHED_FIFO, and with `threads` also those that it starts.

    Returns False if the user has no right to do so: grant `rtprio` in /etc/security/limits.d.
    """
    policy = os.SCHED_FIFO if threads else os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    try:
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except OSError:
        return False
    return True
