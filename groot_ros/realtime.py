"""Real-time priority for the loops that must not be late: the servo loop and the simulated controller."""

import os

SERVO_PRIORITY, CONTROLLER_PRIORITY = 30, 40


def ask_for_realtime(priority: int) -> bool:
    """Puts this process under SCHED_FIFO, its children not; False where the user may not (see docs on rtprio)."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError:
        return False
    return True
