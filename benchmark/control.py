"""The servo loop of the arm's child process beside a bare ur_rtde servoL loop, in one run on the simulated controller."""

import json
import os
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection

import numpy as np

from benchmark.common import options, report
from groot_ros.geometry import apply_delta, pose_from_rotvec
from groot_ros.hardware.ur5e import Ur5eSettings
from groot_ros.hardware.ur5e_records import QUIT, START, STATE, WAYPOINT, command
from groot_ros.sim.hooks import CellHooks

HOST = '127.0.0.1'
SECONDS = 10

BARE = f"""
import time, numpy as np
from rtde_control import RTDEControlInterface
from rtde_receive import RTDEReceiveInterface
from groot_ros.realtime import SERVO_PRIORITY, ask_for_realtime
c, r = RTDEControlInterface({HOST!r}, 500.0), RTDEReceiveInterface({HOST!r}, 125.0)
ask_for_realtime(SERVO_PRIORITY)
pose, times, due = r.getTargetTCPPose(), [], time.monotonic()
for _ in range({SECONDS * 500}):
    c.servoL(pose, 0, 0, 0.002, 0.1, 300)
    due += 0.002
    time.sleep(max(due - time.monotonic(), 0))
    times.append(time.monotonic())
c.servoStop(); c.stopScript(); c.disconnect()
print(*np.percentile(np.diff(times) * 1e3, [50, 99, 100]))
"""


def bare_loop() -> list[float]:
    done = subprocess.run([sys.executable, '-c', BARE], capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def child_loop() -> tuple[list[float], list[float], float]:
    """Longest cycle of each second, steps of the state's robot time, and share of a core, while waypoints come at 20 Hz."""
    ours, theirs = socket.socketpair()
    settings = json.dumps(vars(Ur5eSettings(host=HOST)))
    child = subprocess.Popen([sys.executable, '-m', 'groot_ros.hardware.ur5e_child', str(theirs.fileno()), settings], pass_fds=[theirs.fileno()])
    theirs.close()
    pipe = Connection(ours.detach())
    pipe.send_bytes(command(START))
    states, began_s, sent = [], time.monotonic(), 0
    pose = None
    while time.monotonic() - began_s < SECONDS + 1:
        states.append(np.frombuffer(pipe.recv_bytes(), STATE)[0].copy())
        now_s = time.monotonic()
        pose = pose_from_rotvec(states[-1]['target_pose']) if pose is None else pose
        if now_s - began_s > 1 + sent * 0.05:
            pose = apply_delta(pose, np.array([0.002 * np.cos(sent / 10), 0, 0, 0, 0, 0]))
            pipe.send_bytes(command(WAYPOINT, now_s + 0.02, now_s + 0.07, pose))
            sent += 1
    ticks = os.sysconf('SC_CLK_TCK')
    fields = open(f'/proc/{child.pid}/stat').read().split()  # noqa: SIM115, PTH123
    cpu_s = (int(fields[13]) + int(fields[14])) / ticks
    pipe.send_bytes(command(QUIT))
    child.wait(10)
    longest = sorted({float(state['cycle_ms_max']) for state in states[250:]})
    steps = np.diff([state['robot_time_s'] for state in states]) * 1e3
    return longest, steps.tolist(), cpu_s / (time.monotonic() - began_s)


def main() -> None:
    chosen = options(__doc__)
    cell = subprocess.Popen([sys.executable, '-m', 'groot_ros.nodes.sim_cell', '--host', HOST, '--no-camera'])
    try:
        hooks = CellHooks(HOST, 30.0)
        bare = bare_loop()
        longest, steps, share = child_loop()
        lateness = hooks.call('lateness_ms')
    finally:
        cell.terminate()
        cell.wait(10)
    report(
        f'Servo loop, 500 Hz for {SECONDS} s on the simulated controller',
        [
            ('bare servoL loop: cycle p50', bare[0], 'ms'),
            ('bare servoL loop: cycle p99', bare[1], 'ms'),
            ('bare servoL loop: longest cycle', bare[2], 'ms'),
            ('child process: longest cycle of a second, median', float(np.median(longest)), 'ms'),
            ('child process: longest cycle', max(longest), 'ms'),
            ('child process: share of a core', share, ''),
            ('step of the robot time between published states, p50', float(np.percentile(steps, 50)), 'ms'),
            ('step of the robot time between published states, max', max(steps), 'ms'),
            ('lateness of the simulated controller, p99', lateness[2], 'ms'),
        ],
        chosen.json,
    )


if __name__ == '__main__':
    main()
