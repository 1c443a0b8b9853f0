# SPDX-License-Identifier: Apache-2.0
"""Priority for the loops that must not be late: the servo loop, the driver node, the simulated controller."""

import os
import resource
from pathlib import Path

SERVO_PRIORITY = 30
CONTROLLER_PRIORITY = 40
_NODE_NICENESS = -15
_CAP_SYS_NICE = 23
_HOW = 'grant rtprio and nice in /etc/security/limits.d, then log in again (docs/how-to/calibrate.md)'


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


def priority_problem() -> str:
    """What this user may not have of the priorities that the arm's processes ask for, as a clause; or ''."""
    return missing_rights(
        resource.getrlimit(resource.RLIMIT_RTPRIO)[0],
        resource.getrlimit(resource.RLIMIT_NICE)[0],
        _has_capability(Path('/proc/self/status')),
    )


def missing_rights(max_priority: int, nice_limit: int, privileged: bool) -> str:
    """What is missing for the arm's processes, as a clause that says how to grant it; or ''.

    `max_priority` is RLIMIT_RTPRIO. `nice_limit` is RLIMIT_NICE, which is 20 minus the lowest nice value
    (getrlimit(2)). Both are -1 without a limit. Root in a container may have none of the two rights, so
    `privileged` is the capability CAP_SYS_NICE.
    """
    realtime = privileged or max_priority < 0 or max_priority >= SERVO_PRIORITY
    nice = privileged or nice_limit < 0 or 20 - nice_limit <= _NODE_NICENESS
    if realtime and nice:
        return ''
    wanted = []
    if not realtime:
        wanted.append(f'real-time priority {SERVO_PRIORITY}')
    if not nice:
        wanted.append(f'the nice value {_NODE_NICENESS}')
    return f'this user may not have {" or ".join(wanted)}: {_HOW}'


def _has_capability(status: Path) -> bool:
    """Whether the file status of /proc shows CAP_SYS_NICE as effective."""
    for line in status.read_text().splitlines():
        if line.startswith('CapEff:'):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_NICE & 1)
    return False
