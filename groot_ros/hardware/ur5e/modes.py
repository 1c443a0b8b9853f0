# SPDX-License-Identifier: Apache-2.0
"""The numbers and names of a UR controller's modes, from the RTDE guide and the headers of ur_rtde."""

ROBOT_MODES = {
    -1: 'NO_CONTROLLER',
    0: 'DISCONNECTED',
    1: 'CONFIRM_SAFETY',
    2: 'BOOTING',
    3: 'POWER_OFF',
    4: 'POWER_ON',
    5: 'IDLE',
    6: 'BACKDRIVE',
    7: 'RUNNING',
    8: 'UPDATING_FIRMWARE',
}
SAFETY_MODES = {
    1: 'NORMAL',
    2: 'REDUCED',
    3: 'PROTECTIVE_STOP',
    4: 'RECOVERY',
    5: 'SAFEGUARD_STOP',
    6: 'SYSTEM_EMERGENCY_STOP',
    7: 'ROBOT_EMERGENCY_STOP',
    8: 'VIOLATION',
    9: 'FAULT',
}
POWER_OFF, IDLE, RUNNING = 3, 5, 7
NORMAL, REDUCED, PROTECTIVE_STOP, EMERGENCY_STOP = 1, 2, 3, 7
EMERGENCY_STOPS = (6, 7)
STOPPED, PLAYING, PAUSED = 1, 2, 4
"""States of the program on the robot (runtime_state)."""


def stop_reason(robot_mode: int, safety_mode: int) -> str:
    """Why an arm in these modes must not be commanded, as a clause; '' if it may be."""
    if safety_mode not in (NORMAL, REDUCED):
        name = SAFETY_MODES.get(safety_mode, f'safety mode {safety_mode}')
        return f'the robot is in {name}'
    if robot_mode != RUNNING:
        name = ROBOT_MODES.get(robot_mode, f'mode {robot_mode}')
        return f'the robot is in {name}, not RUNNING'
    return ''
