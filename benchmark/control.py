# SPDX-License-Identifier: Apache-2.0
"""ur5e_driver on the simulated controller: servo loop, latency, paths, stamps, processor time, faults."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rclpy
from groot_ros.msg import RobotStatus, TcpDelta
from std_srvs.srv import SetBool, Trigger

from benchmark.common import options, report
from groot_ros.control.device_clock import DeviceClock
from groot_ros.geometry import angle_between, apply_delta, deltas_between, pose_from_rotvec
from groot_ros.hardware.ur5e.arm import Ur5eSettings
from groot_ros.hardware.ur5e.ipc import STATE
from groot_ros.hardware.worker_process import WorkerProcess
from groot_ros.ros.qos import COMMAND_QOS, STATUS_QOS
from groot_ros.ros.time import to_time_msg
from groot_ros.sim.ground_truth import read_truth
from groot_ros.sim.scene import TCP_OFFSET
from groot_ros.sim.test_interface import CellHooks
from groot_ros.ur5e_kinematics import forward

HOST = '127.0.0.1'
SECONDS = 10
PATH_S = 8.0
PROBES = 80
STILL_RAD_S = 2e-3
STILL_TICKS = 100
JOINT_ACCELERATION_LIMIT = 40.0

BARE = f"""
import time
from rtde_control import RTDEControlInterface
from rtde_receive import RTDEReceiveInterface
from groot_ros.hardware.realtime import SERVO_PRIORITY, set_realtime_priority
c, r = RTDEControlInterface({HOST!r}, 500.0), RTDEReceiveInterface({HOST!r}, 125.0)
set_realtime_priority(SERVO_PRIORITY)
pose, due = r.getTargetTCPPose(), time.monotonic()
for k in range({SECONDS * 500}):
    pose[0] += 1e-6
    c.servoL(pose, 0, 0, 0.002, 0.1, 300)
    due += 0.002
    time.sleep(max(due - time.monotonic(), 0))
c.servoStop(); c.stopScript(); c.disconnect()
"""


class Commander:
    """A node that enables, commands and waits."""

    def __init__(self) -> None:
        self.node = rclpy.create_node('benchmark')
        self.status = RobotStatus()
        self._deltas = self.node.create_publisher(TcpDelta, 'teleop/tcp_delta', COMMAND_QOS)
        self._sequence = 0
        self.node.create_subscription(RobotStatus, 'robot_status', self._on_status, STATUS_QOS)

    def _on_status(self, message: RobotStatus) -> None:
        self.status = message

    def until(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            rclpy.spin_once(self.node, timeout_sec=0.005)
            if time.monotonic() > deadline_s:
                return False
        return True

    def call(self, srv_type, name: str, request):
        client = self.node.create_client(srv_type, f'ur5e_driver/{name}')
        self.until(client.service_is_ready)
        future = client.call_async(request)
        return future.result() if self.until(future.done, 60.0) else None

    def enable(self) -> bool:
        return self.until(self._try_to_enable, 30.0)

    def _try_to_enable(self) -> bool:
        answer = self.call(SetBool, 'enable', SetBool.Request(data=True))
        return answer is not None and answer.success

    def send(self, delta: np.ndarray, period_s: float, stamp_ns: int) -> None:
        self._sequence += 1
        message = TcpDelta(source='teleop', sequence=self._sequence, duration=period_s, opening=float('nan'))
        message.translation = delta[:3]
        message.rotation = delta[3:]
        message.header.stamp = to_time_msg(stamp_ns)
        self._deltas.publish(message)

    def released(self) -> None:
        self._sequence += 1
        self._deltas.publish(TcpDelta(source='teleop', sequence=self._sequence, released=True))

    def follow(
        self, deltas: np.ndarray, rate_hz: float, until: Callable[[], bool] = lambda: False
    ) -> tuple[int, int]:
        """Publishes deltas (n, 6) on an absolute grid; the time of the first stamp, and of the end."""
        began_ns = time.time_ns()
        for k, delta in enumerate(deltas):
            due_ns = began_ns + round(k * 1e9 / rate_hz)
            while time.time_ns() < due_ns:
                rclpy.spin_once(self.node, timeout_sec=max(min((due_ns - time.time_ns()) / 1e9, 0.002), 0.0))
            self.send(delta, 1.0 / rate_hz, due_ns)
            if until():
                break
        return began_ns, time.time_ns()


def ideal_path(times_s: np.ndarray) -> np.ndarray:
    """Poses (n, 7) at times (n,): a circle of 4 cm with a turn of 0.2 rad of the tool, from rest to rest."""
    share = np.clip(times_s / PATH_S, 0, 1)
    angle = 4 * np.pi * (share**3 * (10 - 15 * share + 6 * share**2))
    start = np.array([-0.13, -0.49, 0.3, 0, 1, 0, 0.0])
    offsets = np.stack(
        [
            0.04 * np.sin(angle),
            0.04 * (1 - np.cos(angle)),
            0 * angle,
            0 * angle,
            0 * angle,
            0.2 * np.sin(angle),
        ],
        axis=1,
    )
    return np.array([apply_delta(start, offset) for offset in offsets])


def probe_latency(commander: Commander) -> list[int]:
    """Stamps in ns of small steps, published while the set-points rested, at random phases of the loops."""
    rng = np.random.default_rng(0)
    sent = []
    for k in range(PROBES):
        until_s = time.monotonic() + 0.15 + rng.uniform(0, 0.02)
        commander.until(lambda until_s=until_s: time.monotonic() > until_s)
        sent.append(time.time_ns())
        commander.send(np.array([0.0005 * (-1) ** k, 0, 0, 0, 0, 0]), 0.02, sent[-1])
    return sent


def latencies_ms(sent: list[int], truth: np.ndarray) -> np.ndarray:
    """From publishing to the first changed servo target at the controller."""
    changes = np.unique(truth['servo_arrival_ns'])
    return np.array([(changes[np.searchsorted(changes, stamp)] - stamp) / 1e6 for stamp in sent])


def cycles_ms(truth: np.ndarray, began_ns: int, ended_ns: int) -> tuple[np.ndarray, np.ndarray]:
    """Times between changed servo targets at the controller, by the wall clock and by the robot's ticks."""
    arrivals = truth['servo_arrival_ns']
    first = np.flatnonzero(np.diff(arrivals) != 0) + 1
    inside = first[(arrivals[first] > began_ns) & (arrivals[first] < ended_ns)]
    return np.diff(arrivals[inside]) / 1e6, np.diff(inside) * 2.0


def path_errors(
    truth: np.ndarray, began_ns: int, rate_hz: float, ended_ns: int
) -> list[tuple[str, float, str]]:
    """Errors of the set-points and of the measured path, each after its own constant lag."""
    segment = truth[
        (truth['stamp_ns'] > began_ns - 50_000_000) & (truth['stamp_ns'] < ended_ns + 200_000_000)
    ]
    times_s = (segment['stamp_ns'] - began_ns) / 1e9
    setpoints = np.array([pose_from_rotvec(pose) for pose in segment['servo_target']])
    measured = np.array([forward(joints, TCP_OFFSET) for joints in segment['joint_positions']])
    figures = []
    for name, path in (('set-points', setpoints), ('measured path', measured)):
        origin = path[0][:3] - ideal_path(np.zeros(1))[0][:3]
        lags_s = np.arange(0, 0.3, 0.002)
        errors = [
            np.linalg.norm(path[:, :3] - origin - ideal_path(times_s - lag)[:, :3], axis=1) for lag in lags_s
        ]
        best = int(np.argmin([error.mean() for error in errors]))
        turned = [
            angle_between(a, b)
            for a, b in zip(path[::10], ideal_path(times_s[::10] - lags_s[best]), strict=True)
        ]
        label = f'{rate_hz:g} Hz deltas, {name}'
        figures += [
            (f'{label}: lag', lags_s[best] * 1e3, 'ms'),
            (f'{label}: error after it, mean', errors[best].mean() * 1e3, 'mm'),
            (f'{label}: error after it, max', errors[best].max() * 1e3, 'mm'),
            (f'{label}: attitude error after it, max', max(turned) * 1e3, 'mrad'),
        ]
    steps = np.linalg.norm(np.diff(setpoints[:, :3], axis=0), axis=1)
    figures += [
        (f'{rate_hz:g} Hz deltas: max step between ticks of the set-points', steps.max() * 1e3, 'mm'),
        (
            f'{rate_hz:g} Hz deltas: max joint acceleration of the controller',
            np.abs(segment['target_accelerations']).max(),
            'rad/s^2',
        ),
    ]
    return figures


def stamp_jitter() -> list[tuple[str, float, str]]:
    """Arrival of the state against the robot's clock, before and after the filter."""
    records: list[np.void] = []
    settings = vars(Ur5eSettings(robot_ip=HOST))
    child = WorkerProcess(
        'groot_ros.hardware.ur5e.state_process',
        settings,
        lambda data: records.append(np.frombuffer(data, STATE)[0]),
        print,
        2.0,
    )
    time.sleep(SECONDS)
    child.close()
    clock = DeviceClock()
    raw = np.array([int(r['arrival_ns']) - float(r['robot_time_s']) * 1e9 for r in records])
    after = np.array(
        [
            clock.stamp_ns(float(r['robot_time_s']), int(r['arrival_ns'])) - float(r['robot_time_s']) * 1e9
            for r in records
        ]
    )
    settled = slice(len(records) // 5, None)
    figures = []
    for name, offsets in (('before', raw[settled]), ('after', after[settled])):
        spread = np.abs(np.diff(offsets)) / 1e6
        figures += [
            (f'stamp jitter {name} the filter: {what}', value, 'ms')
            for what, value in (('p99', np.percentile(spread, 99)), ('max', spread.max()))
        ]
    return figures


def processor_s(pid: int) -> float:
    fields = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def children_of(pid: int) -> dict[str, int]:
    """Processes by the last word of the module that they run."""
    found = {}
    for entry in Path('/proc').glob('[0-9]*'):
        try:
            words = (entry / 'cmdline').read_bytes().split(b'\0')
            parent = int((entry / 'stat').read_text().rsplit(')', 1)[1].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        if parent == pid and b'-m' in words:
            found[words[words.index(b'-m') + 1].decode().rsplit('.', 1)[-1]] = int(entry.name)
    return found


def faults(commander: Commander, hooks: CellHooks, driver_pid: int) -> list[tuple[str, int, bool]]:
    """Each fault while the arm moves: its name, its time, and whether the arm works again after it."""

    def press(word: bytes) -> None:
        with socket.create_connection((HOST, 29999), timeout=5) as pendant:
            pendant.sendall(word + b'\n')
            pendant.recv(100)

    def silence() -> None:
        hooks.call('silence', on=True)

    happenings: list[tuple[str, Callable[[], object] | None]] = [
        ('deadman released', commander.released),
        ('source falls silent', None),
        ('protective stop', lambda: hooks.call('protective_stop')),
        ('emergency stop', lambda: hooks.call('emergency_stop')),
        ('power off', lambda: hooks.call('power_off')),
        ('program paused on the pendant', lambda: press(b'pause')),
        ('connections dropped', lambda: hooks.call('disconnect')),
        ('controller silent for 3 s', silence),
        ('servo process killed', lambda: os.kill(children_of(driver_pid)['servo_process'], signal.SIGKILL)),
        ('foreign program that does not move', lambda: hooks.call('foreign_program', speed_rad_s=0.0)),
    ]
    found = []
    for index, (name, happen) in enumerate(happenings):
        if not commander.enable():
            found.append((name, 0, False))
            continue
        direction = (-1) ** index
        deltas = np.tile([0.003 * direction, 0, 0, 0, 0, 0], (200, 1))
        commander.follow(deltas[:24], 30.0)
        at_ns = time.time_ns()
        if happen is not None:
            happen()
        if name not in ('deadman released', 'source falls silent'):
            commander.follow(deltas, 30.0, until=lambda: commander.status.state != RobotStatus.ENABLED)
        commander.until(lambda: False, 1.5)
        if name == 'controller silent for 3 s':
            commander.until(lambda: False, 1.5)
            hooks.call('silence', on=False)
        if name == 'emergency stop':
            hooks.call('release_emergency_stop')
            commander.until(lambda: not commander.status.emergency_stopped)
        if name.startswith('foreign'):
            press(b'stop')  # what a person does; the driver never stops another's program
        if commander.status.safety_mode != 1 or commander.status.robot_mode != 7:
            commander.call(Trigger, 'recover', Trigger.Request())
        found.append((name, at_ns, commander.enable()))
        commander.call(SetBool, 'enable', SetBool.Request(data=False))
        commander.until(lambda: False, 1.0)
    return found


def fault_figures(found: list[tuple[str, int, bool]], truth: np.ndarray) -> list[tuple[str, float, str]]:
    figures = []
    for name, at_ns, works in found:
        begin = int(np.searchsorted(truth['stamp_ns'], at_ns))
        speeds = np.abs(truth['joint_velocities'][begin : begin + 1500]).max(axis=1)
        still = np.convolve(speeds < STILL_RAD_S, np.ones(STILL_TICKS), 'valid') > STILL_TICKS - 0.5
        figures.append(
            (
                f'{name}: still after, robot time',
                float(np.argmax(still) * 2.0) if still.any() else float('nan'),
                'ms',
            )
        )
        figures.append((f'{name}: works again', float(works), ''))
    return figures


def start_driver() -> subprocess.Popen:
    parameters = [word for pair in (f'robot_ip:={HOST}', 'command_timeout_s:=0.25') for word in ('-p', pair)]
    return subprocess.Popen(
        [
            sys.executable,
            '-m',
            'groot_ros.nodes.ur5e_driver',
            '--ros-args',
            '--log-level',
            'error',
            *parameters,
        ]
    )


def percentiles_ms(name: str, values_ms: np.ndarray) -> list[tuple[str, float, str]]:
    return [(f'{name} p{p}', float(np.percentile(values_ms, p)), 'ms') for p in (50, 99)]


def main() -> None:
    chosen = options(__doc__)
    os.environ.update(ROS_DOMAIN_ID=str(60 + os.getpid() % 30), ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST')
    with tempfile.TemporaryDirectory() as folder:
        truth_file = Path(folder) / 'truth.bin'
        command = [
            sys.executable,
            '-m',
            'groot_ros.nodes.sim_cell',
            '--host',
            HOST,
            '--no-camera',
            '--no-diagnostics',
            '--truth',
            str(truth_file),
        ]
        cell = subprocess.Popen(command)
        driver = None
        try:
            hooks = CellHooks(HOST, 30.0)
            bare_began_ns = time.time_ns()
            subprocess.run([sys.executable, '-c', BARE], check=True)
            bare_ended_ns = time.time_ns()
            jitter = stamp_jitter()
            rclpy.init(args=[])
            driver = start_driver()
            commander = Commander()
            commander.until(lambda: commander.status.connected)
            assert commander.enable()
            pids = {'sim_cell': cell.pid, 'ur5e_driver': driver.pid, **children_of(driver.pid)}
            before = {name: processor_s(pid) for name, pid in pids.items()}
            began_s = time.monotonic()
            runs = []
            for rate_hz in (10.0, 30.0):
                deltas = deltas_between(ideal_path(np.arange(round(PATH_S * rate_hz) + 1) / rate_hz))
                runs.append((rate_hz, *commander.follow(deltas, rate_hz)))
                commander.released()
                commander.until(lambda: False, 0.8)
            elapsed_s = time.monotonic() - began_s
            shares = [
                (f'share of a core: {name}', (processor_s(pid) - before[name]) / elapsed_s, '')
                for name, pid in pids.items()
            ]
            sent = probe_latency(commander)
            commander.released()
            found = faults(commander, hooks, driver.pid)
            lateness = hooks.call('lateness_ms')
        finally:
            for process in (driver, cell):
                if process is not None:
                    process.terminate()
                    process.wait(20)
        truth = read_truth(truth_file)
    rclpy.try_shutdown()
    bare_wall, bare_robot = cycles_ms(truth, bare_began_ns, bare_ended_ns)
    ours_wall, ours_robot = cycles_ms(truth, runs[1][1] + 500_000_000, runs[1][2] - 500_000_000)
    latency = latencies_ms(sent, truth)
    ratio = float(np.percentile(ours_wall, 99) / np.percentile(bare_wall, 99))
    paths = [
        metric
        for rate_hz, began_ns, ended_ns in runs
        for metric in path_errors(truth, began_ns, rate_hz, ended_ns)
    ]
    metrics = [
        *percentiles_ms('bare servoL loop: cycle', bare_wall),
        *percentiles_ms('driver: cycle', ours_wall),
        ('driver over bare loop: cycle p99', ratio, ''),
        ('bare servoL loop: cycle p99, robot time', float(np.percentile(bare_robot, 99)), 'ms'),
        ('driver: cycle p99, robot time', float(np.percentile(ours_robot, 99)), 'ms'),
        *percentiles_ms('tcp_delta published to changed servo target:', latency),
        ('floor of it: command_delay_s and two loop periods', 2.0 + 4.0, 'ms'),
        *paths,
        ('joint acceleration limit of the controller', JOINT_ACCELERATION_LIMIT, 'rad/s^2'),
        *jitter,
        *shares,
        *fault_figures(found, truth),
        ('lateness of the simulated controller, p99', lateness[2], 'ms'),
    ]
    report('The arm on the simulated controller', metrics, chosen.json)


if __name__ == '__main__':
    main()
