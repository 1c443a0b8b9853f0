"""The policy server without a model: what it costs around an answer, and how chunks are executed, beside what others do with them.

The execution is simulated: a policy that sees a point lagging by 0.1 s behind its target and answers with deltas along a known path,
each chunk off by some mm, after a latency with jitter, 5 % of the answers lost.
"""

import argparse
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from benchmark import signals
from benchmark.common import report
from benchmark.record_truth import TYPES, Messages, Scenario, embodiment_of
from groot_ros.bags.images import stamp_in
from groot_ros.bags.types import typestore
from groot_ros.control.chunks import ChunkScheduler, ScheduleSettings
from groot_ros.geometry import Array, apply_delta, deltas_between, integrate_deltas
from groot_ros.policies.client import Client
from groot_ros.policies.local_backends import LocalBackend
from groot_ros.policies.observing import Observer
from groot_ros.policies.remote import RemotePolicy
from groot_ros.policies.scripted import HoldPolicy
from groot_ros.policies.serving import Server
from groot_ros.policies.targets import targets_of

Figures = list[tuple[str, float, str]]
ROW_S, TICK_S, LAG_S, SECONDS, HORIZON = 0.05, 0.01, 0.1, 30.0, 16
LATENCIES_S = (0.05, 0.1, 0.2, 0.4)
OFF_M, OFF_RAD, LOST = 0.003, 0.03, 0.05
HOST, PORT, ASKS = '127.0.0.1', 5577, 300


def percentiles(name: str, seconds: list[float]) -> Figures:
    return [(f'{name}, p50', float(np.median(seconds)) * 1e3, 'ms'), (f'{name}, p99', float(np.quantile(seconds, 0.99)) * 1e3, 'ms')]


def overhead() -> Figures:
    """One 640x480 camera: sampling and sending an observation, reading an answer and making the first command of it."""
    scenario = Scenario(fps=20.0, camera_hz=(20.0,), seconds=3.0, size=(640, 480))
    embodiment = embodiment_of(scenario)
    observer, newest_ns = Observer(embodiment, stale_s=5.0), 0
    kinds = {**TYPES, embodiment.cameras[0].topic: 'sensor_msgs/msg/Image'}
    for topic, _, cdr in Messages(scenario):
        newest_ns = max(newest_ns, stamp_in(cdr))
        observer.add(topic, stamp_in(cdr), typestore().deserialize_cdr(cdr, kinds[topic]))
    stop = threading.Event()
    server = Server(LocalBackend(HoldPolicy(embodiment), embodiment), HOST, PORT)
    thread = threading.Thread(target=server.run, args=(lambda: not stop.is_set(),))
    thread.start()
    policy, scheduler = RemotePolicy(Client(HOST, PORT, 'n1.7'), embodiment), ChunkScheduler(ScheduleSettings(ROW_S))
    sampled, asked, commanded, together = [], [], [], []
    for ask in range(ASKS):
        scheduler.start(signals.DOWN)
        began_s = time.perf_counter()
        observation = observer.observe(newest_ns, 'go on')
        seen_s = time.perf_counter()
        answer = policy.infer(observation)
        answered_s = time.perf_counter()
        targets = targets_of(answer, embodiment, scheduler.target(ask))
        scheduler.add(targets.poses, targets.openings, ask, ask)
        pose, _ = scheduler.sample(ask + ROW_S)
        deltas_between(np.array([signals.DOWN, pose]))
        done_s = time.perf_counter()
        sampled.append(seen_s - began_s)
        asked.append(answered_s - seen_s)
        commanded.append(done_s - answered_s)
        together.append(done_s - answered_s + seen_s - began_s)
    stop.set()
    thread.join()
    policy.close()
    return [
        *percentiles('observation sampled and its pictures turned to RGB', sampled),
        *percentiles('picture made smaller, packed, there and back over loopback, server in the same process', asked),
        *percentiles('answer to first command', commanded),
        *percentiles('first and third together', together),
    ]


def path(u: float) -> Array:
    """A pose along a closed path that turns."""
    along = np.array([0.12 * np.sin(0.9 * u), 0.08 * np.sin(1.8 * u), 0.03 * np.sin(2.7 * u), 0.3 * np.sin(0.7 * u), 0.0, 0.5 * np.sin(0.9 * u)])
    return apply_delta(signals.DOWN, along)


class PathPolicy:
    """Knows the path, sees how far along it the arm is, and gives the deltas ahead, a little off in another way each time."""

    def __init__(self, seed: int) -> None:
        self._rng, self._u = np.random.default_rng(seed), 0.0

    def deltas(self, measured: Array) -> Array:
        """Deltas (H, 6) of an observation."""
        near = self._u + np.linspace(-0.1, 1.0, 221)
        self._u = float(near[np.argmin([np.linalg.norm(path(u)[:3] - measured[:3]) for u in near])])
        poses = np.array([path(self._u + k * ROW_S) for k in range(HORIZON + 1)])
        deltas = deltas_between(poses)
        deltas[0] += self._rng.normal(size=6) * np.array([OFF_M] * 3 + [OFF_RAD] * 3) / np.sqrt(3)
        # It sees where it is, so that it leads back to the path.
        deltas[:, :3] += (poses[0][:3] - measured[:3]) / HORIZON
        return deltas


@dataclass
class Run:
    """Targets and measured poses of a run, a tick each, and how far each seam jumped."""

    targets: Array
    measured: Array
    jumps_m: list[float]


Executor = Callable[['World'], None]


class World:
    """Time, the arm's lag, and answers that come late or never."""

    def __init__(self, latency_s: float, seed: int = 0) -> None:
        self.now_s, self.measured, self.target = 0.0, path(0.0), path(0.0)
        self.policy, self._latency_s, self._rng = PathPolicy(seed), latency_s, np.random.default_rng(seed + 100)
        self._targets: list[Array] = []
        self._measured: list[Array] = []
        self.jumps_m: list[float] = []

    def latency(self) -> float:
        """Of the next answer; a lost one is given up after a second."""
        return 1.0 if self._rng.random() < LOST else self._latency_s * self._rng.uniform(0.8, 1.3)

    def tick(self, target: Array) -> None:
        """Commands a target for one tick."""
        self.target = target
        moved = self.measured[:3] + (target[:3] - self.measured[:3]) * (1 - np.exp(-TICK_S / LAG_S))
        turn = (Rotation.from_quat(target[3:].copy()) * Rotation.from_quat(self.measured[3:].copy()).inv()).as_rotvec()
        turned = Rotation.from_rotvec(turn * (1 - np.exp(-TICK_S / LAG_S))) * Rotation.from_quat(self.measured[3:].copy())
        self.measured = np.concatenate([moved, turned.as_quat()])
        self._targets.append(target)
        self._measured.append(self.measured)
        self.now_s += TICK_S

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return self.now_s >= SECONDS

    def run(self) -> Run:
        """What happened."""
        return Run(np.array(self._targets), np.array(self._measured), self.jumps_m)


def scheduled(world: World) -> None:
    """Ours."""
    scheduler = ChunkScheduler(ScheduleSettings(ROW_S))
    scheduler.start(world.target)
    pending: tuple[float, float, Array | None] | None = None
    while not world.over:
        if pending is not None and world.now_s >= pending[0]:
            _, observed_s, deltas = pending
            pending = None
            if deltas is None:
                scheduler.lost()
            else:
                poses = integrate_deltas(scheduler.target(observed_s), deltas)[1:]
                scheduler.add(poses, np.ones(len(poses)), observed_s, world.now_s)
        if pending is None and scheduler.wants_request(world.now_s):
            latency_s = world.latency()
            pending = (world.now_s + latency_s, world.now_s, None if latency_s == 1.0 else world.policy.deltas(world.measured))
            scheduler.requested(world.now_s)
        world.tick(scheduler.sample(world.now_s)[0])
    world.jumps_m = [0.0 for _ in scheduler.figures.seams]  # blended: the target itself never jumps


def stop_and_go(world: World) -> None:
    """As the examples of NVIDIA's repository: a blocking request, half of the chunk, and again; each step is commanded at once."""
    while not world.over:
        deltas, until_s = world.policy.deltas(world.measured), world.now_s + world.latency()
        while world.now_s < until_s and not world.over:
            world.tick(world.target)
        for delta in deltas[: HORIZON // 2]:
            target = apply_delta(world.target, delta)
            for _ in range(round(ROW_S / TICK_S)):
                world.tick(target)


def blended_by_number(world: World) -> None:
    """Requests beside the motion; a chunk begins when it comes, from the measured pose, and each number is mixed on its own for 150 ms."""
    old: tuple[float, Array] | None = None
    new: tuple[float, Array] | None = None
    pending: tuple[float, Array | None] | None = None
    last_s = -1.0

    def at(chunk: tuple[float, Array], now_s: float) -> Array:
        k = np.clip((now_s - chunk[0]) / ROW_S, 0, HORIZON)
        low = int(k)
        high = min(low + 1, HORIZON)
        return chunk[1][low] + (chunk[1][high] - chunk[1][low]) * (k - low)

    while not world.over:
        if pending is not None and world.now_s >= pending[0]:
            if pending[1] is not None:
                poses = integrate_deltas(world.measured, pending[1])
                before = world.target
                old, new = new, (world.now_s, poses)
                world.jumps_m.append(float(np.linalg.norm(poses[0][:3] - before[:3])))
            pending = None
        if pending is None and (new is None or world.now_s - last_s >= 0.4):
            latency_s, last_s = world.latency(), world.now_s
            pending = (world.now_s + latency_s, None if latency_s == 1.0 else world.policy.deltas(world.measured))
        target = world.target
        if new is not None:
            target = at(new, world.now_s)
            share = min((world.now_s - new[0]) / 0.15, 1.0)
            if old is not None and share < 1.0:
                target = at(old, world.now_s) * (1 - share) + target * share
            target = np.concatenate([target[:3], target[3:] / np.linalg.norm(target[3:])])
        world.tick(target)


def judged(run: Run) -> dict[str, float]:
    """How near to the path, how smooth and how steady the commanded motion was."""
    grid = np.array([path(u)[:3] for u in np.linspace(0, 40, 8001)])
    positions = run.measured[100:, :3]
    away = np.array([np.linalg.norm(grid - position, axis=1).min() for position in positions[::5]])
    steps = np.linalg.norm(np.diff(run.targets[100:, :3], axis=0), axis=1)
    accelerations = np.linalg.norm(np.diff(run.measured[:, :3], n=2, axis=0), axis=1)[100:] / TICK_S**2
    speeds = np.linalg.norm(np.diff(positions, axis=0), axis=1) / TICK_S
    return {
        'path error, p95 [mm]': float(np.quantile(away, 0.95)) * 1e3,
        'largest jump of the target in a tick [mm]': float(steps.max()) * 1e3,
        'largest acceleration [m/s2]': float(accelerations.max()),
        'share of time below 10 mm/s': float(np.mean(speeds < 0.01)),
    }


def execution() -> Figures:
    """Three ways to execute the same policy."""
    found: Figures = []
    for latency_s in LATENCIES_S:
        for name, execute in (('scheduled by time', scheduled), ('stop and go', stop_and_go), ('mixed by number', blended_by_number)):
            world = World(latency_s)
            execute(world)
            found += [(f'{latency_s * 1e3:.0f} ms, {name}: {what}', value, '') for what, value in judged(world.run()).items()]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures to a file')
    chosen = parser.parse_args()
    report('The policy server without a model', [*overhead(), *execution()], chosen.json)


if __name__ == '__main__':
    main()
