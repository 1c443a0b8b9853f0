# SPDX-License-Identifier: Apache-2.0
"""Real-time priority for the loops that must not be late: the servo loop and the simulated controller."""

import os

NODE_PRIORITY, SERVO_PRIORITY, CONTROLLER_PRIORITY = 20, 30, 40


def set_realtime_priority(priority: int, threads: bool = False) -> bool:
    """Puts this thread, and with `threads` those that it starts, under SCHED_FIFO; False where the user may not (see docs on rtprio)."""
    try:
        os.sched_setscheduler(
            0, os.SCHED_FIFO | (0 if threads else os.SCHED_RESET_ON_FORK), os.sched_param(priority)
        )
    except OSError:
        return False
    return True
